"""Which job is next.

Held back are those that no place, limit or resource of the machine allows (`ResourceManager.admission`).
Order: class (urgent, high, normal, low; waiting long raises a job class by class, never above
high), then fairness (whose creator has fewest running jobs), then due time. There is no stored
order key: only the heads of each class, and of each creator within it, are read, each by an index,
so a claim costs the same with ten jobs waiting and with a million.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from jobs import conf
from jobs.manager import JobManager
from jobs.models import Job, as_uuid
from jobs.resources import OPEN_DOORS, Admission, ResourceManager
from jobs.states import Priority

# One analyst's ten thousand jobs are one head; more waiting creators than this share by due time.
CREATORS_MAX = 200

_WAITING = "status = 'PENDING' AND hold_reason = '' AND queue_name = %(queue)s AND priority = %({priority})s"

# A loose index scan: one step per creator, whatever the number of their jobs.
_CREATORS = """
    WITH RECURSIVE creators(creator, n) AS (
        SELECT MIN(created_by_id), 1 FROM jobs_job WHERE {waiting}
        UNION ALL
        SELECT (SELECT MIN(created_by_id) FROM jobs_job WHERE {waiting} AND created_by_id > creators.creator), n + 1
        FROM creators WHERE creators.creator IS NOT NULL AND n < {most}
    ), heads AS (
        SELECT creator, (
            SELECT id FROM jobs_job WHERE {waiting} AND created_by_id = creators.creator AND run_after <= %(now)s {allowed}
            ORDER BY run_after LIMIT 1
        ) AS head FROM creators WHERE creator IS NOT NULL
    )
    SELECT job.id FROM heads JOIN jobs_job AS job ON job.id = heads.head
    ORDER BY (
        SELECT COUNT(*) FROM jobs_job AS r WHERE r.status = 'RUNNING' AND r.created_by_id = heads.creator
    ), job.run_after LIMIT 4"""

CLAIMS_LOCK = 0x6669656C  # names the advisory lock of claims on PostgreSQL


def claim(queue: str, *, worker_id: str, host: str, hot: bool = False) -> Job | None:
    """Take the best due job of `queue` for this worker, or None when nothing may start.

    A look without any lock comes first, for it is the usual case that nothing is due. The claim itself
    looks again under a lock, because two claims at once would both pass a limit of one. `hot`: the
    machine's CPU is too busy for more.
    """
    while find(queue, host, hot):
        with transaction.atomic():
            lock_claims()
            job = JobManager().start(find(queue, host, hot), worker_id=worker_id, host=host)
        if job is not None:
            return job
    return None


def find(queue: str, host: str, hot: bool) -> list[uuid.UUID]:
    admission = ResourceManager().admission(queue, host, hot=hot)
    return [] if admission.closed else next_candidates(queue, timezone.now(), admission)


def lock_claims() -> None:
    """One claim at a time: by an advisory lock on PostgreSQL; on SQLite the transaction has the write lock already."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CLAIMS_LOCK])


def next_candidates(queue: str, now: datetime, admission: Admission = OPEN_DOORS) -> list[uuid.UUID]:
    """A few due jobs of the class whose turn it is, best first."""
    statement, params, allowed = heads_statement(queue, now, admission)
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        heads = [(p, as_time(due), as_uuid(pk), creator) for p, due, pk, creator in cursor.fetchall()]
        if not heads:
            return []
        priority, _, head, creator = max(heads, key=lambda h: (effective_priority(h[0], h[1], now), h[0], now - h[1]))
        if creator is None or not has_running(cursor, creator):
            return [head]
        waiting = _WAITING.format(priority=f"p{priority}")
        cursor.execute(_CREATORS.format(waiting=waiting, allowed=allowed, most=CREATORS_MAX), params)
        return [as_uuid(row[0]) for row in cursor.fetchall()] or [head]


def heads_statement(queue: str, now: datetime, admission: Admission) -> tuple[str, dict[str, Any], str]:
    """The first due job of each class that may start, as SQL with its parameters, and the exclusions in it."""
    params: dict[str, Any] = {"queue": queue, "now": connection.ops.adapt_datetimefield_value(now)}
    allowed = exclusions(admission, params)
    columns = "priority, run_after, id, created_by_id"
    heads = []
    for priority in Priority.values:
        if priority >= admission.least_priority:
            params[f"p{priority}"] = priority
            waiting = _WAITING.format(priority=f"p{priority}")
            first = f"SELECT {columns} FROM jobs_job WHERE {waiting} AND run_after <= %(now)s {allowed} ORDER BY run_after LIMIT 1"
            heads.append(f"SELECT {columns} FROM ({first}) AS h{priority}")
    return " UNION ALL ".join(heads), params, allowed


def exclusions(admission: Admission, params: dict[str, Any]) -> str:
    """SQL that leaves out the types and people who are at a limit, so that they block nobody behind them."""
    parts = []
    for column, values in (("job_type", admission.types), ("created_by_id", admission.users)):
        names = [f"{column}_{n}" for n in range(len(values))]
        params.update(zip(names, values, strict=True))
        if names:
            marks = ", ".join(f"%({name})s" for name in names)
            parts.append(f"AND ({column} IS NULL OR {column} NOT IN ({marks}))")
    return " ".join(parts)


def has_running(cursor: Any, creator: int) -> bool:
    # without the ORM, which would be a fifth of the whole claim
    cursor.execute("SELECT 1 FROM jobs_job WHERE status = 'RUNNING' AND created_by_id = %s LIMIT 1", [creator])
    return cursor.fetchone() is not None


def effective_priority(priority: int, due: datetime, now: datetime) -> int:
    """The class of a job after ageing: one class up per `ageing_s` waited, never above HIGH."""
    if priority >= Priority.HIGH:
        return priority
    steps = int((now - due) / timedelta(seconds=conf.get("ageing_s")))
    return int(min(Priority.HIGH, priority + 10 * max(steps, 0)))


def as_time(value: datetime | str) -> datetime:
    """A raw query returns text on SQLite."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
