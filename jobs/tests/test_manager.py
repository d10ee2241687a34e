"""JobManager: every transition is one conditional UPDATE, with one winner."""

import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import conf
from jobs.errors import InvalidParameters, InvalidResult, Kind, NotAllowed, QuotaExceeded, UnknownJobType
from jobs.manager import JobManager
from jobs.models import Job, JobLog, Notification
from jobs.states import ENDED, TRANSITIONS, Priority, Status
from jobs.tests.fixtures import reload

manager = JobManager()


def test_job_creation_and_tracking(analyst):
    job = manager.create_job("sample_steps", parameters={"total": 7}, created_by=analyst, priority=Priority.HIGH)
    row = reload(job)
    assert row.id.version == 7
    assert (row.job_type, row.status, row.priority, row.queue_name) == ("sample_steps", Status.PENDING, Priority.HIGH, "default")
    assert (row.total_steps, row.completed_steps, row.retry_count, row.max_retries) == (7, 0, 0, 4)
    assert row.parameters == {"total": 7, "gate": "", "fail_at": None, "error": ""}
    assert (row.started_at, row.completed_at, row.result_data, row.worker_id) == (None, None, None, "")
    assert row.created_by == analyst


@pytest.mark.parametrize(
    ("job_type", "parameters", "error"),
    [
        ("no_such_type", {}, UnknownJobType),
        ("sample_steps", {"total": "many"}, InvalidParameters),
        ("sample_steps", {"total": -1}, InvalidParameters),
        ("sample_steps", {"totl": 3}, InvalidParameters),
    ],
)
def test_what_makes_no_sense_makes_no_job(analyst, job_type, parameters, error):
    with pytest.raises(error):
        manager.create_job(job_type, parameters=parameters, created_by=analyst)
    assert not Job.objects.exists()
    assert not JobLog.objects.exists()


def test_one_person_has_a_limited_number_of_open_jobs(analyst, other, monkeypatch):
    monkeypatch.setitem(conf.DEFAULTS, "open_jobs_per_user_max", 2)
    first = manager.create_job("sample_steps", created_by=analyst)
    manager.create_job("sample_steps", created_by=analyst)
    with pytest.raises(QuotaExceeded, match="2 jobs"):
        manager.create_job("sample_steps", created_by=analyst)
    manager.create_job("sample_steps", created_by=other)
    manager.cancel_job(first.pk)
    manager.create_job("sample_steps", created_by=analyst)


def test_a_job_is_started_once(job):
    assert manager.start([job.pk], worker_id="atlas-1", host="atlas").attempt == 1
    assert manager.start([job.pk], worker_id="atlas-2", host="atlas") is None
    assert reload(job).worker_id == "atlas-1"
    assert job.attempts.count() == 1


def test_cancel_loses_to_a_completion_that_came_first(running_job):
    assert manager.mark_completed(running_job.id, {"pages": 3}) is True
    assert manager.cancel_job(running_job.id, "changed my mind") is False
    assert reload(running_job).status == Status.COMPLETED


@pytest.mark.parametrize("end", ["complete", "fail", "retry later", "put back"])
def test_an_accepted_cancel_always_ends_cancelled(running_job, end):
    assert manager.cancel_job(running_job.id, "wrong site") is True
    attempt = running_job.attempt
    later = timezone.now() + timedelta(minutes=1)
    came_later = {
        "complete": lambda: manager.mark_completed(running_job.id, {}, attempt=attempt),
        "fail": lambda: manager.mark_failed(running_job.id, "boom", attempt=attempt),
        "retry later": lambda: manager.mark_failed(running_job.id, "boom", attempt=attempt, retry_at=later),
        "put back": lambda: manager.put_back(running_job.id, "stopping", attempt=attempt),
    }[end]()
    assert came_later is False
    assert manager.mark_cancelled(running_job.id, attempt=attempt) is True
    row = reload(running_job)
    assert (row.status, row.cancel_reason) == (Status.CANCELLED, "wrong site")


