"""One action on many jobs, each by itself: some may be refused, and the person is told of each."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidParameters, NotAllowed, UnknownJobType
from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import Status


@dataclass(frozen=True)
class Action:
    """What the page says of it: on the button, of what will happen, and of how many it was done to."""

    label: str
    means: str
    one_done: str
    more_done: str


ACTIONS = {
    "cancel": Action(
        "Cancel", "Waiting jobs are cancelled at once, running ones stop; what has ended stays as it is.", "job is cancelled or stopping",
        "jobs are cancelled or stopping",
    ),
    "retry": Action(
        "Retry", "Failed jobs wait for a worker again; what has not failed stays as it is.", "job is in the queue again", "jobs are in the queue again"
    ),
    "priority": Action(
        "Change the priority of", "Jobs that wait get the new priority; what runs or has ended stays as it is.", "job has the new priority",
        "jobs have the new priority",
    ),
    "keep": Action("Keep", "Cleanup leaves these jobs alone, until somebody lets go of them.", "job is kept", "jobs are kept"),
    "let_go": Action("Let go of", "Cleanup may archive these jobs once they are old enough.", "job is no longer kept", "jobs are no longer kept"),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    job: Job
    done: bool
    detail: str


def act(action: str, jobs: Iterable[Job], *, by: Any, reason: str = "", priority: int | None = None) -> list[Outcome]:
    """`action` is one of ACTIONS, or `retry_items`. The order of the outcomes is that of the jobs."""
    one: dict[str, Callable[[Job], Outcome]] = {
        "cancel": lambda job: cancel(job, by, reason),
        "retry": lambda job: asked(job, lambda: JobManager().retry_job(job.pk, by=by), "Waits for a worker"),
        "retry_items": lambda job: asked(job, lambda: JobManager().retry_items(job.pk, by=by), "A new job takes up what failed"),
        "priority": lambda job: asked(job, lambda: JobManager().set_priority(job.pk, priority, by=by), "Has the new priority"),
        "keep": lambda job: keep(job, by, kept=True),
        "let_go": lambda job: keep(job, by, kept=False),
    }
    return [one[action](job) for job in jobs]


def cancel(job: Job, by: Any, reason: str) -> Outcome:
    if JobManager().cancel_job(job.pk, reason, by=by):
        return Outcome(job, True, "Asked to stop" if job.status == Status.RUNNING else "Cancelled")
    status = Status(Job.objects.values_list("status", flat=True).get(pk=job.pk))
    return Outcome(job, False, "Is being cancelled already" if status == Status.RUNNING else f"Had ended already: {status.label.lower()}")


def keep(job: Job, by: Any, *, kept: bool) -> Outcome:
    changed = JobManager().set_keep(job.pk, kept, by=by)
    return Outcome(job, changed, ("Is kept" if kept else "Is no longer kept") if changed else "Was so already")


def asked(job: Job, ask: Callable[[], Any], said: str) -> Outcome:
    try:
        ask()
    except (NotAllowed, UnknownJobType, InvalidParameters, Job.DoesNotExist) as error:
        return Outcome(job, False, str(error))
    return Outcome(job, True, said)


def ids_of(values: Iterable[str]) -> list[uuid.UUID]:
    """Raises ValueError for what is not the id of a job."""
    return [uuid.UUID(value) for value in values]
