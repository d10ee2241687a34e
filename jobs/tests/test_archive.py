"""Cleanup, the archive and the way back. Races and crashes: faults/test_races.py."""

import gzip
import hashlib
import io
import uuid

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command

from jobs import archive, conf
from jobs.manager import JobManager
from jobs.models import Archive, ArchivedJob, Job, JobItem, JobLog
from jobs.recovery import ErrorRecoveryService
from jobs.states import Status
from jobs.tests.faults.test_races import age, finished
from jobs.tests.fixtures import create, reload


def run(name, *arguments, **options):
    out = io.StringIO()
    call_command(name, *arguments, stdout=out, **options)
    return out.getvalue()


def test_job_cleanup_and_archival(analyst, client):
    """Ended jobs go to a file that is verified, their stubs stay, and they come back whole."""
    job = finished(analyst, Status.FAILED, name="Long ago")
    items = [JobItem(job=job, key=f"item {n}", outcome="ok", attempt=1) for n in range(3)]
    JobItem.objects.bulk_create(items)
    lines = list(JobLog.objects.filter(job=job).order_by("seq").values())
    assert ErrorRecoveryService().cleanup_failed_jobs(older_than_days=7) == 1
    assert not Job.objects.exists()
    assert not JobLog.objects.exists()
    stub = ArchivedJob.objects.get()
    assert (stub.pk, stub.name, stub.status, stub.sentence) == (job.pk, "Long ago", Status.FAILED, "It broke")
    kept = Archive.objects.get()
    with default_storage.open(kept.name) as file:
        data = file.read()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (kept.sha256, kept.size)
    assert (
        gzip.decompress(data).count(b"\n") == 1 + 1 + 1 + len(lines) + 2 + 3 + 1 + 1
    )  # head, job, attempt, log, texts, items, notification, tail
    client.force_login(analyst)
    assert "It broke" in client.get(job.get_absolute_url()).content.decode()

    assert "1 job restored" in run("restore_jobs", str(job.pk))
    assert list(JobLog.objects.filter(job=job).order_by("seq").values()) == lines
    assert JobItem.objects.count() == 3
    assert (reload(job).keep, ArchivedJob.objects.count()) == (True, 0)
    assert archive.clean_up(archive.default_days()).jobs == 0


def test_each_end_has_its_days(analyst):
    """FAILED 7, COMPLETED and CANCELLED 30."""
    assert archive.default_days() == {Status.FAILED: 7, Status.COMPLETED: 30, Status.CANCELLED: 30}
    for status in (Status.FAILED, Status.COMPLETED):
        for days in (6, 8, 29, 31):
            age(finished(analyst, status, name=f"{status} {days}"), days=days)
    archive.clean_up(archive.default_days())
    assert sorted(ArchivedJob.objects.values_list("name", flat=True)) == ["COMPLETED 31", "FAILED 29", "FAILED 31", "FAILED 8"]


def test_many_jobs_are_many_files(analyst, monkeypatch):
    monkeypatch.setitem(conf.DEFAULTS, "archive_batch", 2)
    for _ in range(5):
        finished(analyst)
    cleaned = archive.clean_up(archive.default_days())
    assert (cleaned.jobs, len(cleaned.files), cleaned.by_status) == (5, 3, {Status.COMPLETED: 5})
    assert ArchivedJob.objects.values("archive").distinct().count() == 3


def test_a_dry_run_says_what_would_go_and_changes_nothing(analyst):
    finished(analyst)
    text = run("cleanup_jobs", dry_run=True)
    assert "Completed, ended more than 30 days ago: 1" in text
    assert "1 job would be moved. Nothing was changed." in text
    assert (Job.objects.count(), Archive.objects.count()) == (1, 0)


