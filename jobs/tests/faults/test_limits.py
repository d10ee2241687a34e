"""F9, F10, F17, F30: limits of a job and of the machine."""

import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
from django.core.management import call_command
from django.utils import timezone
from django_q.models import Schedule

from jobs.errors import Kind, TransientError
from jobs.models import Job, JobAttempt
from jobs.recovery import ErrorRecoveryService
from jobs.resources import MB
from jobs.states import Priority, Status
from jobs.tests.fixtures import Gate, child_of, create, ended, reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def test_f09_memory_taken_fast(cluster):
    """Ended at its limit, with the limit, the peak and what helps; others are unharmed."""
    eater, other = create("sample_eater"), create(parameters={"total": 3})
    wait_for(lambda: ended(eater, other), "both ends")
    row = reload(eater)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, Kind.LIMIT, 1)
    assert "64 MB it may use" in row.error_message
    assert "Raise the memory limit" in row.error_advice
    peak = row.attempts.get().memory_peak_mb
    assert 64 < peak < 64 * 2 + 256 + 64  # the kernel's backstop
    assert f"peak {peak:,.0f} MB" in row.error_message
    assert status_of(other) == Status.COMPLETED


def test_f10_too_much_cpu(cluster):
    job = create("sample_load", parameters={"cpu_share": 1.0, "gate": "/dev/null"}, cpu_limit_s=1)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.error_kind) == (Status.FAILED, Kind.LIMIT)
    assert row.error_message == "Used more than the 1 s of CPU time it may"
    assert row.attempts.get().cpu_seconds >= 1


def test_f10_too_long(cluster, gate):
    job = create(parameters={"gate": str(gate)}, time_limit_s=1)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.error_kind, row.error_message) == (Status.FAILED, Kind.LIMIT, "Ran longer than the 1 s it may")
    assert row.attempts.get().cpu_seconds < 1


def test_f17_a_retry_storm(start_cluster, analyst):
    """5,000 jobs fail together: they come back spread out, with one wake-up a minute; and when all are due, urgent work goes first."""
    now = timezone.now()
    storm = [
        Job(
            job_type="sample_host_is_down", name="Storm", status=Status.RUNNING, attempt=1, started_at=now, progress_at=now, worker_id="gone-1",
            max_retries=4, created_by=analyst,
        )
        for _ in range(5000)
    ]  # fmt: skip
    Job.objects.bulk_create(storm, batch_size=500)
    service, error = ErrorRecoveryService(), TransientError("The host does not answer")
    for job in storm:
        assert service.handle_job_failure(job, error)
    took = (timezone.now() - now).total_seconds()
    waits = [(job.run_after - now).total_seconds() for job in Job.objects.only("run_after")]
    assert max(waits) - min(waits) > 8  # 60 s ± 10 %, and the time that this loop took
    assert Schedule.objects.filter(name__startswith="wake").count() <= 2 + (12 + took) / 60  # the spread, and how long it took

    Job.objects.update(run_after=now)
    start_cluster()
    urgent = create(parameters={"total": 1}, priority=Priority.URGENT)
    wait_for(lambda: ended(urgent), "the urgent job")
    assert Job.objects.filter(name="Storm", attempt=1).count() > 3000, "the storm went first"
    most = 0

    def some_were_seen_running():
        nonlocal most
        most = max(most, Job.objects.running().count())
        return most and Job.objects.filter(name="Storm", attempt__gt=1).count() > 100

    wait_for(some_were_seen_running, "a part of the storm")
    assert most <= 2


@contextmanager
def busy_machine():
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(psutil.cpu_count())]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_f30_a_busy_cpu(start_cluster, gate):
    """New jobs are held with the reason, except urgent ones, and start by themselves later."""
    start_cluster(max_concurrent_jobs=3, cpu_threshold=90.0, cpu_window_s=1.0)
    first = create(parameters={"total": 1, "gate": str(gate)})
    child_of(first)
    with busy_machine():
        # work that is seen as due before the mean is above the threshold may still start: it is made until one is held
        def held():
            job = create(parameters={"total": 1})
            wait_for(lambda: ended(job) or reload(job).hold_reason, "the job to start or to be held")
            return job if reload(job).hold_reason else None

        job = wait_for(held, "a job to be held")
        assert reload(job).hold_reason == "Waits for the machine: its CPU is above 90 %"
        urgent = create(parameters={"total": 1}, priority=Priority.URGENT)
        wait_for(lambda: ended(urgent), "the urgent job")
        assert status_of(job) == Status.PENDING
    wait_for(lambda: ended(job), "the held job to start by itself", deadline_s=120)  # the machine may have other work, too
    assert status_of(first) == Status.RUNNING


