"""Real workers, real children, real signals, on the test database."""

from datetime import timedelta

import psutil
import pytest
from django.db import transaction
from django.utils import timezone

from jobs import broker
from jobs.errors import Kind
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt, JobLog, Notification, WorkerProcess
from jobs.resources import unserved_queues
from jobs.states import Level, Status
from jobs.tests.fixtures import child_of, create, ended, is_gone, reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def test_real_job_monitoring_workflow(cluster, analyst, gate):
    """From creation to result, with each stage seen in the row while it happens."""
    job = create(parameters={"total": 3, "gate": str(gate)}, created_by=analyst)
    wait_for(lambda: reload(job).current_step == "Step 1", "the first step")
    row = reload(job)
    assert (row.status, row.attempt, row.completed_steps, row.total_steps) == (Status.RUNNING, 1, 0, 3)
    assert row.worker_id in WorkerProcess.objects.values_list("name", flat=True)

    gate.open_to(2)
    wait_for(lambda: reload(job).completed_steps == 2, "two steps")
    row = reload(job)
    assert row.progress_percent == pytest.approx(66.67, abs=0.1)
    wait_for(lambda: reload(job).log_seq == 4, "their lines, which are written after the number")
    wait_for(lambda: reload(job).memory_usage_mb is not None, "a measurement")

    gate.open_to(3)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.result_data["steps"], row.progress_percent) == (Status.COMPLETED, 3, 100.0)
    assert list(row.logs.values_list("seq", flat=True)) == list(range(1, row.log_seq + 1))
    messages = [line.message for line in row.logs.all()]
    assert messages[2:] == ["Line of step 1", "Line of step 2", "Line of step 3", "Completed. 3 steps"]
    attempt = row.attempts.get()
    assert attempt.outcome == JobAttempt.Outcome.COMPLETED
    assert attempt.cpu_seconds > 0
    assert Notification.objects.get(user=analyst).text.endswith("3 steps")


def test_concurrent_job_handling(cluster, analyst):
    """Many short jobs on two workers: each is run once, to its end."""
    jobs = [create(parameters={"total": 2}, created_by=analyst) for _ in range(24)]
    wait_for(lambda: ended(*jobs), "all of them")
    rows = Job.objects.filter(pk__in=[job.pk for job in jobs])
    assert {(row.status, row.attempt, row.completed_steps) for row in rows} == {(Status.COMPLETED, 1, 2)}
    assert len(set(rows.values_list("worker_id", flat=True))) == 2
    for worker in set(rows.values_list("worker_id", flat=True)):
        runs = JobAttempt.objects.filter(worker_id=worker).order_by("started_at").values_list("started_at", "ended_at")
        assert all(end <= start for (_, end), (start, _) in zip(runs, runs[1:], strict=False)), "a worker runs one at a time"


def test_job_failure_recovery(cluster, gate):
    """A passing error is retried by itself until the budget is spent; what happened stays in the history."""
    job = create(parameters={"total": 2, "fail_at": 2, "error": "transient"}, max_retries=2)
    wait_for(lambda: ended(job), "the last try")
    row = reload(job)
    assert (row.status, row.retry_count, row.attempt, row.error_kind) == (Status.FAILED, 3, 3, Kind.TRANSIENT)
    assert row.error_message == "ConnectionError: Step 2 went wrong"
    assert "raise {" in row.error_traceback
    assert [a.outcome for a in row.attempts.all()] == ["failed"] * 3
    assert row.logs.filter(level=Level.ERROR).last().message.startswith("Failed: ConnectionError")


def test_a_permanent_error_is_not_tried_again(cluster):
    job = create(parameters={"total": 1, "fail_at": 1, "error": "permanent"})
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.attempt, row.error_message) == (Status.FAILED, 1, "Step 1 went wrong")


def test_a_retry_by_hand_runs_again(cluster):
    job = create(parameters={"total": 1, "fail_at": 1, "error": "permanent"})
    wait_for(lambda: ended(job), "the first end")
    JobManager().retry_job(job.pk)
    wait_for(lambda: reload(job).attempt == 2 and ended(job), "the second end")


def test_a_running_job_is_cancelled(cluster, gate):
    job = create(parameters={"gate": str(gate)})
    pid = child_of(job)
    assert JobManager().cancel_job(job.pk, "wrong site") is True
    wait_for(lambda: ended(job), "the end")
    assert (reload(job).status, reload(job).cancel_reason) == (Status.CANCELLED, "wrong site")
    assert is_gone(pid)


def test_resource_limit_enforcement(cluster):
    """A job that takes more memory than it may is ended, with the limit, the peak and what helps."""
    job = create("sample_eater")
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, Kind.LIMIT, 1)
    assert "64 MB" in row.error_message
    assert "limit" in row.error_advice
    assert row.attempts.get().memory_peak_mb > 64


def test_odd_text_is_stored_harmless(cluster):
    """NUL, control characters and lone surrogates in step, line, data and result end no job."""
    job = create("sample_odd_text", max_retries=0)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.result_data) == (Status.COMPLETED, {"text": "ab \\u0000"}), row.error_message
    line = row.logs.get(message__startswith="line")
    assert line.data["data_with_nul"] == "ab"
    assert "\x00" not in row.current_step + line.message


