"""F16, F18–F23: handlers that fail, flood, return odd things, or are no longer there."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from jobs import conf
from jobs.cluster import Ticker
from jobs.errors import Kind, TransientError
from jobs.manager import JobManager
from jobs.models import Artifact, Job, WorkerProcess
from jobs.recovery import ErrorRecoveryService, Rescuer
from jobs.resources import live_workers
from jobs.states import Level, Status
from jobs.tests.fixtures import create, ended, reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def run(job_type, wait_s=30, **options):
    job = create(job_type, **options)
    wait_for(lambda: ended(job), f"{job_type} to end", deadline_s=wait_s)
    return reload(job)


@pytest.mark.parametrize(
    "error, kind, attempts",
    [("transient", Kind.TRANSIENT, 3), ("permanent", Kind.PERMANENT, 1), ("unclassified", Kind.UNKNOWN, 3)],
)
def test_f16_each_kind_of_error(cluster, error, kind, attempts):
    """Classified, with the step in the message and the traceback kept, and retried by the rule."""
    row = run("sample_steps", parameters={"total": 3, "fail_at": 2, "error": error}, max_retries=2)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, kind, attempts)
    assert "Step 2 went wrong" in row.error_message
    assert "sample.py" in row.error_traceback
    assert row.logs.filter(level=Level.ERROR).last().message.startswith("Failed: ")
    assert all(a.error_message for a in row.attempts.all())


def test_f16_an_item_that_fails_is_named(cluster):
    row = run("sample_items", parameters={"total": 3, "fails": {"item 2": "permanent"}})
    assert (row.status, row.problem_count) == (Status.COMPLETED, 1)
    item = row.items.get(outcome="failed")
    assert (item.key, item.kind, item.reason) == ("item 2", Kind.PERMANENT, "item 2 is broken")


def test_f16_all_items_failed_is_a_failure(cluster):
    row = run("sample_items", parameters={"total": 2, "fails": {"item 1": "permanent", "item 2": "permanent"}})
    assert (row.status, row.error_kind) == (Status.FAILED, Kind.PERMANENT)
    assert row.error_message.startswith("All 2 items failed; most often: item ")


def test_f16_the_delays_of_the_product(running_job):
    """60, 300, 900, 3600 s, each with jitter; the fifth failure is the end."""
    service = ErrorRecoveryService()
    job = running_job
    for delay in (60, 300, 900, 3600):
        assert service.handle_job_failure(job, TransientError("away"))
        job = reload(job)
        wait = (job.run_after - timezone.now()).total_seconds()
        assert 0.9 * delay - 2 <= wait <= 1.1 * delay
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        job = JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    service.handle_job_failure(job, TransientError("away"))
    assert status_of(job) == Status.FAILED


def test_f18_a_flood_of_lines(start_cluster, analyst, client):
    """A million lines, one of 10 MB, and binary: kept up to the limit, then counted; the page opens and is harmless."""
    start_cluster(log_lines_max=2000)
    row = run("sample_flood", wait_s=120, parameters={"lines": 1_000_000}, created_by=analyst)
    assert row.status == Status.COMPLETED, row.error_message
    assert row.log_dropped == 1_000_002 - 2000
    assert row.logs.count() == row.log_seq <= 2000 + 5
    assert max(len(m) for m in row.logs.values_list("message", flat=True)) <= conf.get("log_line_chars_max") + 50
    odd = row.logs.get(message__contains="alert(1)").message
    assert not set(odd) & {"\x1b", "\x00", "\x07", "\udcff"}
    client.force_login(analyst)
    text = client.get(row.get_absolute_url()).content.decode()
    assert "<script>alert(1)" not in text
    assert f"{row.log_dropped:,}" in text


ODD_ENDS = {
    "datetime": (Status.COMPLETED, "2024-05-01T12:00:00+00:00"),
    "nan": (Status.COMPLETED, None),
    "set": (Status.FAILED, "cannot be stored as JSON"),
    "bytes": (Status.FAILED, "cannot be stored as JSON"),
    "surrogate": (Status.FAILED, "cannot be stored as JSON"),
    "huge integer": (Status.FAILED, "cannot be stored as JSON"),
    "ring": (Status.FAILED, "cannot be stored as JSON"),
    "list": (Status.FAILED, "A result is an object"),
    "recursion": (Status.FAILED, "RecursionError"),
    "error without text": (Status.FAILED, "KeyError"),
    "odd error text": (Status.FAILED, "<b>"),
    "system exit": (Status.FAILED, "SystemExit: 3"),
    "memory error": (Status.FAILED, "MemoryError"),
}


def test_f20_odd_ends(cluster):
    """A clear error or a defined conversion; no job vanishes."""
    jobs = {which: create("sample_odd_end", parameters={"which": which}, max_retries=0) for which in ODD_ENDS}
    wait_for(lambda: ended(*jobs.values()), "all ends")
    for which, job in jobs.items():
        row, (status, says) = reload(job), ODD_ENDS[which]
        assert row.status == status, f"{which}: {row.error_message}"
        if status == Status.COMPLETED:
            assert row.result_data["value"] == says, which
        else:
            assert says in row.error_message, which
            assert "\x00" not in row.error_message + row.error_traceback


def test_f19_a_result_of_50_mb(cluster, analyst, client):
    """It becomes a file beside the job; the row says so."""
    row = run("sample_odd_end", parameters={"which": "50 MB"}, created_by=analyst)
    assert row.status == Status.COMPLETED, row.error_message
    artifact = row.artifacts.get()
    assert (artifact.name, row.result_data["artifact"], row.result_data["summary"]) == ("result.json", str(artifact.pk), "Fifty megabytes")
    assert artifact.size > 50_000_000
    client.force_login(analyst)
    page = client.get(row.get_absolute_url())
    assert len(page.content) < 200_000
    assert artifact.get_absolute_url() in page.content.decode()


@pytest.mark.parametrize("which", ["5 MB traceback", "recursion"])
def test_f19_a_huge_traceback_is_cut_with_a_note(cluster, which):
    row = run("sample_odd_end", parameters={"which": which}, max_retries=0)
    assert row.status == Status.FAILED
    assert 0 < len(row.error_traceback) <= conf.get("traceback_chars_max") + 100
    assert len(row.error_message) <= 5000
    if which == "5 MB traceback":
        assert "characters left out" in row.error_traceback


def files_below(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def test_a_child_that_cannot_be_watched_is_ended(start_cluster):
    """A fault in the watch itself: the job fails with the reason instead of going on unseen, and the worker goes on."""
    start_cluster(max_concurrent_jobs=1)
    row = run("sample_garbage", max_retries=0)
    assert (row.status, row.error_kind) == (Status.FAILED, Kind.UNKNOWN)
    assert "JSONDecodeError" in row.error_message
    assert run("sample_steps", parameters={"total": 2}).status == Status.COMPLETED


def test_f21_the_disk_is_full(cluster):
    """The reason is said, it may be retried, and no half file is left or offered."""
    row = run("sample_keeps_file", parameters={"file_limit": 1_000_000}, max_retries=1)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, Kind.TRANSIENT, 2)
    assert "File too large" in row.error_message
    assert not Artifact.objects.exists()
    assert files_below(default_storage.path(str(row.pk))) == []


def test_f21_the_artifact_folder_cannot_be_written(cluster):
    folder = Path(settings.MEDIA_ROOT)
    moved = folder.with_name("moved")
    if folder.exists():
        folder.rename(moved)
    folder.write_text("not a folder")
    try:
        row = run("sample_keeps_file", max_retries=0)
        assert (row.status, row.error_kind) == (Status.FAILED, Kind.TRANSIENT)
        assert "Error" in row.error_message
        assert not Artifact.objects.exists()
    finally:
        folder.unlink()
        if moved.exists():
            moved.rename(folder)
    JobManager().retry_job(row.pk)
    wait_for(lambda: ended(row), "the retry once there is a folder")
    assert status_of(row) == Status.COMPLETED
    assert Artifact.objects.get().size == 5_000_000
    shutil.rmtree(default_storage.path(str(row.pk)))


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
def test_f22_the_clock_jumps(running_job, client, analyst, jump):
    """No mass rescue, no retry years away, no negative duration."""
    ticker, rescuer = Ticker("default"), Rescuer()
    retrying = create()
    JobManager().start([retrying.pk], worker_id="atlas-2", host="atlas")
    rescuer.sweep()
    with time_machine.travel(timezone.now() + jump, tick=True):
        assert rescuer.sweep() == []
        ErrorRecoveryService().handle_job_failure(Job.objects.get(pk=retrying.pk), TransientError("away"))
        client.force_login(analyst)
        text = client.get(running_job.get_absolute_url()).content.decode()
        assert "-" not in client.get(f"/api/jobs/{running_job.pk}").json()["sentence"].replace(" - ", "")
        assert "−" not in text
    waiting = create()
    Job.objects.filter(pk=waiting.pk).update(run_after=timezone.now() + abs(jump), created_at=timezone.now() + abs(jump))
    Job.objects.filter(pk=waiting.pk).update(run_after=F("created_at"))
    later = create(run_after=timezone.now() + timedelta(hours=2))  # as somebody asked for
    seen = WorkerProcess.objects.create(
        name="a-1", queue_name="default", host="a", pid=1, cluster=waiting.pk, seen_at=timezone.now() + jump
    )
    ticker.see_workers([])
    assert WorkerProcess.objects.filter(pk=seen.pk).exists()
    assert not live_workers().exists()
    Job.objects.filter(pk=retrying.pk).update(run_after=timezone.now() + timedelta(days=900))
    ticker.clamp()
    longest = max(conf.get("retry_after_max_s"), *conf.get("retry_delays_s")) * 1.1
    assert (reload(retrying).run_after - timezone.now()).total_seconds() <= longest + 5
    assert reload(waiting).run_after <= timezone.now()
    assert reload(later).run_after > timezone.now() + timedelta(hours=1)
    assert status_of(running_job) == Status.RUNNING


def test_f23_a_job_type_that_is_gone(cluster):
    """FAILED with the reason, and to be retried once the type is back."""
    with transaction.atomic():
        job = create(parameters={"total": 1}, max_retries=3)
        Job.objects.filter(pk=job.pk).update(job_type="renamed_away")
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.error_kind) == (Status.FAILED, Kind.PERMANENT)
    assert "Unknown job type 'renamed_away'" in row.error_message
    Job.objects.filter(pk=job.pk).update(job_type="sample_steps")
    JobManager().retry_job(job.pk)
    wait_for(lambda: ended(job), "the retry")
    assert status_of(job) == Status.COMPLETED
