"""ResourceManager: the machine's limits and what the queue holds."""

import os
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest
from django.utils import timezone

from jobs import conf, queue, registry, resources
from jobs.errors import CpuTimeExceeded, Kind, MemoryLimitExceeded
from jobs.manager import JobManager
from jobs.models import Job, QueuePause, WorkerProcess
from jobs.resources import CpuMean, CpuMeter, ResourceManager, TreeSampler, Usage, live_workers
from jobs.states import Priority, Status
from jobs.tests.fixtures import create, reload, wait_for

HOST = os.uname().nodename


def test_the_defaults_are_those_of_the_specification():
    manager = ResourceManager()
    assert (manager.max_concurrent_jobs, manager.memory_limit_mb, manager.cpu_threshold) == (10, 2048, 80.0)


def test_no_more_jobs_start_than_may_run_at_once(job):
    JobManager().start([job.pk], worker_id=f"{os.uname().nodename}-1", host=os.uname().nodename)
    assert ResourceManager(max_concurrent_jobs=2).can_start_job("sample_steps") is True
    assert ResourceManager(max_concurrent_jobs=1).can_start_job("sample_steps") is False


def test_nothing_is_said_before_a_first_measurement(running_job):
    assert ResourceManager().monitor_resource_usage(running_job.pk) is None
    JobManager().record_samples(running_job.pk, attempt=1, memory_usage_mb=12.5, memory_peak_mb=20.0, cpu_usage_percent=7.0)
    usage = ResourceManager().monitor_resource_usage(running_job.pk)
    assert usage == {"memory_usage_mb": 12.5, "memory_peak_mb": 20.0, "cpu_usage_percent": 7.0}


def test_a_measurement_is_not_a_new_revision(running_job):
    JobManager().record_samples(running_job.pk, attempt=1, memory_usage_mb=1.0)
    assert reload(running_job).revision == running_job.revision


def test_the_limit_of_a_job_counts_before_that_of_the_machine(running_job):
    running_job.memory_limit_mb = 64
    assert isinstance(ResourceManager().limit_broken(running_job, Usage(65, 0, 0)), MemoryLimitExceeded)
    running_job.memory_limit_mb = None
    assert ResourceManager().limit_broken(running_job, Usage(65, 0, 1000)) is None
    running_job.cpu_limit_s = 10
    assert isinstance(ResourceManager().limit_broken(running_job, Usage(65, 0, 10.5)), CpuTimeExceeded)


def test_memory_that_is_taken_is_measured():
    sampler = TreeSampler(os.getpid(), 0.0)
    before = sampler.sample()
    kept = b"x" * (64 << 20)
    after = sampler.sample()
    assert 60 <= after.memory_mb - before.memory_mb <= 70
    del kept


def test_a_process_that_is_gone_has_no_usage():
    assert TreeSampler(2**22 + 1, 0.0).sample() is None


def test_cpu_is_a_measurement_from_the_first_look():
    meter = CpuMeter()
    assert wait_for(meter.read, "a share of CPU above 0", 10) <= 100


def test_a_worker_that_was_not_seen_for_long_does_not_count(db, job):
    now = timezone.now()
    WorkerProcess.objects.create(name="a-1", queue_name="default", host="a", pid=1, cluster=job.pk, seen_at=now)
    WorkerProcess.objects.create(name="a-2", queue_name="default", host="a", pid=2, cluster=job.pk, seen_at=now - timedelta(seconds=11))
    assert [worker.name for worker in live_workers("default")] == ["a-1"]


