"""ResourceManager: what the machine and each job use, and what the queue holds.

Memory of a job is the USS of its process tree: what would be freed if it ended. Libraries shared with
the worker do not count, so at the fork it is about nothing. The same
figure is shown and limited.
"""

import os
import shutil
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psutil
from django.conf import settings
from django.db.models import Count, Min, Q
from django.utils import timezone

from jobs import conf, registry, words
from jobs.errors import CpuTimeExceeded, JobError, MemoryLimitExceeded
from jobs.manager import JobManager
from jobs.models import Job, QueuePause, WorkerProcess
from jobs.processes import descendants_of, kill_session
from jobs.states import ENDED, Priority

MB = 1024 * 1024


@dataclass
class Usage:
    memory_mb: float
    cpu_percent: float  # of one core, since the sample before
    cpu_seconds: float


@dataclass
class TreeSampler:
    """Samples the process tree of one child. CPU of processes that came and went in between is not seen.

    With a `reaper`, the process that adopts the child's orphans, those count too.
    """

    pid: int
    at: float  # time.monotonic() of the sample before, at first of the start
    reaper: int = 0
    _cpu: dict[int, float] = field(default_factory=dict)
    _total: float = 0.0
    _root: psutil.Process | None = None

    def resident_mb(self) -> float:
        """Resident size of the child alone: cheap, for a look between two measurements. 0 when it is gone."""
        try:
            self._root = self._root or psutil.Process(self.pid)
            return self._root.memory_info().rss / MB
        except psutil.Error:
            return 0.0

    def sample(self) -> Usage | None:
        """None when the process is gone."""
        try:
            self._root = self._root or psutil.Process(self.pid)
        except psutil.Error:
            return None
        memory = used = 0.0
        for pid in descendants_of(self.reaper) if self.reaper else [self.pid, *descendants_of(self.pid)]:
            try:
                process = self._root if pid == self.pid else psutil.Process(pid)
                with process.oneshot():
                    memory += process.memory_full_info().uss
                    times = process.cpu_times()
            except psutil.Error:
                if pid == self.pid:
                    return None
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
    """CPU in percent of all cores, memory in GB, and the limits from which jobs are held."""
    memory = psutil.virtual_memory()
    return {
        "cpu_percent": _cpu.read(),
        "cpu_limit_percent": float(conf.get("cpu_threshold")),
        "memory_limit_gb": (memory.total - conf.get("memory_floor_mb") * MB) / 1024**3,
        "memory_used_gb": (memory.total - memory.available) / 1024**3,
        "memory_total_gb": memory.total / 1024**3,
    }


@dataclass
class CpuMean:
    """The machine's CPU as a mean over a window, and whether it is too much: with hysteresis, so that it does not flutter.

    Fed once a tick with (time.monotonic(), busy seconds, all seconds); a window that is not yet full says nothing.
    """

    looks: deque[tuple[float, float, float]] = field(default_factory=deque)
    hot: bool = False

    def look(self, now: float, busy: float, total: float) -> bool:
        window, threshold = conf.get("cpu_window_s"), conf.get("cpu_threshold")
        self.looks.append((now, busy, total))
        while len(self.looks) > 2 and now - self.looks[1][0] >= window:
            self.looks.popleft()
        since, busy_then, total_then = self.looks[0]
        if now - since < window or total <= total_then:
            return self.hot
        percent = 100.0 * (busy - busy_then) / (total - total_then)
        self.hot = percent > (threshold - conf.get("cpu_hysteresis") if self.hot else threshold)
        return self.hot


@dataclass
class Admission:
    """What may start. `types` and `users` map what may not to the reason; `reason` stops everything."""

    places: int = 1
    least_priority: int = Priority.LOW
    reason: str = ""
    busy: str = ""  # the reason for all that is not urgent
    types: dict[str, str] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        return self.places <= 0 or bool(self.reason)

    def reason_for(self, job_type: str, creator: int | None, priority: int) -> str:
        """Why such a job is held, or '' when it only waits for its turn."""
        if self.reason:
            return self.reason
        if self.busy and priority < Priority.URGENT:
            return self.busy
        return self.types.get(job_type, "") or (self.users.get(creator, "") if creator is not None else "")


OPEN_DOORS = Admission()
_expected: dict[str, tuple[float, float]] = {}


