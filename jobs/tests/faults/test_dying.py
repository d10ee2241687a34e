"""F1–F5, F11, F15, F29: processes that are killed, from the child up to the whole cluster."""

import os
import signal

import psutil
import pytest

from jobs.errors import Kind
from jobs.models import Job, JobAttempt, WorkerProcess
from jobs.states import ENDED, Status
from jobs.tests.fixtures import child_of, create, ended, is_gone, no_two_at_once, reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]
Outcome = JobAttempt.Outcome


def family_of(job):
    """The processes of a `sample_family`, once all are there: itself, and three that it has started."""
    zygote = psutil.Process(child_of(job)).parent()
    return wait_for(lambda: len(zygote.children(recursive=True)) == 4 and zygote.children(recursive=True), "its family")


def all_gone(processes):
    return all(is_gone(process.pid) for process in processes)


def test_f01_a_killed_child(cluster, gate):
    """What it said last is kept, it is tried again by the rule, and the cluster goes on."""
    gate.open_to(1)
    job = create(parameters={"total": 2, "gate": str(gate)})
    pid = child_of(job)
    wait_for(lambda: reload(job).current_step == "Step 2" and reload(job).memory_usage_mb, "the second step, and a measurement")
    os.kill(pid, signal.SIGKILL)
    first = wait_for(lambda: job.attempts.exclude(outcome=Outcome.RUNNING).first(), "the end of the attempt")
    assert (first.outcome, first.error_kind) == (Outcome.LOST, Kind.LOST)
    assert "ended by SIGKILL" in first.error_message
    assert "“Step 2”" in first.error_message
    assert first.memory_peak_mb > 0
    assert first.cpu_seconds is not None
    assert job.logs.filter(attempt=1, message="Line of step 1").exists()
    other = create(parameters={"total": 1})
    wait_for(lambda: ended(other), "another job")
    gate.open_to(2)
    wait_for(lambda: ended(job), "the second attempt")
    assert (status_of(job), reload(job).attempt, reload(job).retry_count) == (Status.COMPLETED, 2, 1)
    assert no_two_at_once(job)


def test_f01_without_a_retry_left_it_has_failed(cluster, gate):
    job = create(parameters={"gate": str(gate)}, max_retries=0)
    os.kill(child_of(job), signal.SIGKILL)
    wait_for(lambda: ended(job), "the end")
    assert (status_of(job), reload(job).error_kind) == (Status.FAILED, Kind.LOST)
    assert "SIGKILL" in reload(job).error_message


def test_f02_a_killed_worker(cluster, gate):
    job = create(parameters={"total": 2, "gate": str(gate)})
    child = child_of(job)
    os.kill(WorkerProcess.objects.get(name=reload(job).worker_id).pid, signal.SIGKILL)
    wait_for(lambda: is_gone(child), "the child to die with its worker")
    wait_for(lambda: reload(job).attempt == 2, "the rescue and the second attempt")
    gate.open_to(2)
    wait_for(lambda: ended(job), "the end")
    row = reload(job)
    assert (row.status, row.retry_count) == (Status.COMPLETED, 0)  # the job is not to blame
    assert [a.outcome for a in row.attempts.all()] == [Outcome.LOST, Outcome.COMPLETED]
    assert no_two_at_once(job)


def test_f02_an_idle_worker_is_killed(cluster):
    """It may die holding the lock of the queue that all read from: the cluster gets a new sentinel, and jobs run."""
    job = create(parameters={"total": 1})
    wait_for(lambda: ended(job), "a first job")
    victim = WorkerProcess.objects.order_by("pk").first()
    os.kill(victim.pid, signal.SIGKILL)
    later = [create(parameters={"total": 1}) for _ in range(6)]
    wait_for(lambda: ended(*later), "the jobs after it")
    assert {status_of(job) for job in later} == {Status.COMPLETED}


@pytest.mark.parametrize("victim", ["sentinel", "master"])
def test_f03_a_killed_sentinel_or_master(start_cluster, gate, victim):
    """Nothing of the old tree goes on; whoever starts next runs the job."""
    cluster = start_cluster()
    master = psutil.Process(cluster.process.pid)
    sentinel = master.children()[0]
    old = [p for p in master.children(recursive=True) if p != sentinel]
    job = create(parameters={"total": 2, "gate": str(gate)})
    child = child_of(job)
    (sentinel if victim == "sentinel" else master).kill()
    wait_for(lambda: all(is_gone(p.pid) for p in old) and is_gone(child), "all that it had started to be gone")
    if victim == "master":
        wait_for(lambda: is_gone(sentinel.pid), "the sentinel to die with its master")
        cluster.process.wait()
        start_cluster()
    wait_for(lambda: reload(job).attempt == 2, "the second attempt")
    gate.open_to(2)
    wait_for(lambda: ended(job), "the end")
    assert (status_of(job), reload(job).retry_count) == (Status.COMPLETED, 0)
    assert no_two_at_once(job)