def test_a_second_cancel_is_told_so(running_job, analyst):
    assert manager.cancel_job(running_job.id, "first", by=analyst) is True
    assert manager.cancel_job(running_job.id, "second") is False
    assert reload(running_job).cancel_reason == "first"


def test_a_waiting_job_is_cancelled_at_once(job, analyst):
    assert manager.cancel_job(job.id, "not needed", by=analyst) is True
    row = reload(job)
    assert (row.status, row.cancelled_by) == (Status.CANCELLED, "ortega")
    assert manager.start([job.pk], worker_id="atlas-1", host="atlas") is None


def test_a_late_worker_writes_nothing(running_job):
    """The attempt is the fence: after a rescue and a new start, the old worker matches no row."""
    manager.mark_failed(running_job.id, "lost", attempt=1, kind=Kind.LOST, retry_at=timezone.now())
    again = manager.start([running_job.id], worker_id="atlas-2", host="atlas")
    assert again.attempt == 2
    assert manager.update_progress(running_job.id, 50, "late", attempt=1) is None
    assert manager.append_logs(running_job.id, [{"level": 20, "message": "late"}], attempt=1) == 0
    assert manager.heartbeat(running_job.id, attempt=1) is None
    assert manager.mark_completed(running_job.id, {}, attempt=1) is False
    assert manager.mark_failed(running_job.id, "late", attempt=1) is False
    row = reload(running_job)
    assert (row.status, row.worker_id, row.current_step) == (Status.RUNNING, "atlas-2", "")


def test_retry_is_for_failed_jobs(running_job):
    with pytest.raises(NotAllowed, match="running"):
        manager.retry_job(running_job.id)
    manager.mark_failed(running_job.id, "boom", attempt=1)
    job = manager.retry_job(running_job.id)
    assert (job.status, job.completed_at, job.retry_count) == (Status.PENDING, None, 1)
    with pytest.raises(NotAllowed, match="waiting"):
        manager.retry_job(running_job.id)
    with pytest.raises(Job.DoesNotExist):
        manager.retry_job(uuid.uuid4())


def test_a_drain_does_not_spend_the_budget(running_job):
    assert manager.put_back(running_job.id, "the worker is stopping", attempt=1) is True
    row = reload(running_job)
    assert (row.status, row.retry_count, row.attempt) == (Status.PENDING, 0, 1)
    assert row.run_after <= timezone.now()


def test_progress_never_goes_backwards_and_is_100_only_when_complete(running_job):
    manager.update_progress(running_job.id, 60, "b", attempt=1)
    manager.update_progress(running_job.id, 40, "c", attempt=1)
    assert reload(running_job).progress_percent == 60
    manager.update_progress(running_job.id, 100, "d", attempt=1)
    assert reload(running_job).progress_percent < 100
    manager.mark_completed(running_job.id, {}, attempt=1)
    assert reload(running_job).progress_percent == 100
    with pytest.raises(ValueError, match="percentage"):
        manager.update_progress(running_job.id, 101, "e")


def test_a_handler_that_counts_too_far_breaks_nothing(running_job):
    manager.update_progress(running_job.id, 50, "x", attempt=1, completed_steps=99)
    assert reload(running_job).completed_steps == 4


def test_log_numbers_have_no_holes(running_job):
    manager.append_logs(running_job.id, [{"level": 20, "message": f"line {n}"} for n in range(30)], attempt=1)
    manager.cancel_job(running_job.id, "enough")
    manager.append_logs(running_job.id, [{"level": 20, "message": "one more"}], attempt=1)
    manager.mark_cancelled(running_job.id, attempt=1)
    row = reload(running_job)
    assert list(row.logs.values_list("seq", flat=True)) == list(range(1, row.log_seq + 1))


