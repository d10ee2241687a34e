"""Where the time of a job goes: what it waits for before it runs, and what it does while it runs.

Waiting is counted in the row of the job, by the same statements that change why it waits. Running is counted in the process
of the job, by a Clock, and kept with the attempt.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from jobs import sql
from jobs.models import Job, JobAttempt
from jobs.states import Status

# What a handler says that it does; all that it does not speak of is processing.
PHASES = ("polite", "network", "writing", "processing")
HOSTS_KEPT = 20
STAGES_MAX = 50


def until(now: datetime) -> dict[str, sql.Expr]:
    """Changes that count the waiting of a job up to now: as held while it has a reason for that, as queued otherwise.

    `waiting_since` lies ahead while a next try is not due yet; that time is neither.
    """
    at = now.timestamp()
    passed = "CASE WHEN waiting_since < %s THEN %s - waiting_since ELSE 0 END"
    return {
        "queued_s": sql.Expr(f"CASE WHEN hold_reason = '' THEN queued_s + {passed} ELSE queued_s END", (at, at)),
        "held_s": sql.Expr(f"CASE WHEN hold_reason <> '' THEN held_s + {passed} ELSE held_s END", (at, at)),
        "waiting_since": sql.Expr("CASE WHEN waiting_since > %s THEN waiting_since ELSE %s END", (at, at)),
    }


def shared_out(spent: Sequence[float], open_now: Sequence[int], seconds: float) -> list[float]:
    """`spent` with so many seconds more, in parts as often as each phase is open."""
    share = seconds / sum(open_now) if any(open_now) else 0.0
    return [so_far + share * count for so_far, count in zip(spent, open_now, strict=True)]


class Clock:
    """Shares out the time of a process among what it does: each moment belongs to the phases that are open then, in equal parts,
    so that the parts add up to the time that passed. May be used from any thread or event loop.

    `told` gets the clock after every change.
    """

    def __init__(self, told: Any = None) -> None:
        self.spent = [0.0] * len(PHASES)
        self.open = [0] * len(PHASES)
        self.at = time.monotonic()  # until when `spent` was counted
        self.hosts: dict[str, list[float]] = {}
        self._told = told
        self._lock = threading.Lock()

    @contextmanager
    def spending(self, phase: str, host: str = "") -> Iterator[None]:
        """`host` is counted with its requests and their seconds. Raises ValueError for an unknown phase."""
        if phase not in PHASES:
            raise ValueError(f"There is no phase {phase!r}. Known are: {', '.join(PHASES)}.")
        n, began = PHASES.index(phase), time.monotonic()
        self._change(n, 1)
        try:
            yield
        finally:
            self._change(n, -1)
            if host:
                with self._lock:
                    known = self.hosts.setdefault(host, [0, 0.0])
                    known[0] += 1
                    known[1] += time.monotonic() - began

    def _change(self, n: int, by: int) -> None:
        with self._lock:
            now = time.monotonic()
            self.spent = shared_out(self.spent, self.open, now - self.at)
            self.at = now
            self.open[n] += by
            if self._told:
                self._told(self)

    def slowest_hosts(self) -> list[list[Any]]:
        """[[host, requests, seconds], …] of those that took longest."""
        with self._lock:
            ordered = sorted(self.hosts.items(), key=lambda known: -known[1][1])
        return [[host, count, round(seconds, 3)] for host, (count, seconds) in ordered[:HOSTS_KEPT]]


@dataclass(frozen=True)
class Part:
    """Seconds of a job's time; `key` names the colour."""

    key: str
    label: str
    seconds: float
    left: float  # percent of the whole
    width: float


LABELS = {
    "queued": "Queued",
    "held": "Held",
    "polite": "Polite waiting",
    "network": "Network",
    "processing": "Processing",
    "writing": "Writing",
}


def split(job: Job, attempts: list[JobAttempt], now: datetime | None = None) -> list[Part]:
    """The time of a job, over all its attempts, until now or its end; empty for one of which too little is known.

    What it did not spend waiting, and no handler spoke of, is processing. Of one that never ran, only how it waited.
    """
    now = now or timezone.now()
    if job.queued_s is None or job.held_s is None:
        return []
    spent = {"queued": job.queued_s, "held": job.held_s} | dict.fromkeys(PHASES, 0.0)
    if job.status == Status.PENDING and job.waiting_since is not None:
        spent["held" if job.hold_reason else "queued"] += max(0.0, now.timestamp() - job.waiting_since)
    for attempt in attempts:
        ran = max(0.0, ((attempt.ended_at or now) - attempt.started_at).total_seconds())
        if attempt.ended_at is None:  # what it has done since it was last asked is not known yet
            ran = attempt.times.get("until", ran)
        known = {phase: attempt.times.get(phase, 0.0) for phase in PHASES if phase != "processing"}
        for phase, seconds in known.items():
            spent[phase] += seconds
        spent["processing"] += max(0.0, ran - sum(known.values()))
    whole, at, parts = sum(spent.values()), 0.0, []
    for key, label in LABELS.items():
        if key in PHASES and not attempts:
            continue
        width = 100 * spent[key] / whole if whole else 0.0
        parts.append(Part(key, label, spent[key], at, width))
        at += width
    return parts if whole else []


@dataclass(frozen=True)
class Stage:
    """A part of the work with a name; seconds from the start of its attempt, and percent of the attempt."""

    name: str
    at_s: float
    seconds: float
    left: float
    width: float
    is_open: bool


def stages(attempt: JobAttempt | None, now: datetime | None = None) -> list[Stage]:
    """The stages of an attempt one after the other, each until the next one began."""
    named = attempt.times.get("stages", []) if attempt else []
    if attempt is None or not named:
        return []
    end = max(((attempt.ended_at or now or timezone.now()) - attempt.started_at).total_seconds(), named[-1][1], 0.001)
    ends = [at for _, at in named[1:]] + [end]
    last = len(named) - 1
    return [
        Stage(name, at, max(0.0, until - at), 100 * at / end, max(0.5, 100 * (until - at) / end), n == last and attempt.ended_at is None)
        for n, ((name, at), until) in enumerate(zip(named, ends, strict=True))
    ]
