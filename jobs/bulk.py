"""One action on many jobs, each by itself: some may be refused, and the person is told of each."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidParameters, NotAllowed, UnknownJobType
from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import Status

ACTIONS = {"cancel": "Cancel", "retry": "Retry"}


@dataclass(frozen=True)
class Outcome:
    job: Job
    done: bool
    detail: str


def act(action: str, jobs: Iterable[Job], *, by: Any, reason: str = "") -> list[Outcome]:
    """`action` is one of ACTIONS, or `retry_items`. The order of the outcomes is that of the jobs."""
    one = {"cancel": cancel, "retry": retry, "retry_items": retry_items}[action]
    return [one(job, by, reason) for job in jobs]


def cancel(job: Job, by: Any, reason: str) -> Outcome:
    if JobManager().cancel_job(job.pk, reason, by=by):
        return Outcome(job, True, "Asked to stop" if job.status == Status.RUNNING else "Cancelled")
    status = Status(Job.objects.values_list("status", flat=True).get(pk=job.pk))
    return Outcome(job, False, "Is being cancelled already" if status == Status.RUNNING else f"Had ended already: {status.label.lower()}")


def retry(job: Job, by: Any, reason: str) -> Outcome:
    return asked(job, lambda: JobManager().retry_job(job.pk, by=by), "Waits for a worker")


def retry_items(job: Job, by: Any, reason: str) -> Outcome:
    return asked(job, lambda: JobManager().retry_items(job.pk, by=by), "A new job takes up what failed")


def asked(job: Job, ask: Callable[[], Any], said: str) -> Outcome:
    try:
        ask()
    except (NotAllowed, UnknownJobType, InvalidParameters, Job.DoesNotExist) as error:
        return Outcome(job, False, str(error))
    return Outcome(job, True, said)


def ids_of(values: Iterable[str]) -> list[uuid.UUID]:
    """Raises ValueError for what is not the id of a job."""
    return [uuid.UUID(value) for value in values]
