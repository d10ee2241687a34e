"""What follows a failure: by kind, with delays, and for lost jobs."""

import random
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import Schedule

from jobs import conf, recovery
from jobs.errors import Kind, MemoryLimitExceeded, PermanentError, TransientError, WorkerLost
from jobs.manager import JobManager
from jobs.models import JobAttempt
from jobs.recovery import ErrorRecoveryService, Rescuer
from jobs.retry import RetryPolicy, delay_s, kind_of, next_try
from jobs.states import Status
from jobs.tests.fixtures import reload

POLICY = RetryPolicy(max_retries=4, delays_s=(60, 300, 900, 3600))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TransientError(), Kind.TRANSIENT), (ConnectionError(), Kind.TRANSIENT), (TimeoutError(), Kind.TRANSIENT),
        (PermanentError(), Kind.PERMANENT), (TypeError(), Kind.PERMANENT), (ImportError(), Kind.PERMANENT),
        (MemoryLimitExceeded(512, 519), Kind.LIMIT), (MemoryError(), Kind.LIMIT), (WorkerLost(), Kind.LOST),
        (ValueError(), Kind.UNKNOWN), (KeyError(), Kind.UNKNOWN),
    ],
)  # fmt: skip
def test_error_handling_and_recovery(error, kind):
    assert kind_of(error, POLICY) == kind


def test_what_a_job_type_declares_comes_first():
    policy = RetryPolicy(4, (60,), transient=(ValueError,), permanent=(ConnectionError,))
    assert kind_of(ValueError(), policy) == Kind.TRANSIENT
    assert kind_of(ConnectionRefusedError(), policy) == Kind.PERMANENT


def test_automatic_retry_logic(running_job):
    """Four retries with the delays of the specification, then FAILED."""
    service = ErrorRecoveryService(random.Random(1))
    assert [service.calculate_retry_delay(n) for n in range(6)] == [60, 300, 900, 3600, 3600, 3600]
    job = running_job
    for number, expected in enumerate((60, 300, 900, 3600)):
        now = timezone.now()
        assert service.should_retry(job, ConnectionError()) is True
        assert service.handle_job_failure(job, ConnectionError("no answer")) is True
        row = reload(job)
        assert (row.status, row.retry_count) == (Status.PENDING, number + 1)
        assert expected * 0.9 - 1 <= (row.run_after - now).total_seconds() <= expected * 1.1 + 1
        job = JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    assert service.should_retry(job, ConnectionError()) is False
    service.handle_job_failure(job, ConnectionError("no answer"))
    row = reload(job)
    assert (row.status, row.retry_count, row.attempts.count()) == (Status.FAILED, 5, 5)


def test_jobs_that_failed_together_do_not_come_back_together():
    now, rng = timezone.now(), random.Random(7)
    due = {next_try(POLICY, Kind.TRANSIENT, 0, now, rng) for _ in range(200)}
    spread = max(due) - min(due)
    assert len(due) == 200
    assert timedelta(seconds=8) < spread <= timedelta(seconds=12)


@pytest.mark.parametrize("kind", [Kind.PERMANENT, Kind.LIMIT])
def test_what_would_only_repeat_itself_is_not_tried_again(kind):
    assert next_try(POLICY, kind, 0, timezone.now(), random.Random(1)) is None


def test_a_retry_by_hand_grants_one_try_beyond_the_budget(running_job):
    JobManager().update_progress(running_job.pk, 10, "x")
    type(running_job).objects.filter(pk=running_job.pk).update(retry_count=4)
    job = reload(running_job)
    ErrorRecoveryService().handle_job_failure(job, ConnectionError())
    assert reload(job).status == Status.FAILED
    JobManager().retry_job(job.pk)
    again = JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    assert again.attempt == 2
    ErrorRecoveryService().handle_job_failure(again, ConnectionError())
    assert reload(job).status == Status.FAILED


@pytest.mark.django_db(transaction=True)
def test_a_retry_has_a_schedule_beside_its_row(running_job):
    ErrorRecoveryService().handle_job_failure(running_job, ConnectionError())
    schedule = Schedule.objects.get()
    assert schedule.cluster == running_job.queue_name
    assert schedule.next_run >= reload(running_job).run_after


class TestRescue:
    @pytest.fixture
    def clock(self, monkeypatch):
        """The rescuer's monotonic clock, in the test's hand."""
        now = [1000.0]
        monkeypatch.setattr(recovery.time, "monotonic", lambda: now[0])
        return now

    def test_a_lease_that_stands_still_is_rescued(self, running_job, clock):
        rescuer = Rescuer()
        assert rescuer.sweep() == []
        clock[0] += conf.get("lease_s") - 0.1
        assert rescuer.sweep() == []
        clock[0] += 0.2
        assert rescuer.sweep() == [running_job.pk]
        row = reload(running_job)
        assert (row.status, row.error_kind) == (Status.PENDING, Kind.LOST)
        assert row.attempts.get().outcome == JobAttempt.Outcome.LOST

    def test_a_job_that_beats_is_left_alone(self, running_job, clock):
        rescuer = Rescuer()
        for _ in range(5):
            rescuer.sweep()
            JobManager().heartbeat(running_job.pk, attempt=1)
            clock[0] += conf.get("lease_s") * 0.8
        assert reload(running_job).status == Status.RUNNING

    def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(self, running_job, clock):
        JobManager().cancel_job(running_job.pk, "enough")
        rescuer = Rescuer()
        rescuer.sweep()
        clock[0] += conf.get("lease_s") + 1
        rescuer.sweep()
        assert reload(running_job).status == Status.CANCELLED

    def test_a_pause_of_the_rescuer_itself_rescues_nothing(self, running_job, clock):
        """After an outage of the database it has not seen the lease stand still, so it begins anew."""
        clock[0] += 3600
        assert Rescuer().sweep() == []
        assert reload(running_job).status == Status.RUNNING


def test_the_products_own_times():
    """Tests shorten these; here are the ones that we promise."""
    assert conf.DEFAULTS["retry_delays_s"] == [60, 300, 900, 3600]
    assert (conf.DEFAULTS["lease_s"], conf.DEFAULTS["beat_interval_s"], conf.DEFAULTS["lease_giveup_s"]) == (10.0, 2.0, 8.0)
    assert (conf.DEFAULTS["cancel_grace_s"], conf.DEFAULTS["terminate_grace_s"], conf.DEFAULTS["drain_s"]) == (5.0, 3.0, 8.0)
    assert conf.DEFAULTS["max_concurrent_jobs"] == 10
    assert conf.DEFAULTS["memory_limit_mb"] == 2048
    assert conf.DEFAULTS["cpu_threshold"] == 80.0
    assert conf.DEFAULTS["ageing_s"] == 300.0
    assert delay_s(POLICY, 0) == 60
