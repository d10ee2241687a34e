"""ResourceManager: the machine's limits and what the queue holds."""

import os
from datetime import timedelta

from django.utils import timezone

from jobs.errors import CpuTimeExceeded, MemoryLimitExceeded
from jobs.manager import JobManager
from jobs.models import WorkerProcess
from jobs.resources import CpuMeter, ResourceManager, TreeSampler, Usage, live_workers
from jobs.tests.fixtures import reload, wait_for


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