def test_f30_nothing_runs_so_the_cpu_holds_nothing(start_cluster):
    start_cluster(cpu_threshold=0.001, cpu_window_s=0.5)
    for _ in range(3):
        job = create(parameters={"total": 1})
        wait_for(lambda job=job: ended(job), "a job, one after the other")


def test_f30_short_memory(start_cluster):
    """The floor is put where the machine is short once the test has taken two gigabytes."""
    floor = psutil.virtual_memory().available / MB - 1500  # what the cluster itself takes, and some room
    start_cluster(memory_floor_mb=floor)
    before = create(parameters={"total": 1})
    wait_for(lambda: ended(before), "a job while there is memory")
    taken = bytearray(2300 * MB)
    taken[::4096] = bytes(len(taken[::4096]))  # a page that was never written takes nothing
    job = create(parameters={"total": 1})
    wait_for(lambda: reload(job).hold_reason, "the reason")
    assert reload(job).hold_reason.startswith("Waits for memory: ")
    del taken
    wait_for(lambda: ended(job), "the job to start by itself")


def test_f30_a_full_disk(start_cluster):
    """Below the floor of free disk nothing starts, and the reason is said."""
    cluster = start_cluster(disk_floor_mb=10**9)
    job = create(parameters={"total": 1}, priority=Priority.URGENT)
    wait_for(lambda: reload(job).hold_reason, "the reason")
    assert reload(job).hold_reason.startswith("Waits for disk space: ")
    cluster.stop()
    start_cluster()
    wait_for(lambda: ended(job), "the job once there is room")


def test_an_urgent_job_gets_the_place_of_the_least_important(start_cluster, gate, tmp_path):
    """The one that keeps checkpoints stops at its next one, says for whom it made way, and goes on by itself."""
    start_cluster(max_concurrent_jobs=2, urgent_wait_s=0.5)
    low_gate = Gate(tmp_path / "low")
    low_gate.open_to(2)
    low = create("sample_items", parameters={"total": 6, "gate": str(low_gate)}, priority=Priority.LOW)
    plain = create(parameters={"total": 1, "gate": str(gate)}, priority=Priority.LOW)  # keeps none: it is not disturbed
    wait_for(lambda: low.items.count() == 2 and status_of(plain) == Status.RUNNING, "both places to be taken")
    urgent = create(parameters={"total": 1}, priority=Priority.URGENT, name="Now!")
    wait_for(lambda: ended(urgent), "the urgent job")
    assert low.attempts.get(number=1).outcome == JobAttempt.Outcome.PAUSED
    assert low.logs.filter(message="Made way for “Now!”").exists()
    assert status_of(plain) == Status.RUNNING
    low_gate.open_to(6)
    wait_for(lambda: ended(low), "the other to go on by itself")
    row = reload(low)
    assert (row.status, row.retry_count, row.attempt) == (Status.COMPLETED, 0, 2)
    assert row.result_data["here"] == [f"item {n}" for n in range(3, 7)]
    gate.open_to(1)
    wait_for(lambda: ended(plain), "the last one")


def test_a_place_is_kept_for_high_and_urgent(start_cluster, gate):
    start_cluster(max_concurrent_jobs=3)
    ordinary = [create(parameters={"total": 1, "gate": str(gate)}) for _ in range(3)]
    wait_for(lambda: Job.objects.running().count() == 2, "two of three")
    high = create(parameters={"total": 1, "gate": str(gate)}, priority=Priority.HIGH)
    wait_for(lambda: status_of(high) == Status.RUNNING, "the kept place")
    assert Job.objects.running().count() == 3
    assert [status_of(job) for job in ordinary].count(Status.PENDING) == 1
    gate.open_to(1)
    wait_for(lambda: ended(high, *ordinary), "all of them")


def test_a_paused_queue_starts_nothing_until_it_is_resumed(cluster):
    call_command("pause_jobs", queue="default", reason="maintenance")
    job = create(parameters={"total": 1}, priority=Priority.URGENT)
    wait_for(lambda: reload(job).hold_reason, "the reason")
    assert reload(job).hold_reason == "Paused by an administrator: maintenance"
    call_command("pause_jobs", queue="default", resume=True)
    wait_for(lambda: ended(job), "the job")