def expected_memory_mb(job_type: str) -> float:
    """The largest peak of the last jobs of this type; a guess before there was one. Looked up once a minute."""
    now = time.monotonic()
    at, value = _expected.get(job_type, (float("-inf"), 0.0))
    if now - at > 60:
        recent = Job.objects.filter(job_type=job_type, memory_peak_mb__isnull=False).order_by("-created_at")
        peaks = [peak or 0.0 for peak in recent.values_list("memory_peak_mb", flat=True)[:20]]
        value = max(peaks, default=float(conf.get("memory_guess_mb")))
        _expected[job_type] = (now, value)
    return value


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
        """Whether a job of this type, of ordinary priority, could start on this machine now."""
        kind = registry.find(job_type)
        admission = self.admission(kind.queue if kind else "default", os.uname().nodename)
        return not (admission.closed or admission.least_priority > Priority.NORMAL or job_type in admission.types)

    def admission(self, queue: str, host: str, *, hot: bool = False) -> "Admission":
        """What may start now in `queue` on `host`, and for what may not, why.

        `hot`: the mean CPU of the machine is above the threshold (see CpuMean).
        """
        rows = list(Job.objects.running().values_list("job_type", "created_by_id", "worker_id", "memory_usage_mb"))
        here = [row for row in rows if row[2].rpartition("-")[0] == host]
        found = Admission(places=self.max_concurrent_jobs - len(here))
        for scope, name, reason in QueuePause.objects.values_list("scope", "name", "reason"):
            text = f"Paused by an administrator: {reason}" if reason else "Paused by an administrator"
            if scope == QueuePause.Scope.TYPE:
                found.types[name] = text
            elif name == queue:
                found.reason = text
        self._check_machine(found, here, hot)
        self._check_counts(found, rows)
        if self.max_concurrent_jobs >= 3 and found.places <= conf.get("reserved_slots"):
            found.least_priority = max(found.least_priority, Priority.HIGH)
        return found

    def _check_machine(self, found: "Admission", here: list[tuple], hot: bool) -> None:
        free_disk = shutil.disk_usage(settings.STATE_DIR).free / MB
        if free_disk < conf.get("disk_floor_mb"):
            found.reason = f"Waits for disk space: {words.megabytes(free_disk)} free, {words.megabytes(conf.get('disk_floor_mb'))} must be"
        if hot and here and not found.reason:
            found.least_priority = Priority.URGENT
            found.busy = f"Waits for the machine: its CPU is above {self.cpu_threshold:.0f} %"
        # what running jobs are likely to take yet is as good as taken
        promised = sum(max(0.0, expected_memory_mb(row[0]) - (row[3] or 0.0)) for row in here)
        free = psutil.virtual_memory().available / MB - promised
        for kind in registry.all_types():
            needed = expected_memory_mb(kind.name)
            if free - (needed if here else 0.0) < conf.get("memory_floor_mb"):
                shown = words.megabytes(max(0.0, free))
                found.types.setdefault(kind.name, f"Waits for memory: {words.megabytes(needed)} needed, {shown} free")

    def _check_counts(self, found: "Admission", rows: list[tuple]) -> None:
        types, users = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        for name, running in types.items():
            kind = registry.find(name)
            if kind and kind.at_once and running >= kind.at_once:
                found.types.setdefault(name, f"{running:,} of {kind.at_once:,} jobs of this type run already")
        most = conf.get("running_per_user_max")
        if most:
            found.users = {user: f"You already run {n:,} of {most:,}" for user, n in users.items() if user is not None and n >= most}

    def enforce_resource_limits(self, job_id: uuid.UUID) -> bool:
        """End a running job whose last measurement is over one of its limits; True if it was ended.

        The worker does so by itself, many times a second; this is for whoever looks from outside.
        """
        job = Job.objects.running(job_id).first()
        if job is None or job.memory_usage_mb is None:
            return False
        row = job.attempts.get(number=job.attempt)
        error = self.limit_broken(job, Usage(job.memory_usage_mb, job.cpu_usage_percent or 0.0, row.cpu_seconds or 0.0))
        if error is None or not JobManager().mark_failed(job_id, error, attempt=job.attempt, kind=error.kind, advice=error.advice):
            return False
        kill_session(row.process)
        return True

    def monitor_resource_usage(self, job_id: uuid.UUID) -> dict[str, Any] | None:
        """The last measurement of a job, by its worker: memory and CPU now, peak; None before the first."""
        row = Job.objects.filter(pk=job_id).values("memory_usage_mb", "memory_peak_mb", "cpu_usage_percent").first()
        return dict(row) if row and row["memory_usage_mb"] is not None else None

    def limit_broken(self, job: Job, usage: Usage) -> JobError | None:
        """The error that ends a job with this usage, or None while it keeps within its limits."""
        limit = job.memory_limit_mb or self.memory_limit_mb
        if usage.memory_mb > limit:
            return MemoryLimitExceeded(limit, usage.memory_mb)
        if job.cpu_limit_s and usage.cpu_seconds > job.cpu_limit_s:
            return CpuTimeExceeded(job.cpu_limit_s)
        return None

    def get_queue_statistics(self, user: Any = None) -> dict[str, Any]:
        """What waits, runs and ended in the last 24 hours; with `user`, of what that person may see."""
        visible = Job.objects.all() if user is None else Job.objects.visible_to(user)
        now = timezone.now()
        day = visible.filter(completed_at__gte=now - timedelta(hours=24))
        waiting = visible.waiting().filter(hold_reason="", run_after__lte=now)
        by_priority = {
            row["priority"]: row for row in waiting.order_by().values("priority").annotate(count=Count("pk"), oldest=Min("run_after"))
        }
        # not grouped: SQLite would walk all jobs in the order of their status, to save itself the sorting of a day's
        ends = day.order_by().aggregate(**{status.value: Count("pk", filter=Q(status=status)) for status in ENDED})
        return {
            "running": visible.running().count(),
            "running_max": self.max_concurrent_jobs,
            "stalled": visible.running().filter(stalled_at__isnull=False).count(),
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
            "ended_24h": ends,
            "workers": live_workers().count(),
            "machine": machine(),
        }


def age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())


def live_workers(queue: str | None = None) -> Any:
    """Workers seen lately; a cluster that died stops being seen."""
    now, gone = timezone.now(), timedelta(seconds=conf.get("worker_gone_s"))
    rows = WorkerProcess.objects.filter(seen_at__range=(now - gone, now + gone))
    return rows if queue is None else rows.filter(queue_name=queue)


def unserved_queues(queues: set[str]) -> set[str]:
    """Those of `queues` that no live worker serves."""
    return queues - set(live_workers().values_list("queue_name", flat=True).distinct())
