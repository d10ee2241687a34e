"""Real workers, real children, real signals, on the test database."""

import os
import signal

import psutil
import pytest
from django.db import transaction
from django.utils import timezone

from jobs import broker
from jobs.errors import Kind
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt, JobLog, Notification, WorkerProcess
from jobs.resources import unserved_queues
from jobs.states import ENDED, Level, Status
from jobs.tests.fixtures import reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def create(job_type: str = "sample_steps", **options) -> Job:
    return JobManager().create_job(job_type, **options)


def ended(*jobs: Job) -> bool:
    return all(status_of(job) in ENDED for job in jobs)


def child_of(job: Job) -> int:
    """The pid of a running job's child, once its worker has recorded it."""
    return wait_for(
        lambda: JobAttempt.objects.filter(job=job, outcome="running").values_list("process__pid", flat=True).first(),
        "the child to be recorded",
    )


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
    assert row.log_seq >= 4
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


def test_a_child_that_ignores_cancel_and_sigterm_is_killed(cluster):
    job = create("sample_stubborn")
    pid = child_of(job)
    JobManager().cancel_job(job.pk, "enough")
    wait_for(lambda: ended(job), "the end")
    assert status_of(job) == Status.CANCELLED
    assert is_gone(pid)


def test_a_child_that_dies_without_a_word_is_recorded(cluster):
    """With signal, last step and last line, and retried by the rule."""
    job = create("sample_dies", max_retries=1)
    wait_for(lambda: ended(job), "the last try")
    row = reload(job)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, Kind.LOST, 2)
    assert "SIGSEGV" in row.error_message
    assert "“Last step”" in row.error_message
    assert row.logs.filter(message="Last line").count() == 2


def test_a_child_killed_from_outside_is_noticed(cluster, gate):
    job = create(parameters={"gate": str(gate)}, max_retries=0)
    os.kill(child_of(job), signal.SIGKILL)
    wait_for(lambda: ended(job), "the end")
    assert "SIGKILL" in reload(job).error_message


def test_resource_limit_enforcement(cluster):
    """A job that takes more memory than it may is ended, with the limit, the peak and what helps."""
    job = create("sample_eater")
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, Kind.LIMIT, 1)
    assert "64 MB" in row.error_message
    assert "limit" in row.error_advice
    assert row.attempts.get().memory_peak_mb > 64


def test_a_job_that_runs_too_long_is_ended(cluster, gate):
    job = create(parameters={"gate": str(gate)}, time_limit_s=1)
    wait_for(lambda: ended(job), "the end")
    assert (status_of(job), reload(job).error_kind) == (Status.FAILED, Kind.LIMIT)


def test_a_result_that_is_not_json_fails_the_job_in_words(cluster):
    job = create("sample_odd_result", max_retries=0)
    wait_for(lambda: ended(job), "the end")
    assert "cannot be stored as JSON" in reload(job).error_message


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


def test_a_killed_worker_loses_no_job(cluster, gate):
    job = create(parameters={"total": 2, "gate": str(gate)})
    child = child_of(job)
    os.kill(WorkerProcess.objects.get(name=reload(job).worker_id).pid, signal.SIGKILL)
    wait_for(lambda: is_gone(child), "the child to die with its worker")
    wait_for(lambda: reload(job).attempt == 2, "the rescue and the second attempt")
    gate.open_to(2)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.retry_count) == (Status.COMPLETED, 0)  # the job is not to blame
    assert [a.outcome for a in row.attempts.all()] == ["lost", "completed"]


def test_a_killed_cluster_loses_no_job(start_cluster, gate):
    cluster = start_cluster()
    running = [create(parameters={"gate": str(gate)}) for _ in range(2)]
    children = [child_of(job) for job in running]
    waiting = [create() for _ in range(8)]
    cluster.kill()
    wait_for(lambda: all(is_gone(pid) for pid in children), "the children to die with the cluster")
    start_cluster()
    gate.open_to(99)
    wait_for(lambda: ended(*running, *waiting), "all ten", deadline_s=60)
    assert set(Job.objects.values_list("status", flat=True)) == {Status.COMPLETED}
    for job in running:
        first, second = reload(job).attempts.all()
        assert first.ended_at <= second.started_at


def test_a_drain_puts_running_jobs_back_and_exits_with_0(cluster, gate):
    job = create(parameters={"gate": str(gate)})
    child = child_of(job)
    assert cluster.stop() == 0
    assert is_gone(child)
    row = reload(job)
    assert (row.status, row.retry_count, row.worker_id) == (Status.PENDING, 0, "")
    assert row.attempts.get().outcome == JobAttempt.Outcome.PUT_BACK
    assert not WorkerProcess.objects.exists()


def test_a_job_that_ends_in_time_is_not_disturbed_by_a_drain(start_cluster, gate):
    cluster = start_cluster(drain_s=20.0)
    job = create(parameters={"total": 1, "gate": str(gate)})
    child_of(job)
    cluster.process.send_signal(signal.SIGTERM)
    gate.open_to(1)
    assert cluster.process.wait(20) == 0
    assert status_of(job) == Status.COMPLETED


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


def test_surplus_tokens_do_nothing(cluster):
    for _ in range(50):
        broker.async_task(broker.TOKEN_TASK, broker=broker.broker_for("default"), cluster="default")
    job = create()
    wait_for(lambda: ended(job), "the job")
    assert reload(job).attempt == 1
