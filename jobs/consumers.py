"""WebSockets: one job, and the list with the queue. docs/live.md lists the messages.

A live message may be lost. So each process asks the database every two seconds, in one query, for
the revisions of all the jobs that its sockets watch, and sends a snapshot to whoever is behind.
"""

import asyncio
import itertools
import logging
import time
import uuid
from typing import Any
from urllib.parse import parse_qs

import orjson
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.db import DatabaseError, close_old_connections, connection
from django.template.loader import render_to_string
from django.utils import translation

from jobs import live
from jobs.language import SOURCE
from jobs.models import Job, JobLog
from jobs.notifications import unread_of
from jobs.presentation import as_lists, decorate, live_fields, told_live
from jobs.resources import ResourceManager
from jobs.ways import with_ways

log = logging.getLogger(__name__)

NOT_SIGNED_IN, NOT_FOUND, BAD_MESSAGE = 4401, 4404, 4400
REPAIR_S = 2.0
RECHECK_S = 30.0
LIST_PACE_S = 0.5
STATS_PACE_S = 2.0
# Also without any message: when all workers are gone, nobody is left to send one.
STATS_AT_LEAST_S = 5.0
SNAPSHOT_LINES_MAX = 500
ROWS_AT_ONCE = 200


def from_database(function: Any) -> Any:
    """Run in a thread of the pool, one connection per call: sockets must not queue behind each other."""

    def call(*args: Any) -> Any:
        close_old_connections()
        try:
            return function(*args)
        finally:
            close_old_connections()

    return sync_to_async(call, thread_sensitive=False)