@pytest.mark.parametrize(
    ("result", "why"),
    [([1, 2], "object"), ({"a": {1, 2}}, "JSON"), ({"a": b"bytes"}, "JSON"), ({"a": "x" * 2_000_000}, "artifact")],
)
def test_a_result_that_cannot_be_kept_changes_nothing(running_job, result, why):
    with pytest.raises(InvalidResult, match=why):
        manager.mark_completed(running_job.id, result, attempt=1)
    assert reload(running_job).status == Status.RUNNING


def test_dates_ids_and_nul_in_a_result_are_made_plain(running_job):
    now = timezone.now()
    manager.mark_completed(running_job.id, {"at": now, "id": running_job.id, 3: "a\x00b", "nan": float("nan")}, attempt=1)
    kept = reload(running_job).result_data
    assert kept == {"at": kept["at"], "id": str(running_job.id), "3": "ab", "nan": None}
    assert kept["at"].startswith(str(now.date()))


def test_a_result_may_speak_of_escapes(running_job):
    manager.mark_completed(running_job.id, {"text": "a backslash and \\u0000 in letters"}, attempt=1)
    assert reload(running_job).result_data["text"] == "a backslash and \\u0000 in letters"


def test_the_creator_is_told_once_of_each_end(running_job, analyst):
    manager.mark_failed(running_job.id, "boom", attempt=1)
    manager.retry_job(running_job.id)
    manager.start([running_job.id], worker_id="atlas-1", host="atlas")
    manager.mark_completed(running_job.id, {"summary": "4 steps"}, attempt=2)
    told = Notification.objects.filter(user=analyst).order_by("attempt").values_list("attempt", "status", "text")
    name = running_job.name
    assert list(told) == [(1, "FAILED", f"{name}: boom"), (2, "COMPLETED", f"{name}: 4 steps")]


def test_an_end_that_is_rolled_back_tells_nobody(running_job):
    with pytest.raises(RuntimeError), transaction.atomic():
        manager.mark_completed(running_job.id, {}, attempt=1)
        raise RuntimeError
    assert reload(running_job).status == Status.RUNNING
    assert not Notification.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"progress_percent": 101},
        {"progress_percent": -1},
        {"status": "DONE"},
        {"priority": 5},
        {"status": "FAILED"},
        {"completed_steps": 5},
    ],
)
def test_the_database_refuses_what_is_not_legal(job, wrong):
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(**wrong)


ACTIONS = ("start", "complete", "fail", "fail_retry", "put_back", "cancel", "mark_cancelled", "retry", "progress")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=12))
def test_random_actions_never_leave_the_table(db, actions):
    """Whatever is tried in whatever order, each change of status is one that TRANSITIONS allows."""
    job = manager.create_job("sample_steps")
    before = job.status
    for action in actions:
        attempt = reload(job).attempt
        try:
            act(action, job.id, attempt)
        except NotAllowed:
            pass
        row = reload(job)
        assert row.status == before or row.status in TRANSITIONS[before], (before, action, row.status)
        assert (row.completed_at is not None) == (row.status in ENDED)
        assert row.logs.count() == row.log_seq
        before = row.status


def act(action: str, job_id: uuid.UUID, attempt: int) -> None:
    {
        "start": lambda: manager.start([job_id], worker_id="w", host="h"),
        "complete": lambda: manager.mark_completed(job_id, {}, attempt=attempt),
        "fail": lambda: manager.mark_failed(job_id, "boom", attempt=attempt),
        "fail_retry": lambda: manager.mark_failed(job_id, "boom", attempt=attempt, retry_at=timezone.now()),
        "put_back": lambda: manager.put_back(job_id, "drain", attempt=attempt),
        "cancel": lambda: manager.cancel_job(job_id, "no"),
        "mark_cancelled": lambda: manager.mark_cancelled(job_id, attempt=attempt),
        "retry": lambda: manager.retry_job(job_id),
        "progress": lambda: manager.update_progress(job_id, 10, "x", attempt=attempt),
    }[action]()
