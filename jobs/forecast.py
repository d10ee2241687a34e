"""What the history of a job type says: how long a step usually takes, and when a waiting job is likely to start."""

import heapq
import statistics
import time
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q
from django.utils import timezone

from jobs.models import Job
from jobs.resources import live_workers
from jobs.states import Status

JOBS_LOOKED_AT = 50  # of a type, the latest that completed
JOBS_NEEDED = 3  # fewer say nothing
LOOKED_UP_EACH_S = 60.0
PLAYED_THROUGH = 2_000  # jobs in front; of more only their mean counts


@dataclass(frozen=True)
class Usual:
    """Medians of the latest completed jobs of a type, in seconds."""

    job_s: float
    step_s: float

    def of(self, job: Job) -> float:
        """Seconds that a job is likely to take: by its steps where they are known."""
        return self.step_s * job.total_steps if job.total_steps else self.job_s


def usual(job_type: str) -> Usual | None:
    """None where too few jobs of the type have completed."""
    rows = Job.objects.filter(job_type=job_type, status=Status.COMPLETED).order_by("-created_at")
    ran = [
        (max(0.0, (ended - started).total_seconds()), max(steps, 1))
        for started, ended, steps in rows.values_list("started_at", "completed_at", "completed_steps")[:JOBS_LOOKED_AT]
        if started and ended
    ]
    if len(ran) < JOBS_NEEDED:
        return None
    return Usual(statistics.median(s for s, _ in ran), statistics.median(s / steps for s, steps in ran))


_known: dict[str, tuple[float, Usual | None]] = {}


def usual_lately(job_type: str) -> Usual | None:
    """As above, looked up once a minute: for sentences that are made many times a second."""
    at, known = _known.get(job_type, (float("-inf"), None))
    if time.monotonic() - at > LOOKED_UP_EACH_S:
        known = usual(job_type)
        _known[job_type] = (time.monotonic(), known)
    return known


@dataclass(frozen=True)
class Place:
    """Where a job stands in its queue: 1 is next. `starts_in_s` is None where nothing is known."""

    number: int
    of: int
    starts_in_s: float | None


def place_of(job: Job, now: datetime | None = None) -> Place | None:
    """By priority and time; fairness between people may move it. None for a job that does not simply wait for a worker."""
    now = now or timezone.now()
    if job.status != Status.PENDING or job.hold_reason or job.run_after > now:
        return None
    due = Job.objects.waiting().due(now).filter(queue_name=job.queue_name).order_by()
    before = due.filter(
        Q(priority__gt=job.priority) | Q(priority=job.priority, run_after__lt=job.run_after)
        | Q(priority=job.priority, run_after=job.run_after, pk__lt=job.pk)
    )  # fmt: skip
    counts = dict(before.values_list("job_type").annotate(Count("pk")))
    return Place(sum(counts.values()) + 1, due.count(), starts_in_s(job.queue_name, counts, now))


def starts_in_s(queue_name: str, before: dict[str, int], now: datetime) -> float | None:
    """Seconds until a worker is free after the jobs in front; None if there is no worker or a type without history."""
    workers = live_workers(queue_name).count()
    running = list(Job.objects.running().filter(queue_name=queue_name))
    known = {job_type: usual(job_type) for job_type in {*before, *(job.job_type for job in running if job.estimated_duration is None)}}
    if not workers or None in known.values():
        return None
    free = [0.0] * max(0, workers - len(running))
    for job in running:
        typical = known.get(job.job_type)
        lasts = job.estimated_duration if typical is None else typical.of(job)
        free.append(max(0.0, (lasts or 0.0) - (now - (job.started_at or now)).total_seconds()))
    free = sorted(free)[:workers]
    lasting = [(kind.job_s, count) for job_type, count in before.items() if (kind := known[job_type]) is not None]
    if sum(before.values()) > PLAYED_THROUGH:
        return (sum(free) + sum(seconds * count for seconds, count in lasting)) / workers
    for seconds, count in lasting:
        for _ in range(count):
            heapq.heapreplace(free, free[0] + seconds)
    return free[0]
