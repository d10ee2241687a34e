"""Cleanup: ended jobs go from the database to files, and can come back.

A file is gzip-compressed JSON lines as Django's serializers write them, between a first line that says what
it is and a last one that counts the rows. It is written, read back and compared before any row is deleted,
and the rows go in one transaction with the stubs that stand for them. A crash in between leaves a file that
nothing refers to, which a later run removes: nothing is lost, nothing is doubled.

Evidence stays: documents and artifacts belong to the subject. Only scratch files go with the job.
"""

import gzip
import hashlib
import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import IO, Any

from django.core import serializers
from django.core.files import File
from django.core.files.storage import default_storage
from django.core.serializers.base import DeserializationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from jobs import conf, items
from jobs.manager import cancelled_line, summary_of
from jobs.models import Archive, ArchivedJob, Job, JobAttempt, JobCheckpoint, JobDependency, JobItem, JobLog, JobText, Notification
from jobs.processes import scratch_of
from jobs.states import ENDED, Status

log = logging.getLogger(__name__)

FOLDER = "archive"
FORMAT = {"format": "fieldwork jobs", "version": 1}
JOBS_A_QUERY = 50
LOG_ROWS_MAX = 50_000  # of the jobs of one file, unless a single job has more
ORPHAN_AGE = timedelta(hours=24)
OF_A_JOB = (JobAttempt, JobDependency, JobLog, JobText, JobItem, JobCheckpoint, Notification)


class DamagedArchive(Exception):
    """The file is not what was written: the message says how. Nothing was changed."""


@dataclass
class Cleaned:
    """What a cleanup did, or with `dry_run` would do."""

    jobs: int = 0
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    by_status: dict[str, int] = field(default_factory=dict)


def default_days() -> dict[Status, int]:
    """For each end, after how many days a job goes to the archive."""
    return {
        Status.FAILED: conf.get("keep_failed_days"),
        Status.COMPLETED: conf.get("keep_completed_days"),
        Status.CANCELLED: conf.get("keep_cancelled_days"),
    }


# -- into the archive -------------------------------------------------------------------------------


def over(days: Mapping[Status, int], now: datetime) -> Q:
    """The jobs that may go: ended in one of these ways for so many days, and not kept."""
    wanted = Q(pk__in=[])
    for status, count in days.items():
        if status not in ENDED or count < 0:
            raise ValueError(f"Cleanup is for ended jobs and days from 0, not {status} and {count}.")
        wanted |= Q(status=status, completed_at__lt=now - timedelta(days=count))
    return wanted & Q(keep=False)


def clean_up(days: Mapping[Status, int], *, dry_run: bool = False, now: datetime | None = None) -> Cleaned:
    """Archive what is over, file by file, with memory for some thousand rows at a time. `days` maps ends to days."""
    wanted = over(days, now or timezone.now())
    cleaned = Cleaned()
    if dry_run:
        for status in days:
            cleaned.by_status[status] = Job.objects.filter(wanted, status=status).count()
        cleaned.jobs = sum(cleaned.by_status.values())
        return cleaned
    passed: set[uuid.UUID] = set()  # changed while they were written: left alone
    while batch := next_batch(wanted, passed):
        archive_batch(batch, wanted, cleaned)
        passed |= set(Job.objects.filter(pk__in=batch).values_list("pk", flat=True))
    return cleaned


def next_batch(wanted: Q, passed: set[uuid.UUID]) -> list[uuid.UUID]:
    """The jobs of the next file: those that ended first, as many as fit."""
    batch: list[uuid.UUID] = []
    lines = 0
    size = conf.get("archive_batch")
    for pk, log_seq in Job.objects.filter(wanted).order_by("completed_at", "pk").values_list("pk", "log_seq")[: size + len(passed)]:
        if pk in passed:
            continue
        lines += log_seq
        if batch and (lines > LOG_ROWS_MAX or len(batch) == size):
            break
        batch.append(pk)
    return batch


