"""How a job is shown: its badge, its sentence and its figures.

Pages, sockets, the API and the terminal all show what is made here, so they cannot differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from jobs import conf, registry, words
from jobs.forecast import usual_lately
from jobs.language import told
from jobs.manager import cancelled_line, current_jobs, summary_of
from jobs.models import Job, JobGroup, JobLog
from jobs.resources import unserved_queues
from jobs.states import Status

# a running job is not compared with others of its type before so many seconds and steps
SLOW_FROM_S, SLOW_FROM_STEPS = 20.0, 5
SLOWER = 1.5  # times the usual
# the parts of live messages that are words; all else is numbers and names
WORDS = frozenset({"label", "sentence", "step", "pace", "memory", "cpu", "text"})


@dataclass(frozen=True)
class Badge:
    """`key` names the colours and the icon."""

    key: str
    label: str


def badge(job: Job, now: datetime | None = None) -> Badge:
    now = now or timezone.now()
    if job.status == Status.PENDING:
        if job.pause_requested_at:
            return Badge("held", "Paused")
        if job.hold_reason:
            return Badge("held", "Held")
        if job.error_kind and job.run_after > now:
            return Badge("retrying", f"Retries in {words.duration((job.run_after - now).total_seconds())}")
        return Badge("waiting", "Waiting")
    if job.status == Status.RUNNING:
        if job.cancel_requested_at:
            return Badge("held", "Cancelling")
        if job.pause_requested_at:
            return Badge("held", "Pausing")
        return Badge("running", "Running, stalled" if job.stalled_at else "Running")
    if job.status == Status.COMPLETED and job.problem_count:
        return Badge("completed", f"Completed, {problems(job)}")
    return Badge(job.status.lower(), Status(job.status).label)


def problems(job: Job) -> str:
    """37 of 1,000 failed; or a plain count where the total is not known."""
    if job.total_steps:
        return f"{job.problem_count:,} of {job.total_steps:,} failed"
    return words.count(job.problem_count, "problem")


def sentence(job: Job, now: datetime | None = None, *, unserved: bool = False) -> str:
    """How things stand, in words. `unserved`: no live worker serves the job's queue."""
    now = now or timezone.now()
    if job.status == Status.PENDING:
        return waiting_sentence(job, now, unserved)
    if job.status == Status.RUNNING:
        return running_sentence(job, now)
    if job.status == Status.COMPLETED:
        return summary_of(job.job_type, job.result_data) or "Done"
    if job.status == Status.FAILED:
        return job.error_message.partition("\n")[0][:300]
    return cancelled_line(job.cancelled_by, job.cancel_reason)


def waiting_sentence(job: Job, now: datetime, unserved: bool) -> str:
    if job.pause_requested_at:
        if not job.attempt:
            return f"{job.pause_reason}; not started yet"
        where = f" at {job.completed_steps:,} of {words.count(job.total_steps, unit_of(job))}" if job.total_steps else ""
        return f"{job.pause_reason}{where}; goes on where it stopped"
    if job.hold_reason:
        return job.hold_reason
    if job.pause_reason:
        return f"{job.pause_reason}; goes on by itself"
    if unserved:
        return f"No worker serves the queue “{job.queue_name}”, so it cannot start"
    if job.error_kind and job.run_after > now:
        tries = job.max_retries + 1
        return f"Try {job.retry_count} of {tries} failed: {job.error_message.partition(chr(10))[0][:200]}"
    return "Waiting for a free worker"


def running_sentence(job: Job, now: datetime) -> str:
    if job.cancel_requested_at:
        asked = words.duration((now - job.cancel_requested_at).total_seconds())
        grace = conf.get("cancel_grace_s") + conf.get("terminate_grace_s")
        return f"Asked to stop {asked} ago; it is ended {words.duration(grace)} after that at the latest"
    unit = unit_of(job)
    parts = [job.current_step or "Started"]
    if job.pause_requested_at:
        parts.insert(0, "Stops at its next checkpoint")
    if job.total_steps:
        parts.append(f"{job.completed_steps:,} of {words.count(job.total_steps, unit)}")
    elif job.completed_steps:
        parts.append(words.count(job.completed_steps, unit))
    left = left_s(job, now)
    if left is not None:
        parts.append(f"about {words.about(left)} left")
    if is_slower(job, now):
        parts.append("slower than usual")
    if job.problem_count:
        parts.append(words.count(job.problem_count, "problem"))
    if job.stalled_at and job.progress_at:
        silent = max(0.0, (now - job.progress_at).total_seconds())
        using = "still using CPU" if (job.cpu_usage_percent or 0) >= 5 else "not using CPU"
        parts.append(f"no progress for {words.duration(silent)}, {using}")
    return " · ".join(parts)


