"""What is slow now: why jobs are held, and how long those of each type wait and run, against the week before."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from django.utils import timezone

from jobs import registry, timing
from jobs.failures import MASK, VARIES
from jobs.models import JobAttempt
from jobs.queries import JobQuerySet
from jobs.states import Status

LOOKED_AT = 300  # of a type, the latest jobs in each span
NEEDED = 5  # fewer are not compared
SLOWER = 1.5  # times what it was
HELD_LOOKED_AT = 5_000
ATTEMPTS_LOOKED_AT = 2_000  # of jobs that ended in the last 24 hours
SHOWN = 10


@dataclass(frozen=True)
class Span:
    """Seconds, of jobs that completed in their first attempt: from creation to start, and from start to end."""

    jobs: int
    wait_p50: float
    wait_p95: float
    run_p50: float
    run_p95: float


@dataclass(frozen=True)
class Pace:
    job_type: str
    label: str
    now: Span  # the last 24 hours
    before: Span | None  # the seven days before these

    @property
    def is_slower(self) -> bool:
        return self.before is not None and self.now.run_p50 > SLOWER * max(self.before.run_p50, 1.0)

    @property
    def waits_longer(self) -> bool:
        return self.before is not None and self.now.wait_p95 > SLOWER * max(self.before.wait_p95, 5.0)


def held_for(visible: JobQuerySet) -> list[tuple[str, int]]:
    """(reason without what varies, jobs that it holds), most first."""
    reasons = visible.waiting().exclude(hold_reason="").order_by().values_list("hold_reason", flat=True)[:HELD_LOOKED_AT]
    return Counter(VARIES.sub(MASK, reason) for reason in reasons).most_common(8)


Slow = TypeVar("Slow", "SlowHost", "SlowStage")


@dataclass
class SlowHost:
    """Requests to a host and the seconds that they took, in all and each."""

    name: str
    requests: int = 0
    seconds: float = 0.0
    job_ids: set[UUID] = field(default_factory=set)

    @property
    def mean_s(self) -> float:
        return self.seconds / self.requests


@dataclass
class SlowStage:
    """A stage of a type of job: the seconds of each of its runs."""

    job_type: str
    label: str
    name: str
    runs: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(self.runs)

    @property
    def p50(self) -> float:
        return share(self.runs, 50)

    @property
    def p95(self) -> float:
        return share(self.runs, 95)


def slowest(visible: JobQuerySet) -> tuple[list[SlowHost], list[SlowStage], int]:
    """What took most time, of the jobs that ended in the last 24 hours: hosts, and stages by type, most seconds first; and of how
    many jobs, the latest ATTEMPTS_LOOKED_AT at most."""
    ended = visible.filter(completed_at__gte=timezone.now() - timedelta(days=1)).order_by("-completed_at")
    recent = list(ended.values_list("pk", flat=True)[:ATTEMPTS_LOOKED_AT])
    hosts: dict[str, SlowHost] = {}
    stages: dict[tuple[str, str], SlowStage] = {}
    attempts = JobAttempt.objects.filter(job__in=recent).exclude(times={}).order_by().select_related("job").defer("samples", "process")
    for attempt in attempts:
        for name, requests, seconds in attempt.times.get("hosts", []):
            host = hosts.setdefault(name, SlowHost(name))
            host.requests, host.seconds = host.requests + requests, host.seconds + seconds
            host.job_ids.add(attempt.job_id)
        for stage in timing.stages(attempt):
            job_type = attempt.job.job_type
            kind = registry.find(job_type)
            known = stages.setdefault((job_type, stage.name), SlowStage(job_type, kind.label if kind else job_type, stage.name))
            known.runs.append(stage.seconds)
    return most_seconds(hosts.values()), most_seconds(stages.values()), len(recent)


def most_seconds(found: Iterable[Slow]) -> list[Slow]:
    return sorted(found, key=lambda one: -one.seconds)[:SHOWN]


def paces(visible: JobQuerySet) -> list[Pace]:
    """Types that completed enough jobs in the last day; those that got slower first, then by how long they run."""
    now = timezone.now()
    day, week = now - timedelta(days=1), now - timedelta(days=8)
    found = []
    for kind in registry.all_types():
        today = span(visible, kind.name, day, now)
        if today is not None:
            found.append(Pace(kind.name, kind.label, today, span(visible, kind.name, week, day)))
    return sorted(found, key=lambda pace: (not (pace.is_slower or pace.waits_longer), -pace.now.run_p50))


def span(visible: JobQuerySet, job_type: str, begin: datetime, end: datetime) -> Span | None:
    rows = visible.filter(job_type=job_type, status=Status.COMPLETED, attempt=1, created_at__gte=begin, created_at__lt=end)
    times = rows.order_by("-created_at").values_list("created_at", "started_at", "completed_at")[:LOOKED_AT]
    waits, runs = [], []
    for created, started, ended in times:
        if started and ended:
            waits.append(max(0.0, (started - created).total_seconds()))
            runs.append(max(0.0, (ended - started).total_seconds()))
    if len(runs) < NEEDED:
        return None
    return Span(len(runs), share(waits, 50), share(waits, 95), share(runs, 50), share(runs, 95))


def share(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of them do not exceed (the nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