class Consumer(AsyncWebsocketConsumer):
    """What both sockets share: who may listen, and messages as JSON."""

    user: Any = None
    language = SOURCE

    async def connect(self) -> None:
        self.language = language_of(self.scope)
        live.attach_receiver()
        await self.accept()  # a code reaches the browser only on an accepted socket
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            await self.close(NOT_SIGNED_IN)
            return
        self.user = user
        self.checked_at = time.monotonic()
        await self.begin()

    async def begin(self) -> None:
        """Join the groups and say how things stand."""

    async def in_language(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message as the browser shows it: what was said about the job, and its lines, in its language."""
        if self.language == SOURCE:
            return message
        return await asyncio.to_thread(told_in, self.language, message)  # many long lines take their time

    async def say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=orjson.dumps(message).decode())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            message = orjson.loads(text_data or "")
            kind = message["type"]
        except (ValueError, TypeError, KeyError):
            await self.refuse('A message is a JSON object with a type, such as {"type": "resume", "after": 17}.')
            return
        if kind == "ping":
            await self.answer()
        else:
            await self.take(kind, message)

    async def answer(self) -> None:
        """To a page that has heard nothing for a while; not while the database is away, for then nothing here is known to be true."""
        try:
            await from_database(ask)()
        except DatabaseError:
            log.warning("A page asked whether it is live, and the database does not answer")
        else:
            await self.say({"type": "pong"})

    async def take(self, kind: str, message: dict[str, Any]) -> None:
        await self.refuse(f"There is no message of the type {str(kind)[:40]!r} on this socket.")

    async def refuse(self, detail: str) -> None:
        await self.say({"type": "error", "detail": detail})
        await self.close(BAD_MESSAGE)

    async def may_stay(self) -> bool:
        """Asked every 30 s: is the session still there and the person still allowed?"""
        self.checked_at = time.monotonic()
        session = self.scope["session"]
        user = await from_database(current_user)(session, self.user.pk)
        if user is None:
            await self.close(NOT_SIGNED_IN)
            return False
        self.user = user
        return True


def ask() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def current_user(session: SessionBase, user_id: Any) -> Any:
    if not session.session_key or not session.exists(session.session_key):
        return None
    return get_user_model().objects.filter(pk=user_id, is_active=True).first()


class JobConsumer(Consumer):
    """/ws/jobs/{job_id}: snapshot on connect, then progress, status, log and samples of one job."""

    async def begin(self) -> None:
        self.revision = -1
        self.seq: int | None = None
        try:
            self.job_id = uuid.UUID(self.scope["url_route"]["kwargs"]["job_id"])
        except ValueError:
            await self.close(NOT_FOUND)
            return
        if await from_database(read_job)(self.user, self.job_id) is None:
            await self.close(NOT_FOUND)
            return
        await self.channel_layer.group_add(f"job.{self.job_id}", self.channel_name)
        watch().add(self)
        await self.snapshot()

    async def disconnect(self, code: int) -> None:
        watch().discard(self)
        if hasattr(self, "job_id"):
            await self.channel_layer.group_discard(f"job.{self.job_id}", self.channel_name)

    async def take(self, kind: str, message: dict[str, Any]) -> None:
        after = message.get("after")
        if kind != "resume" or not isinstance(after, int) or isinstance(after, bool) or after < 0:
            await self.refuse('This socket takes {"type": "resume", "after": <number of the last log line>}.')
            return
        self.seq = after
        await self.snapshot()

    async def snapshot(self) -> None:
        """The row as it is, and the log after the line that the client has."""
        found = await from_database(read_snapshot)(self.user, self.job_id, self.seq)
        if found is None:
            await self.close(NOT_FOUND)
            return
        self.revision = max(self.revision, found["job"]["revision"])
        self.seq = found["log_seq"] if self.seq is None or not found["lines"] else found["lines"][-1][0]
        await self.say(await self.in_language({"type": "job.snapshot", **found}))

    async def live_message(self, event: dict[str, Any]) -> None:
        message = event["message"]
        kind = message["type"]
        if kind == "job.log":
            await self.log_lines(message)
        elif kind == "job.progress":
            if message["revision"] > self.revision:
                self.revision = message["revision"]
                await self.say(await self.in_language(message))
        elif kind == "job.sample":
            await self.say(await self.in_language(message))
        elif kind == "job.reread" or message.get("revision", 0) > self.revision:
            await self.snapshot()

    async def log_lines(self, message: dict[str, Any]) -> None:
        """Forward lines that follow on those sent; where some are missing, read them from the table."""
        if self.seq is None or message["first"] != self.seq + 1 or message["missing"]:
            await self.snapshot()
            return
        lines = [[message["first"] + n, *line] for n, line in enumerate(message["lines"])]
        self.seq = lines[-1][0]
        await self.say(await self.in_language({"type": "job.log", "id": message["id"], "lines": lines}))

    async def repair(self, revision: int, log_seq: int) -> None:
        if revision > self.revision or (self.seq is not None and log_seq > self.seq):
            await self.snapshot()


def told_in(language: str, message: dict[str, Any]) -> dict[str, Any]:
    with translation.override(language):
        return told_live(message)


def language_of(scope: Any) -> str:
    """The language of the page that opened the socket, as its address says."""
    asked = parse_qs(scope["query_string"].decode("ascii", "replace")).get("lang", [SOURCE])[0]
    return asked if asked in dict(settings.LANGUAGES) else SOURCE


def read_job(user: Any, job_id: uuid.UUID) -> Job | None:
    return Job.objects.visible_to(user).filter(pk=job_id).first()


def read_snapshot(user: Any, job_id: uuid.UUID, after: int | None) -> dict[str, Any] | None:
    job = read_job(user, job_id)
    if job is None:
        return None
    return {"job": live_fields(job), "log_seq": job.log_seq, "lines": [] if after is None else read_lines(job, after)}


def read_lines(job: Job, after: int) -> list[list[Any]]:
    """The lines after `after`, oldest first."""
    return as_lists(JobLog.objects.filter(job=job, seq__gt=after).order_by("seq")[:SNAPSHOT_LINES_MAX])


class JobListConsumer(Consumer):
    """/ws/jobs: rows of the list that changed, the figures of the queue, one's own notifications."""

    async def begin(self) -> None:
        self.changed: set[str] = set()
        # pages without a table of jobs ask for `?rows=0`: notifications alone
        self.rows_wanted = b"rows=0" not in self.scope["query_string"]
        self.stats_at = float("-inf")
        self.stats_wanted = self.rows_wanted
        for group in ("jobs", f"user.{self.user.pk}"):
            await self.channel_layer.group_add(group, self.channel_name)
        await self.count_unread()
        self.teller = asyncio.get_running_loop().create_task(self.tell())

    async def disconnect(self, code: int) -> None:
        if hasattr(self, "teller"):
            self.teller.cancel()
            for group in ("jobs", f"user.{self.user.pk}"):
                await self.channel_layer.group_discard(group, self.channel_name)

    async def live_message(self, event: dict[str, Any]) -> None:
        message = event["message"]
        if message["type"] in ("notification", "notification.read"):
            await self.say(await self.in_language(message))
            return
        if self.rows_wanted:
            self.stats_wanted = True
            if message.get("id"):
                self.changed.add(message["id"])

    async def take(self, kind: str, message: dict[str, Any]) -> None:
        """{"type": "rows", "known": {id: revision}}: the page asks for what became of these."""
        known = message.get("known")
        if kind != "rows" or not isinstance(known, dict) or len(known) > ROWS_AT_ONCE:
            await self.refuse(f'This socket takes {{"type": "rows", "known": {{id: revision}}}}, for {ROWS_AT_ONCE} jobs at most.')
            return
        self.changed |= await from_database(newer_than)(self.user, known)

    async def count_unread(self) -> None:
        """Also what came while the page had no socket, and what was lost on the way."""
        await self.say({"type": "notification.read", "unread": await from_database(unread_of)(self.user)})

    def stats_are_due(self) -> bool:
        age = time.monotonic() - self.stats_at
        return age >= (STATS_PACE_S if self.stats_wanted else STATS_AT_LEAST_S)

    async def tell(self) -> None:
        """Twice a second: the changed rows that this person may see, as the list itself draws them."""
        try:
            while True:
                if time.monotonic() - self.checked_at > RECHECK_S:
                    if not await self.may_stay():
                        return
                    await self.count_unread()
                changed = set(itertools.islice(self.changed, ROWS_AT_ONCE))
                self.changed -= changed
                if changed:
                    for row in await from_database(read_rows)(self.user, changed, self.language):
                        await self.say({"type": "job.row", **row})
                if self.rows_wanted and self.stats_are_due():
                    self.stats_wanted, self.stats_at = False, time.monotonic()
                    stats = await from_database(ResourceManager().get_queue_statistics)(self.user)
                    await self.say({"type": "queue.stats", "stats": stats})
                await asyncio.sleep(LIST_PACE_S)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("The list socket stopped; the browser connects again")
            await self.close(1011)


def newer_than(user: Any, known: dict[str, Any]) -> set[str]:
    """Those of the jobs that the user may see whose row has another revision; what is no id is nobody's."""
    ids = [pk for pk in map(as_id, known) if pk]
    rows = Job.objects.visible_to(user).filter(pk__in=ids).order_by().values_list("pk", "revision")
    return {str(pk) for pk, revision in rows if revision != known.get(str(pk))}


def as_id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def read_rows(user: Any, ids: set[str], language: str) -> list[dict[str, Any]]:
    jobs = Job.objects.visible_to(user).select_related("created_by").filter(pk__in=ids)
    with translation.override(language):
        return [
            {
                "id": str(job.pk), "revision": job.revision, "status": job.status,
                "html": render_to_string("jobs/_row.html", {"job": job, "all_columns": True}),
            }
            for job in with_ways(decorate(list(jobs)), user)
        ]  # fmt: skip


class Watch:
    """The jobs that the sockets of this event loop watch, compared with their rows."""

    def __init__(self) -> None:
        self.consumers: set[JobConsumer] = set()
        self.task: asyncio.Task | None = None

    def add(self, consumer: JobConsumer) -> None:
        self.consumers.add(consumer)
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self.run())

    def discard(self, consumer: JobConsumer) -> None:
        self.consumers.discard(consumer)

    async def run(self) -> None:
        while self.consumers:
            await asyncio.sleep(REPAIR_S)
            try:
                await self.compare()
            except Exception:  # the database is away: the pages keep what they show, with its age
                log.warning("Could not compare what browsers show with the rows", exc_info=True)

    async def compare(self) -> None:
        ids = {c.job_id for c in self.consumers}
        rows = await from_database(read_revisions)(ids)
        for consumer in list(self.consumers):
            if time.monotonic() - consumer.checked_at > RECHECK_S:
                if not await consumer.may_stay():
                    continue
                await consumer.snapshot()  # closes the socket if the job is no longer theirs to see
            elif consumer.job_id in rows:
                await consumer.repair(*rows[consumer.job_id])


def read_revisions(ids: set[uuid.UUID]) -> dict[uuid.UUID, tuple[int, int]]:
    return {pk: (revision, seq) for pk, revision, seq in Job.objects.filter(pk__in=ids).values_list("pk", "revision", "log_seq")}


_watches: dict[int, Watch] = {}


def watch() -> Watch:
    return _watches.setdefault(id(asyncio.get_running_loop()), Watch())
