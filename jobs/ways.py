"""The ways on from where a job stands, for its page, the dashboard and the API: the likeliest first.

What is offered is what would be accepted: each way posts to an address that does just that.
"""

from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse
from django.utils import timezone

from jobs import items, registry, words
from jobs.errors import Kind, NotAllowed
from jobs.manager import check_rights
from jobs.models import Job
from jobs.presentation import unit_of
from jobs.states import Status


@dataclass(frozen=True)
class Way:
    """`values` are sent with a POST; a GET is a page to go to."""

    key: str
    label: str
    detail: str
    url: str
    method: str = "POST"
    values: dict[str, Any] = field(default_factory=dict)


def with_ways(jobs: list[Any], user: Any) -> list[Any]:
    """Each of `jobs` with the likeliest way on from its trouble as `way`, None where there is no trouble; one query for all."""
    in_trouble = [job for job in jobs if job.status == Status.FAILED or (job.status == Status.COMPLETED and job.problem_count)]
    counts = items.counts_of([job.pk for job in in_trouble]) if in_trouble else {}
    for job in jobs:
        found = [] if job.status == Status.CANCELLED else ways_out(job, user, counts.get(job.pk))
        job.way = found[0] if found else None
    return jobs


def ways_out(job: Job, user: Any, counts: dict[str, int] | None = None) -> list[Way]:
    """Nothing for a job that runs or simply waits for its turn. `counts` are of `items.counts`, for who has them at hand."""
    if job.status == Status.PENDING:
        return waiting(job)
    if job.status == Status.RUNNING or (job.status == Status.COMPLETED and not job.problem_count):
        return []
    counts = counts or items.counts(job.pk)
    if job.status == Status.FAILED:
        return failed(job, user, counts)
    return continued(job, counts) if job.status == Status.CANCELLED else retry_items(job, counts)


def waiting(job: Job) -> list[Way]:
    if job.pause_requested_at:
        return [Way("resume", "Resume", "Goes on where it stopped.", reverse("job-resume", args=[job.pk]))]
    if job.error_kind and job.run_after > timezone.now():
        return [
            Way("run_now", "Try now", "Does not wait for the next try.", reverse("job-run-now", args=[job.pk])),
            Way("give_up", "Give up", "It is cancelled; what is done is kept.", reverse("job-cancel", args=[job.pk]), values=GIVEN_UP),
        ]
    return []


GIVEN_UP = {"reason": "given up after a failed try"}


def failed(job: Job, user: Any, counts: dict[str, int]) -> list[Way]:
    if job.group_id:
        url = reverse("group-retry", args=[job.group_id])
        return [
            Way("retry_group", "Take up all that did not complete", "This job and those of its group that wait for it.", url),
            *alone(job, user, counts),
        ]
    return alone(job, user, counts)


def alone(job: Job, user: Any, counts: dict[str, int]) -> list[Way]:
    detail = f"Starts as soon as a worker is free; {goes_on(job, counts)}."
    retry = Way("retry", "Retry now", detail, reverse("job-retry", args=[job.pk]))
    some, other = retry_items(job, counts), other_parameters(job)
    if job.error_kind == Kind.LIMIT:
        more = more_room(job, user, counts)
        return [*more, *other, *some, *([] if more else [retry])]
    if job.error_kind == Kind.PERMANENT:
        return [*other, *some, retry]
    return [retry, *some, *other]


def goes_on(job: Job, counts: dict[str, int]) -> str:
    """Where a retry begins, in words."""
    kind = registry.find(job.job_type)
    if not kind or not kind.resumable:
        return "it begins from the start"
    done = counts["ok"] + counts["skipped"]
    if not done:
        return "it begins from the start"
    return f"goes on after the {words.count(done, unit_of(job))} that {'is' if done == 1 else 'are'} done"


def more_room(job: Job, user: Any, counts: dict[str, int]) -> list[Way]:
    """Twice the limit that was met, if this person may raise it so far."""
    message = job.error_message.casefold()
    if "memory" in message:
        name, unit = "memory_limit_mb", "of memory"
    else:
        name, unit = ("cpu_limit_s", "of CPU time") if "cpu" in message else ("time_limit_s", "of time")
    limit = getattr(job, name)
    if not limit:
        return []
    values = {name: 2 * limit}
    try:
        check_rights(job, values, user)
    except NotAllowed:
        return []
    shown = words.megabytes(2 * limit) if name == "memory_limit_mb" else words.duration(2 * limit)
    label, detail = f"Continue with {shown} {unit}", f"{goes_on(job, counts).capitalize()}."
    return [Way("raise_limit", label, detail, reverse("job-retry", args=[job.pk]), values=values)]


def retry_items(job: Job, counts: dict[str, int]) -> list[Way]:
    count = counts["failed"]
    if not count:
        return []
    what = words.count(count, unit_of(job))
    label = f"Retry the {what}" if count > 1 else f"Retry the {unit_of(job)}"
    return [Way("retry_items", label, "A new job for just those; this one stays as it is.", reverse("job-retry-items", args=[job.pk]))]


def other_parameters(job: Job) -> list[Way]:
    kind = registry.find(job.job_type)
    if not kind or kind.hidden:
        return []
    url = f"{reverse('job-new-of', args=[job.job_type])}?from={job.pk}"
    return [Way("other_parameters", "Start again with other parameters", "A new job; this run stays in the history.", url, "GET")]


def continued(job: Job, counts: dict[str, int]) -> list[Way]:
    kind = registry.find(job.job_type)
    if not kind:
        return []
    if not kind.resumable:
        return other_parameters(job)
    detail = f"A new job; {goes_on(job, counts)}."
    return [Way("continue", "Continue", detail, reverse("job-continue", args=[job.pk])), *other_parameters(job)]
