"""ResourceManager: what the machine and each job use, and what the queue holds.

Memory of a job is the USS of its process tree: what would be freed if it ended. Libraries shared with
the worker do not count, so at the fork it is about nothing. The same
figure is shown and limited.
"""

import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psutil
from django.db.models import Count, Min, Q
from django.utils import timezone

from jobs import conf
from jobs.models import Job, WorkerProcess
from jobs.states import Priority, Status

MB = 1024 * 1024


@dataclass
class Usage:
    memory_mb: float
    cpu_percent: float  # of one core, since the sample before
    cpu_seconds: float


@dataclass
class TreeSampler:
    """Samples the process tree of one child. CPU of processes that came and went in between is not seen."""

    pid: int
    at: float  # time.monotonic() of the sample before, at first of the start
    _cpu: dict[int, float] = field(default_factory=dict)
    _total: float = 0.0

    def sample(self) -> Usage | None:
        """None when the process is gone."""
        try:
            root = psutil.Process(self.pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.Error:
            return None
        memory = used = 0.0
        for process in tree:
            try:
                with process.oneshot():
                    memory += process.memory_full_info().uss
                    times = process.cpu_times()
            except psutil.Error:
                continue
            spent = times.user + times.system
            used += spent - self._cpu.get(process.pid, 0.0)
            self._cpu[process.pid] = spent
        now = time.monotonic()
        elapsed, self.at = now - self.at, now
        self._total += used
        return Usage(
            memory_mb=memory / MB,
            cpu_percent=100.0 * used / elapsed if elapsed > 0 else 0.0,
            cpu_seconds=self._total,
        )


@dataclass
class CpuMeter:
    """CPU of the machine between two looks at least a second apart; for all threads of a process."""

    at: float = float("-inf")
    times: tuple[float, float] = (0.0, 0.0)  # busy and all, in seconds since the boot
    percent: float = 0.0

    def read(self) -> float:
        now = time.monotonic()
        if now - self.at > 60:  # too long ago to speak of now: begin anew, and wait for a first value
            self.at, self.times = now, cpu_seconds()
            time.sleep(0.1)
        elif now - self.at < 1:
            return self.percent
        busy, total = cpu_seconds()
        if total > self.times[1]:
            self.percent = 100.0 * (busy - self.times[0]) / (total - self.times[1])
        self.at, self.times = now, (busy, total)
        return self.percent


def cpu_seconds() -> tuple[float, float]:
    # psutil.cpu_percent keeps its last look per thread, and a web process has a new thread per request
    times = psutil.cpu_times()
    total = sum(times[:8])  # guest times, the ninth and tenth, are part of user and nice
    return total - times.idle - getattr(times, "iowait", 0.0), total


_cpu = CpuMeter()


def machine() -> dict[str, float]:
    """CPU in percent of all cores, memory in GB."""
    memory = psutil.virtual_memory()
    return {
        "cpu_percent": _cpu.read(),
        "memory_used_gb": (memory.total - memory.available) / 1024**3,
        "memory_total_gb": memory.total / 1024**3,
    }


class ResourceManager:
    """Limits of the machine and of each job. The defaults are those of `jobs.conf`."""

    def __init__(
        self,
        max_concurrent_jobs: int | None = None,
        memory_limit_mb: int | None = None,
        cpu_threshold: float | None = None,
    ) -> None:
        self.max_concurrent_jobs = max_concurrent_jobs or conf.get("max_concurrent_jobs")
        self.memory_limit_mb = memory_limit_mb or conf.get("memory_limit_mb")
        self.cpu_threshold = cpu_threshold or conf.get("cpu_threshold")

    def can_start_job(self, job_type: str) -> bool:
        """Whether there is a free place for one more job."""
        return Job.objects.running().count() < self.max_concurrent_jobs

    def monitor_resource_usage(self, job_id: uuid.UUID) -> dict[str, Any] | None:
        """The last measurement of a job, by its worker: memory and CPU now, peak; None before the first."""
        row = Job.objects.filter(pk=job_id).values("memory_usage_mb", "memory_peak_mb", "cpu_usage_percent").first()
        return dict(row) if row and row["memory_usage_mb"] is not None else None

    def over_limit(self, job: Job, usage: Usage) -> bool:
        return usage.memory_mb > (job.memory_limit_mb or self.memory_limit_mb)

    def get_queue_statistics(self, user: Any = None) -> dict[str, Any]:
        """What waits, runs and ended in the last 24 hours; with `user`, of what that person may see."""
        visible = Job.objects.all() if user is None else Job.objects.visible_to(user)
        now = timezone.now()
        day = visible.filter(completed_at__gte=now - timedelta(hours=24))
        waiting = visible.waiting().filter(hold_reason="", run_after__lte=now)
        by_priority = {
            row["priority"]: row for row in waiting.order_by().values("priority").annotate(count=Count("pk"), oldest=Min("run_after"))
        }
        ends = day.order_by().values_list("status").annotate(Count("pk"))
        return {
            "running": visible.running().count(),
            "running_max": self.max_concurrent_jobs,
            "waiting": sum(row["count"] for row in by_priority.values()),
            "oldest_waiting_s": age(min((r["oldest"] for r in by_priority.values()), default=None), now),
            "held": visible.waiting().filter(~Q(hold_reason="")).count(),
            "retrying": visible.waiting().filter(run_after__gt=now).count(),
            "by_priority": [
                {
                    "priority": Priority(value).name,
                    "label": Priority(value).label,
                    "count": by_priority[value]["count"] if value in by_priority else 0,
                    "oldest_waiting_s": age(by_priority[value]["oldest"], now) if value in by_priority else None,
                }
                for value in sorted(Priority.values, reverse=True)
            ],
            "ended_24h": {status.value: 0 for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)} | dict(ends),
            "workers": live_workers().count(),
            "machine": machine(),
        }


def age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())


def live_workers(queue: str | None = None) -> Any:
    """Workers seen lately; a cluster that died stops being seen."""
    fresh = timezone.now() - timedelta(seconds=conf.get("worker_gone_s"))
    rows = WorkerProcess.objects.filter(seen_at__gte=fresh)
    return rows if queue is None else rows.filter(queue_name=queue)


def unserved_queues(queues: set[str]) -> set[str]:
    """Those of `queues` that no live worker serves."""
    return queues - set(live_workers().values_list("queue_name", flat=True).distinct())