class TestAdmission:
    """What may start on a machine, and why not."""

    @pytest.fixture(autouse=True)
    def ordinary_machine(self, monkeypatch):
        monkeypatch.setitem(conf.DEFAULTS, "disk_floor_mb", 1)
        monkeypatch.setitem(conf.DEFAULTS, "memory_floor_mb", 1)

    def here(self, **options):
        job = create(**options)
        return JobManager().start([job.pk], worker_id=f"{HOST}-1", host=HOST)

    def test_the_last_place_is_for_high_and_urgent(self, db):
        self.here()
        found = ResourceManager(max_concurrent_jobs=3).admission("default", HOST)
        assert (found.places, found.least_priority) == (2, Priority.LOW)
        self.here()
        assert ResourceManager(max_concurrent_jobs=3).admission("default", HOST).least_priority == Priority.HIGH
        assert ResourceManager(max_concurrent_jobs=3).can_start_job("sample_steps") is False
        assert ResourceManager(max_concurrent_jobs=2).admission("default", HOST).least_priority == Priority.LOW  # too few to keep one
        assert ResourceManager(max_concurrent_jobs=2).admission("default", HOST).closed

    def test_a_type_at_its_limit_blocks_nobody_behind_it(self, db, monkeypatch):
        kind = replace(registry.get("sample_steps"), at_once=1)
        monkeypatch.setitem(registry._types, "sample_steps", kind)
        self.here()
        waiting, other = create(), create("sample_items")
        found = ResourceManager().admission("default", HOST)
        assert found.reason_for("sample_steps", None, Priority.URGENT) == "1 of 1 jobs of this type run already"
        assert queue.next_candidates("default", timezone.now(), found) == [other.pk]
        assert waiting.pk

    def test_a_person_at_the_quota_blocks_nobody_else(self, analyst, other, monkeypatch):
        monkeypatch.setitem(conf.DEFAULTS, "running_per_user_max", 1)
        self.here(created_by=analyst)
        create(created_by=analyst)
        theirs = create(created_by=other)
        found = ResourceManager().admission("default", HOST)
        assert found.reason_for("sample_steps", analyst.pk, Priority.NORMAL) == "You already run 1 of 1"
        assert queue.next_candidates("default", timezone.now(), found) == [theirs.pk]

    def test_a_hot_machine_holds_all_but_urgent_and_only_while_something_runs(self, db):
        assert not ResourceManager().admission("default", HOST, hot=True).busy
        self.here()
        found = ResourceManager().admission("default", HOST, hot=True)
        assert found.reason_for("sample_steps", None, Priority.HIGH) == "Waits for the machine: its CPU is above 80 %"
        assert found.reason_for("sample_steps", None, Priority.URGENT) == ""

    def test_what_runs_elsewhere_takes_no_place_here(self, db):
        job = create()
        JobManager().start([job.pk], worker_id="elsewhere-1", host="elsewhere")
        assert ResourceManager(max_concurrent_jobs=1).admission("default", HOST).places == 1

    def test_short_memory_counts_what_running_jobs_are_yet_to_take(self, db, monkeypatch):
        monkeypatch.setattr(resources, "expected_memory_mb", lambda job_type: 1000.0)
        free = psutil.virtual_memory().available / resources.MB
        monkeypatch.setitem(conf.DEFAULTS, "memory_floor_mb", free - 1500)
        assert ResourceManager().can_start_job("sample_steps") is True
        self.here()  # it has taken nothing yet, but is likely to take 1,000 MB
        reason = ResourceManager().admission("default", HOST).types["sample_steps"]
        assert reason.startswith("Waits for memory: 1.0 GB needed")

    def test_the_memory_of_a_type_is_that_of_its_last_jobs(self, db):
        resources._expected.clear()
        assert resources.expected_memory_mb("sample_steps") == conf.get("memory_guess_mb")
        for peak in (100.0, 300.0):
            Job.objects.filter(pk=create().pk).update(memory_peak_mb=peak)
        resources._expected.clear()
        assert resources.expected_memory_mb("sample_steps") == 300.0
        resources._expected.clear()

    def test_a_paused_queue_or_type(self, db):
        QueuePause.objects.create(scope="type", name="sample_steps", reason="broken")
        assert ResourceManager().can_start_job("sample_steps") is False
        assert ResourceManager().can_start_job("sample_items") is True
        QueuePause.objects.create(scope="queue", name="heavy")
        assert ResourceManager().can_start_job("sample_items") is True
        assert ResourceManager().can_start_job("sample_heavy") is False


def test_a_mean_of_cpu_with_hysteresis():
    """Above 80 % over 15 s it is hot, until it is below 70 %; a window that is not full says nothing."""
    mean, busy, now = CpuMean(), 0.0, 0.0

    def run(percent, seconds):
        nonlocal busy, now
        for _ in range(seconds):
            now, busy = now + 1, busy + percent / 100
            mean.look(now, busy, now)
        return mean.hot

    assert run(100, 14) is False
    assert run(100, 3) is True
    assert run(75, 20) is True
    assert run(60, 20) is False
    assert run(75, 20) is False
    assert run(60, 20) is False
    assert run(100, 4) is False  # a peak
    assert run(100, 12) is True


def test_from_outside_a_job_over_its_limit_is_ended(running_job):
    assert ResourceManager().enforce_resource_limits(running_job.pk) is False
    JobManager().record_samples(running_job.pk, attempt=1, memory_usage_mb=3000.0, cpu_usage_percent=1.0)
    assert ResourceManager().enforce_resource_limits(running_job.pk) is True
    assert (reload(running_job).status, reload(running_job).error_kind) == (Status.FAILED, Kind.LIMIT)
    assert ResourceManager().enforce_resource_limits(running_job.pk) is False