def test_the_command_by_status_and_days(analyst):
    failed, completed = finished(analyst, Status.FAILED), finished(analyst)
    age(failed, completed, days=2)
    assert "0 jobs moved" in run("cleanup_jobs")
    assert "1 job moved to 1 file" in run("cleanup_jobs", "--status", "failed", "--older-than-days", "1")
    assert list(Job.objects.all()) == [completed]
    with pytest.raises(CommandError, match="0 or more"):
        run("cleanup_jobs", "--older-than-days", "-1")
    with pytest.raises(CommandError, match="invalid choice"):
        run("cleanup_jobs", "--status", "running")


@pytest.fixture
def archived(analyst):
    job = finished(analyst)
    archive.clean_up(archive.default_days())
    return ArchivedJob.objects.get(pk=job.pk)


def replace_file(stub, change):
    name = stub.archive.name
    with default_storage.open(name) as file:
        data = change(file.read())
    default_storage.delete(name)
    default_storage.save(name, ContentFile(data))
    return data


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda data: data[: len(data) // 2], "another checksum"),
        (lambda data: data[:-40] + bytes(40), "another checksum"),
        (lambda data: b"", "another checksum"),
    ],
)
def test_a_damaged_file_restores_nothing(archived, change, says):
    replace_file(archived, change)
    with pytest.raises(CommandError, match=says) as raised:
        run("restore_jobs", str(archived.pk))
    assert "Nothing was changed" in str(raised.value)
    assert (Job.objects.count(), ArchivedJob.objects.count()) == (0, 1)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda data: data[: len(data) // 2], "cannot be read"),
        (lambda data: gzip.compress(b"hello\n"), "cannot be read"),
        (lambda data: gzip.compress(b'{"format": "another"}\n'), "not an archive of jobs"),
        (lambda data: gzip.compress(b"\n".join(gzip.decompress(data).split(b"\n")[:-2]) + b"\n"), "without its last line"),
        (
            lambda data: gzip.compress(b"\n".join(line for n, line in enumerate(gzip.decompress(data).split(b"\n")) if n != 2)),
            "rows, and says",
        ),
        (
            lambda data: gzip.compress(gzip.decompress(data).replace(b'"model": "jobs.job"', b'"model": "jobs.nothing"')),
            "has no 'job'",
        ),
    ],
)
def test_what_is_wrong_is_said_whoever_wrote_it(archived, change, says):
    """With a checksum that fits: a file from another version, or a broken one that was recorded so."""
    data = replace_file(archived, change)
    Archive.objects.update(sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(archive.DamagedArchive, match=says):
        archive.restore([archived.pk])
    assert (Job.objects.count(), ArchivedJob.objects.count()) == (0, 1)


def test_a_file_that_is_gone(archived):
    default_storage.delete(archived.archive.name)
    with pytest.raises(CommandError, match="cannot be opened"):
        run("restore_jobs", "--file", archived.archive.name)


@pytest.mark.parametrize(
    "arguments, says", [([], "Name the jobs"), ([str(uuid.UUID(int=1))], "Not in the archive"), (["--file", "nothing"], "No archived job")]
)
def test_restoring_what_is_not_there(archived, arguments, says):
    with pytest.raises(CommandError, match=says):
        run("restore_jobs", *arguments)
    assert ArchivedJob.objects.count() == 1


def test_a_whole_file_comes_back(analyst):
    jobs = [finished(analyst) for _ in range(3)]
    archive.clean_up(archive.default_days())
    assert "3 jobs restored" in run("restore_jobs", "--file", Archive.objects.get().name)
    assert set(Job.objects.all()) == set(jobs)


def test_days_that_make_no_sense(db):
    for days in ({Status.RUNNING: 1}, {Status.FAILED: -1}):
        with pytest.raises(ValueError, match="Cleanup is for ended jobs"):
            archive.clean_up(days)


def test_pausing_what_does_not_exist(db):
    with pytest.raises(CommandError, match="no queue 'wild'"):
        run("pause_jobs", queue="wild")
    with pytest.raises(CommandError, match="is not paused"):
        run("pause_jobs", queue="default", resume=True)
    assert "are held" in run("pause_jobs", type="sample_steps", reason="x")
    assert JobManager().hold([create().pk], "x") == 1
