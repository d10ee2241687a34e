"""Which job is next.

Order: class (urgent, high, normal, low; waiting long raises a job class by class, never above
high), then fairness (whose creator has fewest running jobs), then due time. There is no stored
order key: only the heads of each class, and of each creator within it, are read, each by an index,
so a claim costs the same with ten jobs waiting and with a million.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from jobs import conf
from jobs.manager import JobManager
from jobs.models import Job, as_uuid
from jobs.states import Priority

# One analyst's ten thousand jobs are one head; more waiting creators than this share by due time.
CREATORS_MAX = 200

_HEAD = """
    SELECT priority, run_after, id, created_by_id FROM (
        SELECT priority, run_after, id, created_by_id FROM jobs_job
        WHERE status = 'PENDING' AND queue_name = %s AND priority = %s AND run_after <= %s AND hold_reason = ''
        ORDER BY run_after LIMIT 1
    ) AS head{n}"""
_HEADS = " UNION ALL ".join(_HEAD.format(n=n) for n in range(len(Priority)))

# A loose index scan: one step per creator, whatever the number of their jobs.
_CREATORS = f"""
    WITH RECURSIVE creators(creator, n) AS (
        SELECT MIN(created_by_id), 1 FROM jobs_job
        WHERE status = 'PENDING' AND queue_name = %(queue)s AND priority = %(priority)s
        UNION ALL
        SELECT (
            SELECT MIN(created_by_id) FROM jobs_job
            WHERE status = 'PENDING' AND queue_name = %(queue)s AND priority = %(priority)s
              AND created_by_id > creators.creator
        ), n + 1 FROM creators WHERE creators.creator IS NOT NULL AND n < {CREATORS_MAX}
    ), heads AS (
        SELECT creator, (
            SELECT id FROM jobs_job
            WHERE status = 'PENDING' AND queue_name = %(queue)s AND priority = %(priority)s
              AND created_by_id = creators.creator AND run_after <= %(now)s AND hold_reason = ''
            ORDER BY run_after LIMIT 1
        ) AS head FROM creators WHERE creator IS NOT NULL
    )
    SELECT job.id FROM heads JOIN jobs_job AS job ON job.id = heads.head
    ORDER BY (
        SELECT COUNT(*) FROM jobs_job AS r WHERE r.status = 'RUNNING' AND r.created_by_id = heads.creator
    ), job.run_after LIMIT 4"""


def claim(queue: str, *, worker_id: str, host: str) -> Job | None:
    """Take the best due job of `queue` for this worker, or None when nothing is due.

    Candidates are chosen without locks; taking one is the manager's conditional UPDATE. When others
    were faster on all of them, look again.
    """
    while True:
        candidates = next_candidates(queue, timezone.now())
        if not candidates:
            return None
        job = JobManager().start(candidates, worker_id=worker_id, host=host)
        if job is not None:
            return job


def next_candidates(queue: str, now: datetime) -> list[uuid.UUID]:
    """A few due jobs of the class whose turn it is, best first."""
    when = connection.ops.adapt_datetimefield_value(now)
    with connection.cursor() as cursor:
        params = [value for priority in Priority.values for value in (queue, priority, when)]
        cursor.execute(_HEADS, params)
        heads = [(p, as_time(due), as_uuid(pk), creator) for p, due, pk, creator in cursor.fetchall()]
        if not heads:
            return []
        priority, _, head, creator = max(heads, key=lambda h: (effective_priority(h[0], h[1], now), h[0], now - h[1]))
        if creator is None or not has_running(cursor, creator):
            return [head]
        cursor.execute(_CREATORS, {"queue": queue, "priority": priority, "now": when})
        return [as_uuid(row[0]) for row in cursor.fetchall()] or [head]


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
