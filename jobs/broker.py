"""Tokens: waking a worker. With `jobs.cluster`, all that knows django-q2.

A token names no job and no row records it. It means "look at the table". A lost one is replaced
by the next tick, a surplus one finds nothing to do.
"""

import logging
from datetime import datetime, timedelta
from time import sleep

from django.db import DatabaseError, connection
from django_q.brokers import Broker, get_broker
from django_q.brokers.orm import ORM
from django_q.brokers.redis_broker import Redis
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task
from redis import RedisError

log = logging.getLogger(__name__)

# name, function, minutes between two runs
RECURRING = (("archive ended jobs", "jobs.upkeep.archive_ended_jobs", 60), ("send mail", "jobs.upkeep.send_due_mail", 1))
TOKEN_TASK = "jobs.runner.run_due_jobs"  # noqa: S105 - the name of a function


class TokenBroker(ORM):
    """django-q2's ORM broker, but a token is deleted when it is taken.

    The stock one locks it for `retry` seconds and then delivers it again: a 14 s task started 4 times.
    """

    def dequeue(self) -> list[tuple[int, str]] | None:
        try:
            tokens = list(self.get_connection().filter(key=self.list_key).order_by("pk")[: Conf.BULK])
            taken = [(t.pk, t.payload) for t in tokens if OrmQ.objects.filter(pk=t.pk).delete()[0]]
        except DatabaseError:
            # The pusher would end itself after 10 s and be started again; waiting here is quicker.
            log.warning("The database did not answer the token broker", exc_info=True)
            sleep(1)
            return None
        if not taken:
            sleep(Conf.POLL)
        return taken or None

    def queue_size(self) -> int:
        with connection.cursor() as cursor:  # asked at each enqueue, so without the ORM's overhead
            cursor.execute(f"SELECT COUNT(*) FROM {OrmQ._meta.db_table} WHERE key = %s", [self.list_key])
            return int(cursor.fetchone()[0])

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """Workers and clusters are seen in WorkerProcess; django-q2's own statistics are not kept."""


class RedisTokenBroker(Redis):
    """django-q2's Redis broker; while Redis is away its pusher waits instead of ending itself."""

    def dequeue(self) -> list[tuple[None, bytes]] | None:
        try:
            return super().dequeue()
        except RedisError:
            log.warning("Redis did not answer the token broker")
            sleep(1)
            return None

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """As above; and the guard must not wait for a Redis that is away."""


_brokers: dict[str, Broker] = {}


def broker_for(queue: str) -> Broker:
    """The kept broker of a queue: making one per call costs eight times the enqueue itself."""
    if queue not in _brokers:
        _brokers[queue] = get_broker(queue)
    return _brokers[queue]


def send_token(queue: str) -> None:
    """Wake one worker of `queue`, unless as many tokens wait as a cluster has workers.

    A worker that takes a token works until nothing is due, so more would only be no-ops to write
    and to read. May raise whatever the broker raises; no job depends on it.
    """
    if tokens_waiting(queue) < Conf.WORKERS:
        async_task(TOKEN_TASK, broker=broker_for(queue), cluster=queue, task_name="token")


def tokens_waiting(queue: str) -> int:
    return int(broker_for(queue).queue_size() or 0)


def forget_connections() -> None:
    """After a fork: brokers of the parent must not be used here."""
    _brokers.clear()


def schedule_token(queue: str, when: datetime) -> None:
    """One wake-up per queue and minute, as a django-q2 schedule; the row's `run_after` decides."""
    minute = when.replace(second=0, microsecond=0) + timedelta(minutes=1)
    name = f"wake {queue} {minute:%Y-%m-%d %H:%M}"
    values = {"func": TOKEN_TASK, "schedule_type": Schedule.ONCE, "next_run": minute, "cluster": queue, "repeats": -1}
    Schedule.objects.update_or_create(name=name, defaults=values)


def keep_schedules() -> None:
    """The recurring tasks, as django-q2 schedules that administrators see. Each takes a lock when it runs."""
    for name, function, minutes in RECURRING:
        values = {"schedule_type": Schedule.MINUTES, "minutes": minutes, "repeats": -1, "cluster": "default"}
        schedule, _ = Schedule.objects.get_or_create(name=name, defaults={**values, "func": function})
        if schedule.func != function:  # an administrator may change how often, a release may move the function
            Schedule.objects.filter(pk=schedule.pk).update(func=function)