def is_slower(job: Job, now: datetime) -> bool:
    """Whether its steps take much longer than those of its type usually do, as soon as that can be said."""
    elapsed = elapsed_s(job, now) or 0.0
    if elapsed < SLOW_FROM_S or job.completed_steps < SLOW_FROM_STEPS:
        return False
    usual = usual_lately(job.job_type)
    return usual is not None and elapsed / job.completed_steps > SLOWER * usual.step_s


def unit_of(job: Job) -> str:
    kind = registry.find(job.job_type)
    return kind.unit if kind else "step"


def elapsed_s(job: Job, now: datetime | None = None) -> float | None:
    """Seconds of the latest attempt, until now or until its end; never negative."""
    if job.started_at is None or job.status == Status.PENDING:
        return None
    end = job.completed_at or now or timezone.now()
    return max(0.0, (end - job.started_at).total_seconds())


def left_s(job: Job, now: datetime | None = None) -> float | None:
    """Seconds that are likely left, or None when nothing is known."""
    elapsed = elapsed_s(job, now)
    if job.status != Status.RUNNING or job.estimated_duration is None or elapsed is None:
        return None
    return max(0.0, job.estimated_duration - elapsed)


def percent(job: Job) -> float | None:
    """None when the total is not known: then no bar is drawn."""
    if job.status == Status.COMPLETED:
        return 100.0
    if job.total_steps is None and not job.progress_percent:
        return None
    return job.progress_percent


def pace(job: Job) -> str:
    """Steps per second or minute of the latest attempt; empty when it says nothing."""
    elapsed = elapsed_s(job)
    if not elapsed or elapsed < 2 or not job.completed_steps:
        return ""
    rate = job.completed_steps / elapsed
    unit = unit_of(job)
    return f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{rate * 60:.1f} {unit}s/min"


def live_fields(job: Job, now: datetime | None = None) -> dict[str, Any]:
    """What a page shows of a job and a socket keeps current. Seconds and MB are numbers, words are ready."""
    now = now or timezone.now()
    shown = badge(job, now)
    return {
        "id": str(job.pk),
        "status": job.status,
        "attempt": job.attempt,
        "revision": job.revision,
        "badge": shown.key,
        "label": shown.label,
        "sentence": sentence(job, now, unserved=job.status == Status.PENDING and bool(unserved_queues({job.queue_name}))),
        "percent": percent(job),
        "step": job.current_step,
        "completed": job.completed_steps,
        "total": job.total_steps,
        "problems": job.problem_count,
        "elapsed": elapsed_s(job, now),
        "left": left_s(job, now),
        "pace": pace(job),
        "memory": words.megabytes(job.memory_usage_mb),
        "cpu": "" if job.cpu_usage_percent is None else f"{job.cpu_usage_percent:.0f} %",
    }


def as_lists(rows: Iterable[JobLog]) -> list[list[Any]]:
    """Lines of a log as browsers get them: [number, level, message, seconds since the epoch, step]."""
    return [[row.seq, row.level, row.message, row.timestamp.timestamp(), row.step_name] for row in rows]


def told_live(message: dict[str, Any]) -> dict[str, Any]:
    """A live message in the language that is active: what it says about the job, and the lines of its log."""
    shown = {name: told(value) if name in WORDS and value else value for name, value in message.items()}
    if isinstance(message.get("job"), dict):  # of a snapshot; a notification names its job
        shown["job"] = told_live(message["job"])
    if "lines" in message:
        shown["lines"] = [[number, level, told(text), *rest] for number, level, text, *rest in message["lines"]]
    return shown


def decorate(jobs: list[Job]) -> list[Job]:
    """Give each job `badge`, `sentence` and the figures that rows show. One query for all."""
    now = timezone.now()
    unserved = unserved_queues({job.queue_name for job in jobs if job.status == Status.PENDING})
    for job in jobs:
        job.badge = badge(job, now)
        job.sentence = sentence(job, now, unserved=job.queue_name in unserved)
        job.percent = percent(job)
        job.elapsed = elapsed_s(job, now)
        job.left = left_s(job, now)
        job.type_label = type_label(job.job_type)
    return jobs