def test_a_killed_zygote_costs_only_its_job(cluster, gate):
    """The worker makes a new one, and its later children have connections of their own."""
    job = create(parameters={"gate": str(gate)}, max_retries=0)
    zygote = psutil.Process(child_of(job)).parent()
    zygote.kill()
    wait_for(lambda: ended(job), "the end")
    assert reload(job).error_kind == Kind.LOST
    gate.open_to(99)
    later = [create(parameters={"total": 2}) for _ in range(6)]
    wait_for(lambda: ended(*later), "the later jobs")
    assert {status_of(job) for job in later} == {Status.COMPLETED}


def test_a_handler_that_says_nothing_is_watched_all_the_same(cluster, gate):
    gate.path.write_text("")
    job = create("sample_plain", parameters={"gate": str(gate)})
    wait_for(lambda: reload(job).memory_usage_mb is not None, "a measurement")
    row = reload(job)
    assert row.started_at <= timezone.now()
    assert row.cpu_usage_percent is not None
    assert (row.total_steps, row.progress_percent) == (None, 0.0)
    gate.open_to(1)
    wait_for(lambda: ended(job), "the end")
    assert len(reload(job).attempts.get().samples) >= 1


def test_a_queue_that_nobody_serves_is_named(cluster):
    assert unserved_queues({"default", "heavy"}) == {"heavy"}


def test_each_queue_has_its_own_cluster(start_cluster):
    start_cluster(queue="heavy", max_concurrent_jobs=1)
    job, other = create("sample_heavy"), create()
    wait_for(lambda: ended(job), "the heavy job")
    assert status_of(other) == Status.PENDING


def test_a_job_that_was_rolled_back_never_runs(cluster):
    with pytest.raises(RuntimeError), transaction.atomic():
        create()
        raise RuntimeError
    job = create()
    wait_for(lambda: ended(job), "the next job")
    assert Job.objects.count() == 1
    assert JobLog.objects.values("job").distinct().count() == 1


def test_a_job_is_paused_over_a_restart_and_goes_on_where_it_stopped(start_cluster, gate, analyst):
    """It stops at its next checkpoint, nobody starts it, and when it is resumed nothing is done twice."""
    gate.open_to(3)
    cluster = start_cluster()
    job = create("sample_items", parameters={"total": 6, "gate": str(gate)}, created_by=analyst)
    wait_for(lambda: job.items.count() == 3, "three items")
    assert JobManager().pause_job(job.pk, by=analyst)
    wait_for(lambda: status_of(job) == Status.PENDING, "the pause")
    assert reload(job).hold_reason == "Paused by ortega"
    assert cluster.stop() == 0
    gate.open_to(99)
    start_cluster()
    other = create(parameters={"total": 1})
    wait_for(lambda: ended(other), "a job that is not paused")
    assert (status_of(job), reload(job).attempt) == (Status.PENDING, 1)
    JobManager().resume_job(job.pk, by=analyst)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.retry_count, row.result_data["here"]) == (Status.COMPLETED, 0, ["item 4", "item 5", "item 6"])
    assert [attempt.outcome for attempt in row.attempts.order_by("number")] == ["paused", "completed"]


def test_what_failed_is_retried_by_a_new_job(cluster, analyst):
    job = create("sample_items", parameters={"total": 4, "fails": {"item 2": "transient", "item 3": "permanent"}}, created_by=analyst)
    wait_for(lambda: ended(job), "the end")
    assert (status_of(job), reload(job).problem_count) == (Status.COMPLETED, 2)
    Job.objects.filter(pk=job.pk).update(parameters=reload(job).parameters | {"fails": None})
    new = JobManager().retry_items(job.pk, by=analyst)
    wait_for(lambda: ended(new), "the new job")
    assert reload(new).result_data["here"] == ["item 2", "item 3"]
    assert reload(new).continues_id == job.pk


def test_a_cancelled_job_is_continued_by_a_new_one(cluster, gate, analyst):
    gate.open_to(2)
    job = create("sample_items", parameters={"total": 5, "gate": str(gate)}, created_by=analyst)
    wait_for(lambda: job.items.count() == 2, "two items")
    JobManager().cancel_job(job.pk)
    wait_for(lambda: ended(job), "the end")
    gate.open_to(99)
    new = JobManager().continue_job(job.pk, by=analyst)
    wait_for(lambda: ended(new), "the new job")
    row = reload(new)
    assert (row.status, row.completed_steps, row.result_data) == (
        Status.COMPLETED, 5, {"here": ["item 3", "item 4", "item 5"], "settled": 2, "at": 5},
    )  # fmt: skip


def test_a_worker_that_does_upkeep_is_not_taken_for_idle(start_cluster, gate):
    """The one worker has a scheduled task: a due job waits for it, and the watchdog leaves both alone."""
    cluster = start_cluster(max_concurrent_jobs=1, unclaimed_s=1.5)
    sentinel = psutil.Process(cluster.process.pid).children()[0]
    broker.async_task("jobs.tests.sample.upkeep.slow", str(gate), broker=broker.broker_for("default"), cluster="default")
    began = wait_for(lambda: WorkerProcess.objects.exclude(upkeep="").first(), "the task to be seen").seen_at
    job = create(parameters={"total": 1})
    wait_for(lambda: WorkerProcess.objects.get().seen_at > began + timedelta(seconds=3), "many looks of the watchdog")
    assert (status_of(job), sentinel.is_running()) == (Status.PENDING, True)
    gate.open_to(1)
    wait_for(lambda: ended(job), "the job")
    assert WorkerProcess.objects.get().upkeep == ""
    assert psutil.Process(cluster.process.pid).children() == [sentinel]