def archive_batch(batch: Sequence[uuid.UUID], wanted: Q, cleaned: Cleaned) -> None:
    revisions = dict(Job.objects.filter(pk__in=batch).values_list("pk", "revision"))
    with tempfile.NamedTemporaryFile(suffix=".jsonl.gz") as local:
        rows = write(local, batch)
        name = default_storage.save(f"{FOLDER}/{timezone.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.jsonl.gz", File(local))
        digest = sha256_of(local)
    try:
        verify(name, digest, rows)
        gone = replace_by_stubs(batch, revisions, wanted, name, digest)
    except BaseException:
        default_storage.delete(name)
        raise
    if not gone:
        default_storage.delete(name)
        return
    for job_id, status in gone.items():
        shutil.rmtree(scratch_of(job_id), ignore_errors=True)
        cleaned.by_status[status] = cleaned.by_status.get(status, 0) + 1
    cleaned.jobs += len(gone)
    cleaned.files.append(name)
    cleaned.bytes += default_storage.size(name)


def write(stream: IO[bytes], batch: Sequence[uuid.UUID]) -> int:
    """All rows of these jobs; returns how many."""
    rows = 0
    with gzip.open(stream, "wt", encoding="utf-8", newline="\n") as text:
        text.write(json.dumps(FORMAT) + "\n")
        for ids in items.batches(batch, JOBS_A_QUERY):
            for queryset in rows_of(ids):
                counted = Counting(queryset.iterator(chunk_size=2000))
                serializers.serialize("jsonl", counted, stream=text, cls=Exact)
                rows += counted.count
        text.write(json.dumps({"rows": rows}) + "\n")
    stream.flush()
    return rows


def rows_of(ids: Sequence[uuid.UUID]) -> list[Any]:
    """The jobs themselves first, for the other rows refer to them."""
    return [Job.objects.filter(pk__in=ids), *(model._default_manager.filter(job_id__in=ids).order_by("pk") for model in OF_A_JOB)]