@dataclass(frozen=True)
class GroupState:
    """How a group stands: `percent` is the mean of its jobs, each of which counts the same."""

    badge: Badge
    sentence: str
    percent: float
    jobs: list[Job]


def group_state(group: JobGroup) -> GroupState:
    """What page, API and terminal show of a group. Three queries, however many jobs."""
    jobs = decorate(list(current_jobs(group).select_related("created_by")))
    done = sum(job.status == Status.COMPLETED for job in jobs)
    shares = sum(100.0 if job.is_ended else job.percent or 0.0 for job in jobs)
    percent = shares / len(jobs) if jobs else 0.0
    if group.completed_at is not None and group.outcome:  # as it was then, for its jobs may be in the archive
        return GroupState(Badge(group.outcome.lower(), Status(group.outcome).label), group.summary, 100.0, jobs)
    if all(job.is_ended for job in jobs):
        status, detail = end_of(jobs)
        return GroupState(Badge(status.lower(), status.label), detail, percent, jobs)
    running = [job for job in jobs if job.status == Status.RUNNING]
    parts = [f"{done} of {words.count(len(jobs), 'job')} done"]
    parts += [f"{job.name}: {job.sentence}" for job in running[:2]]
    if not running:
        first = next(job for job in jobs if not job.is_ended)
        parts.append(f"{first.name}: {first.sentence}")
    shown = Badge("running", "Running") if running else first.badge
    return GroupState(shown, " · ".join(parts), percent, jobs)


def group_end(group: JobGroup) -> tuple[Status, str]:
    """How a group ended, in one line."""
    return end_of(list(current_jobs(group)))


def end_of(jobs: list[Job]) -> tuple[Status, str]:
    failed = [job for job in jobs if job.status == Status.FAILED]
    done = f"{sum(job.status == Status.COMPLETED for job in jobs)} of {words.count(len(jobs), 'job')} done"
    if failed:
        return Status.FAILED, f"{done} · {failed[0].name}: {sentence(failed[0])}"
    cancelled = [job for job in jobs if job.status == Status.CANCELLED]
    if cancelled:
        return Status.CANCELLED, f"{done} · {sentence(cancelled[0])}"
    return Status.COMPLETED, " · ".join(filter(None, (summary_of(job.job_type, job.result_data) for job in jobs))) or done


def last_seq(job: Job, level: int) -> int | None:
    """The number of the last line of a level or above it, such as the one that says why a job failed."""
    return JobLog.objects.filter(job=job, level__gte=level).order_by("-seq").values_list("seq", flat=True).first()


def type_label(job_type: str) -> str:
    kind = registry.find(job_type)
    return kind.label if kind else job_type


def chart(
    samples: list[list[float]],
    limit_mb: float | None,
    *,
    events: Sequence[tuple[float, int, str]] = (),
    width: int = 306,
    height: int = 100,
) -> dict[str, Any]:
    """Paths of an SVG chart of memory (area, in MB) and CPU (line, % of a core) over seconds.

    The memory axis ends at the limit when the limit is near, so that the distance to it can be seen. `events` are marked
    where they happened: seconds, the number of their line, what it says.
    """
    if len(samples) < 2:
        return {}
    start, end = samples[0][0], samples[-1][0]
    peak = max(s[1] for s in samples)
    top = limit_mb if limit_mb and peak > limit_mb / 4 else max(peak * 1.25, 1.0)
    cpu_top = max(100.0, max(s[2] for s in samples))

    def point(seconds: float, value: float, most: float) -> str:
        x = (seconds - start) / (end - start) * width if end > start else 0
        return f"{x:.1f},{height - min(value / most, 1.0) * (height - 4):.1f}"

    memory = " ".join(point(t, mb, top) for t, mb, _ in samples)
    return {
        "width": width,
        "height": height,
        "memory": memory,
        "area": f"0,{height} {memory} {width},{height}",
        "cpu": " ".join(point(t, cpu, cpu_top) for t, _, cpu in samples),
        "events": [{"x": point(t, 0, 1).partition(",")[0], "line": line, "says": says} for t, line, says in events if start <= t <= end],
        "limit_y": 4 if top == limit_mb else None,
        "peak": words.megabytes(peak),
        "span": words.duration(end - start),
    }
