"""The three promises of monitoring, each in one story."""

import pytest

from jobs.errors import PermanentError
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt
from jobs.recovery import ErrorRecoveryService
from jobs.states import Level, Status
from jobs.tests.fixtures import reload
from jobs.tracker import ProgressTracker


def test_job_tracking(analyst):
    """Tracking begins with the job itself: nothing has to be switched on."""
    job = JobManager().create_job("sample_steps", parameters={"total": 2}, created_by=analyst)
    assert (job.status, job.total_steps, job.progress_percent) == (Status.PENDING, 2, 0.0)

    started = JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    assert started.status == Status.RUNNING
    assert JobManager().mark_completed(job.pk, {"summary": "two steps"}, attempt=started.attempt) is True

    ended = reload(job)
    assert (ended.status, ended.progress_percent, ended.result_data) == (Status.COMPLETED, 100.0, {"summary": "two steps"})
    assert ended.completed_at >= ended.started_at >= ended.created_at
    assert [line.message for line in ended.logs.all()] == [
        "Created by ortega", "Started on atlas-1, attempt 1", "Completed. two steps"
    ]  # fmt: skip
    assert ended.attempts.get().outcome == JobAttempt.Outcome.COMPLETED


def test_progress_updates(running_job):
    with ProgressTracker(running_job.pk, total_steps=4) as tracker:
        tracker.update_step("Reading")
        tracker.log_info("Read the first", item=1)
        tracker.update_step("Writing", increment=2)
        tracker.log_error("The third was empty", item=3)
    row = reload(running_job)
    assert (row.current_step, row.completed_steps, row.total_steps, row.progress_percent) == ("Writing", 3, 4, 75.0)
    last = row.logs.order_by("-seq").first()
    assert (last.level, last.message, last.step_name, last.data) == (Level.ERROR, "The third was empty", "Writing", {"item": 3})


@pytest.mark.parametrize(
    ("error", "status"), [(ConnectionError("no answer"), Status.PENDING), (PermanentError("no such page"), Status.FAILED)]
)
def test_error_recovery(running_job, error, status):
    """A passing error is tried again by itself, a lasting one is not; both say what happened."""
    assert ErrorRecoveryService().handle_job_failure(running_job, error) is True
    row: Job = reload(running_job)
    assert row.status == status
    assert str(error) in row.error_message
    assert row.error_advice
    assert (row.run_after > row.started_at) is (status == Status.PENDING)