def test_f03_a_sentinel_that_hangs_is_replaced(start_cluster):
    cluster = start_cluster(sentinel_stuck_s=2.0)
    sentinel = psutil.Process(cluster.process.pid).children()[0]
    sentinel.suspend()
    wait_for(lambda: is_gone(sentinel.pid), "the hanging sentinel to be ended", deadline_s=60)
    job = create(parameters={"total": 1})
    wait_for(lambda: ended(job), "a job by the new one")
    assert status_of(job) == Status.COMPLETED


def test_f04_a_killed_cluster(start_cluster, gate):
    cluster = start_cluster()
    running = [create(parameters={"gate": str(gate)}) for _ in range(2)]
    children = [child_of(job) for job in running]
    waiting = [create() for _ in range(8)]
    os.killpg(cluster.process.pid, signal.SIGKILL)
    cluster.process.wait()
    wait_for(lambda: all(is_gone(pid) for pid in children), "the children to die with the cluster")
    start_cluster()
    gate.open_to(99)
    wait_for(lambda: ended(*running, *waiting), "all ten", deadline_s=60)
    assert set(Job.objects.values_list("status", flat=True)) == {Status.COMPLETED}
    assert all(no_two_at_once(job) for job in (*running, *waiting))
    assert {job.attempts.count() for job in waiting} == {1}
    assert {job.attempts.count() for job in running} == {2}


@pytest.mark.parametrize("to", ["process", "group"])
def test_f05_a_drain_puts_running_jobs_back(cluster, gate, to):
    job = create(parameters={"gate": str(gate)})
    child = child_of(job)
    (os.kill if to == "process" else os.killpg)(cluster.process.pid, signal.SIGTERM)
    assert cluster.process.wait(30) == 0
    assert is_gone(child)
    row = reload(job)
    assert (row.status, row.retry_count, row.worker_id) == (Status.PENDING, 0, "")
    assert row.attempts.get().outcome == Outcome.PUT_BACK
    assert not WorkerProcess.objects.exists()


def test_f05_a_job_that_ends_in_time_is_not_disturbed(start_cluster, gate):
    cluster = start_cluster(drain_s=20.0)
    job = create(parameters={"total": 1, "gate": str(gate)})
    child_of(job)
    cluster.process.send_signal(signal.SIGTERM)
    gate.open_to(1)
    assert cluster.process.wait(20) == 0
    assert status_of(job) == Status.COMPLETED


def test_f05_what_is_done_is_not_done_again_after_a_deploy(start_cluster, gate):
    cluster = start_cluster()
    gate.open_to(4)
    job = create("sample_items", parameters={"total": 10, "gate": str(gate)})
    wait_for(lambda: job.items.filter(outcome="ok").count() == 4, "four items")
    assert cluster.stop() == 0
    start_cluster()
    gate.open_to(99)
    wait_for(lambda: ended(job), "the end")
    assert reload(job).result_data == {"here": [f"item {n}" for n in range(5, 11)], "settled": 4, "at": 10}
    assert job.items.filter(outcome="ok").count() == 10


def test_f11_a_child_that_ignores_cancel_and_sigterm(cluster):
    """It and all that it has started are gone when the page says Cancelled."""
    from jobs.manager import JobManager

    job = create("sample_family")
    family = family_of(job)
    JobManager().cancel_job(job.pk, "enough")
    wait_for(lambda: ended(job), "the end")
    assert (status_of(job), reload(job).cancel_reason) == (Status.CANCELLED, "enough")
    assert all_gone(family)


def test_f15_poison(cluster):
    """A type that takes its process down each time is given up after three, however many retries it has."""
    job = create("sample_segfault", max_retries=50)
    others = [create(parameters={"total": 1}) for _ in range(8)]
    wait_for(lambda: ended(job, *others), "the end")
    row = reload(job)
    assert (row.status, row.error_kind, row.attempt) == (Status.FAILED, Kind.LOST, 3)
    assert "SIGSEGV" in row.error_message
    assert "3 times in a row" in row.error_advice
    assert {status_of(other) for other in others} == {Status.COMPLETED}


@pytest.mark.parametrize("victim", ["child", "worker", "cluster"])
def test_f29_what_a_handler_started_goes_with_it(cluster, victim):
    """Its forks, in whatever group or session, and its threads, whoever is killed."""
    job = create("sample_family", max_retries=0)
    family = family_of(job)
    worker = psutil.Process(WorkerProcess.objects.get(name=reload(job).worker_id).pid)
    {"child": psutil.Process(child_of(job)), "worker": worker, "cluster": psutil.Process(cluster.process.pid)}[victim].kill()
    wait_for(lambda: all_gone(family), "all of its family to be gone")
    if victim == "child":
        wait_for(lambda: status_of(job) in ENDED, "the end")