class Exact(DjangoJSONEncoder):
    """Times with their microseconds, which Django's encoder cuts off."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else super().default(o)


class Counting:
    def __init__(self, values: Iterable[Any]) -> None:
        self.values, self.count = values, 0

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            self.count += 1
            yield value


def replace_by_stubs(
    batch: Sequence[uuid.UUID], revisions: Mapping[uuid.UUID, int], wanted: Q, name: str, digest: str
) -> dict[uuid.UUID, str]:
    """Delete the rows of the jobs that are still as they were written; returns those, with their status."""
    with transaction.atomic():
        found = Job.objects.select_for_update().filter(wanted, pk__in=batch)
        jobs = [job for job in found if revisions.get(job.pk) == job.revision]
        if not jobs:
            return {}
        archive = Archive.objects.create(name=name, sha256=digest, size=default_storage.size(name))
        ArchivedJob.objects.bulk_create(stub_of(job, archive) for job in jobs)
        ids = [job.pk for job in jobs]
        for model in OF_A_JOB:
            rows: Any = model._default_manager.filter(job_id__in=ids)
            rows._raw_delete(rows.db)
        rows = Job.objects.filter(pk__in=ids)
        rows._raw_delete(rows.db)
    return {job.pk: job.status for job in jobs}


def stub_of(job: Job, archive: Archive) -> ArchivedJob:
    assert job.completed_at is not None  # the database holds it for every ended job
    if job.status == Status.COMPLETED:
        text = summary_of(job.job_type, job.result_data) or "Done"
    elif job.status == Status.FAILED:
        text = job.error_message.partition("\n")[0]
    else:
        text = cancelled_line(job.cancelled_by, job.cancel_reason)
    return ArchivedJob(
        id=job.pk, archive=archive, job_type=job.job_type, name=job.name, subject_id=job.subject_id, created_by_id=job.created_by_id,
        status=job.status, sentence=text[:500], created_at=job.created_at, completed_at=job.completed_at,
    )  # fmt: skip


# -- reading ----------------------------------------------------------------------------------------


def sha256_of(stream: IO[bytes]) -> str:
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def verify(name: str, digest: str, rows: int | None = None) -> None:
    """Raises DamagedArchive unless the stored file has this checksum and can be read to its last line."""
    with open_stored(name) as stream:
        if sha256_of(stream) != digest:
            raise DamagedArchive(f"{name} has another checksum than when it was written. Restore it from a backup.")
        stream.seek(0)
        found = sum(1 for _ in lines_of(stream, name))
    if rows is not None and found != rows:
        raise DamagedArchive(f"{name} has {found:,} rows of {rows:,}.")


def open_stored(name: str) -> IO[bytes]:
    try:
        return default_storage.open(name, "rb")
    except OSError as error:
        raise DamagedArchive(f"{name} cannot be opened: {error}") from None


def lines_of(stream: IO[bytes], name: str) -> Iterator[str]:
    """The rows of a file, as they were serialised. Raises DamagedArchive for what is cut off or no archive at all."""
    count = 0
    try:
        with gzip.open(stream, "rt", encoding="utf-8") as text:
            if json.loads(text.readline() or "null") != FORMAT:
                raise DamagedArchive(f"{name} is not an archive of jobs, or of a later version.")
            for line in text:
                if line.startswith('{"rows"'):
                    if json.loads(line)["rows"] != count:
                        raise DamagedArchive(f"{name} has {count:,} rows, and says {json.loads(line)['rows']:,}.")
                    return
                count += 1
                yield line
    except (OSError, EOFError, ValueError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DamagedArchive(f"{name} cannot be read: {error}") from None
    raise DamagedArchive(f"{name} ends after {count:,} rows, without its last line.")


# -- back from the archive --------------------------------------------------------------------------


def restore(job_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Put archived jobs back, marked to be kept. Raises ArchivedJob.DoesNotExist and DamagedArchive; nothing changes then."""
    stubs = {stub.pk: stub for stub in ArchivedJob.objects.filter(pk__in=job_ids).select_related("archive")}
    missing = [str(job_id) for job_id in job_ids if job_id not in stubs]
    if missing:
        raise ArchivedJob.DoesNotExist(f"Not in the archive: {', '.join(missing)}")
    with transaction.atomic():
        for archive in {stub.archive for stub in stubs.values()}:
            restore_from(archive, {pk for pk, stub in stubs.items() if stub.archive_id == archive.pk})
    return list(stubs)


def restore_from(archive: Archive, wanted: set[uuid.UUID]) -> None:
    verify(archive.name, archive.sha256)
    texts = {str(pk) for pk in wanted}
    with open_stored(archive.name) as stream:
        for line in lines_of(stream, archive.name):
            if job_of(line, archive.name) in texts:
                put_back(line, archive.name)
    found = Job.objects.filter(pk__in=wanted).update(keep=True)
    if found != len(wanted):
        raise DamagedArchive(f"{archive.name} lacks {len(wanted) - found:,} of the jobs that it should have.")
    ArchivedJob.objects.filter(pk__in=wanted).delete()


def job_of(line: str, name: str) -> str:
    """The id of the job that a row belongs to."""
    row = json.loads(line)
    try:
        return str(row["pk"] if row["model"] == "jobs.job" else row["fields"]["job"])
    except KeyError as missing:
        raise DamagedArchive(f"A row of {name} has no {missing}.") from None


def put_back(line: str, name: str) -> None:
    try:
        for restored in serializers.deserialize("jsonl", [line], ignorenonexistent=True):
            restored.save()
    except DeserializationError as error:
        raise DamagedArchive(f"A row of {name} cannot be read: {error}") from None


def remove_orphans() -> int:
    """Files that a crash left behind before anything referred to them; returns how many were removed."""
    if not default_storage.exists(FOLDER):
        return 0
    known = set(Archive.objects.values_list("name", flat=True))
    removed = 0
    for file in default_storage.listdir(FOLDER)[1]:
        name = f"{FOLDER}/{file}"
        if name not in known and timezone.now() - default_storage.get_modified_time(name) > ORPHAN_AGE:
            default_storage.delete(name)
            removed += 1
    return removed
