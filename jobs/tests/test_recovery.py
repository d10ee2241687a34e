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

    def test_a_worker_that_beats_just_before_its_rescue_keeps_its_child(self, running_job, monkeypatch):
        killed = []
        monkeypatch.setattr("jobs.recovery.kill_session", killed.append)
        JobAttempt.objects.filter(job=running_job).update(process={"pid": 1})
        seen = reload(running_job).beat
        JobManager().heartbeat(running_job.pk, attempt=1)
        assert not Rescuer().rescue(running_job.pk, 1, seen)
        assert killed == []
        assert Rescuer().rescue(running_job.pk, 1, seen + 1)
        assert killed == [{"pid": 1}]

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


PRODUCT = {
    "retry_delays_s": [60, 300, 900, 3600], "retry_jitter": 0.1, "retry_after_max_s": 86_400, "poison_max": 3,
    "lease_s": 10.0, "beat_interval_s": 2.0, "lease_giveup_s": 8.0, "worker_gone_s": 10.0, "tick_s": 1.0,
    "sentinel_stuck_s": 3.0, "unclaimed_s": 3.0, "watch_interval_s": 0.2, "sample_interval_s": 1.0, "sample_close_s": 0.05,
    "cancel_grace_s": 5.0, "terminate_grace_s": 3.0, "drain_s": 8.0, "ageing_s": 300.0, "urgent_wait_s": 10.0,
    "max_concurrent_jobs": 10, "reserved_slots": 1, "memory_limit_mb": 2048, "cpu_threshold": 80.0, "cpu_window_s": 15.0,
    "cpu_hysteresis": 10.0, "memory_floor_mb": 256, "disk_floor_mb": 2048, "running_per_user_max": None,
    "keep_failed_days": 7, "keep_completed_days": 30, "keep_cancelled_days": 30, "mail_delays_s": [60, 300, 900, 3600],
    "socket_ping_s": 20, "socket_gone_s": 20,
}  # fmt: skip


def test_the_products_own_times_and_limits():
    """Tests shorten these; here are the ones that we promise."""
    assert {name: conf.DEFAULTS[name] for name in PRODUCT} == PRODUCT
    assert conf.get("lease_giveup_s") < conf.get("lease_s"), "two copies would run at once"
    assert delay_s(POLICY, 0) == 60


def test_advice_promises_no_try_that_will_not_come(running_job):
    running_job.max_retries = 0
    ErrorRecoveryService().handle_job_failure(running_job, TransientError("No answer"))
    row = reload(running_job)
    assert row.status == Status.FAILED
    assert row.error_advice == "If it keeps failing, check that the host is reachable."
