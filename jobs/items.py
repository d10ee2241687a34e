"""What became of each item of a job, and what a handler keeps for its next attempt.

`ok` is written by the handler's own connection in the transaction of the item's output, so that one is
never there without the other; failed and skipped items arrive through the worker. All writes are fenced:
they match nothing once the attempt is over.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from django.db import connection
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from jobs import failures
from jobs.errors import JobCancelled, Kind
from jobs.failures import mark_of
from jobs.models import Job, JobCheckpoint, JobItem

KEY_BYTES_MAX = 2000
Outcome = JobItem.Outcome

_ITEM = """
    INSERT INTO jobs_jobitem (job_id, key, outcome, kind, reason, failure, attempt, at)
    SELECT %s, %s, %s, %s, %s, %s, %s, %s FROM jobs_job WHERE id = %s AND status = 'RUNNING' AND attempt = %s
    ON CONFLICT (job_id, key) DO UPDATE SET outcome = excluded.outcome, kind = excluded.kind, reason = excluded.reason,
        failure = excluded.failure, attempt = excluded.attempt, at = excluded.at
    WHERE jobs_jobitem.outcome <> 'ok' OR excluded.outcome = 'ok'"""
_CHECKPOINT = """
    INSERT INTO jobs_jobcheckpoint (job_id, key, value, attempt, at)
    SELECT %s, %s, {json}, %s, %s FROM jobs_job WHERE id = %s AND status = 'RUNNING' AND attempt = %s
    ON CONFLICT (job_id, key) DO UPDATE SET value = excluded.value, attempt = excluded.attempt, at = excluded.at"""


def check_key(key: str) -> str:
    """A key that can be stored. Raises ValueError for one that is empty, too long, or no text at all."""
    if not isinstance(key, str) or not key or "\x00" in key:
        raise ValueError(f"An item is named by a text that is not empty, not {key!r}.")
    if len(key.encode()) > KEY_BYTES_MAX:  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
        raise ValueError(f"The name of an item has up to {KEY_BYTES_MAX:,} bytes; this one has more: {key[:80]!r}…")
    return key


def record(job_id: uuid.UUID, attempt: int, key: str, outcome: str, kind: str = "", reason: str = "") -> bool:
    """Write one outcome over the caller's connection; False when the attempt is over.

    An item that is done stays done.
    """
    return record_many(job_id, attempt, [(key, outcome, kind, reason)]) > 0


def record_many(job_id: uuid.UUID, attempt: int, rows: Sequence[tuple[str, str, str, str]]) -> int:
    """Write (key, outcome, kind, reason) rows; returns how many were taken."""
    pk = bound(Job._meta.pk, job_id)
    now = bound(JobItem._meta.get_field("at"), timezone.now())
    marks = [mark_of(kind, reason, key=key) if outcome == Outcome.FAILED else None for key, outcome, kind, reason in rows]
    failures.keep(filter(None, marks))
    values = [
        (pk, key, outcome, kind, reason[:500], mark.fingerprint if mark else "", attempt, now, pk, attempt)
        for (key, outcome, kind, reason), mark in zip(rows, marks, strict=True)
    ]
    with connection.cursor() as cursor:
        if len(values) == 1:
            cursor.execute(_ITEM, values[0])
        else:
            cursor.executemany(_ITEM, values)
        return max(0, cursor.rowcount)


def done(job_id: uuid.UUID, attempt: int, key: str) -> None:
    """Raises JobCancelled when the attempt is over, so that the surrounding transaction is rolled back."""
    if not record(job_id, attempt, key, Outcome.OK):
        raise JobCancelled


def keep_checkpoint(job_id: uuid.UUID, attempt: int, key: str, value: Any) -> None:
    """Raises JobCancelled when the attempt is over, TypeError for a value that is not JSON."""
    pk = bound(Job._meta.pk, job_id)
    now = bound(JobItem._meta.get_field("at"), timezone.now())
    text = orjson.dumps(value).decode()
    statement = _CHECKPOINT.format(json="%s::jsonb" if connection.vendor == "postgresql" else "%s")
    with connection.cursor() as cursor:
        cursor.execute(statement, (pk, key[:200], text, attempt, now, pk, attempt))
        if cursor.rowcount < 1:
            raise JobCancelled


def checkpoint_of(job_id: uuid.UUID, key: str, default: Any = None) -> Any:
    row = JobCheckpoint.objects.filter(job_id=job_id, key=key).values_list("value").first()
    return default if row is None else row[0]


def settled(job_id: uuid.UUID) -> dict[str, str]:
    """Items that an attempt need not look at again: done, skipped, or failed in a way that would only repeat itself."""
    rows = JobItem.objects.filter(job_id=job_id).exclude(outcome=Outcome.FAILED, kind__in=(Kind.TRANSIENT, Kind.UNKNOWN, Kind.LOST))
    return dict(rows.order_by().values_list("key", "outcome"))


def counts(job_id: uuid.UUID) -> dict[str, int]:
    """How many items are ok, failed and skipped."""
    return counts_of([job_id])[job_id]


def counts_of(job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[str, int]]:
    """The same of several jobs."""
    found = {job_id: dict.fromkeys(Outcome.values, 0) for job_id in job_ids}
    rows = JobItem.objects.filter(job_id__in=job_ids).order_by().values_list("job_id", "outcome").annotate(Count("pk"))
    for job_id, outcome, count in rows:
        found[job_id][outcome] = count
    return found


def find(job_id: uuid.UUID, outcome: str = "", text: str = "") -> QuerySet:
    """The items of a job with this outcome, and this text in their name or reason; in the order in which they were met."""
    rows = JobItem.objects.filter(job_id=job_id).order_by("id")
    if outcome:
        rows = rows.filter(outcome=outcome)
    return rows.filter(Q(key__icontains=text) | Q(reason__icontains=text)) if text else rows


def failed_keys(job_id: uuid.UUID) -> list[str]:
    return list(JobItem.objects.filter(job_id=job_id, outcome=Outcome.FAILED).order_by("id").values_list("key", flat=True))


def try_failed_again(job_id: uuid.UUID) -> None:
    """Forget the failures, so that the next attempt takes those items up again."""
    JobItem.objects.filter(job_id=job_id, outcome=Outcome.FAILED).delete()


def start_over(job_id: uuid.UUID) -> None:
    JobItem.objects.filter(job_id=job_id).delete()
    JobCheckpoint.objects.filter(job_id=job_id).delete()


def inherit(old: Job, new: Job) -> int:
    """Have `new` go on where `old` ended: what is done there is skipped here. Returns the number of such items."""
    rows = JobItem.objects.filter(job=old).exclude(outcome=Outcome.FAILED).order_by("id").values_list("key", flat=True)
    reason = "Done by the job that this one continues"
    copied = 0
    for keys in batches(rows.iterator(chunk_size=1000)):
        made = [JobItem(job=new, key=key, outcome=Outcome.SKIPPED, reason=reason) for key in keys]
        copied += len(JobItem.objects.bulk_create(made))
    for point in JobCheckpoint.objects.filter(job=old):
        JobCheckpoint.objects.create(job=new, key=point.key, value=point.value)
    return copied


def batches(values: Iterable[Any], size: int = 1000) -> Iterable[list[Any]]:
    batch: list[Any] = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def as_row(frame: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What a child sends about an item, as it is stored."""
    return frame["key"], frame["outcome"], frame["kind"], frame["reason"]


def bound(field: Any, value: Any) -> Any:
    return field.get_db_prep_save(value, connection)
