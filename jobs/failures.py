"""Failures that are alike, told by a fingerprint, so that people see one trouble where there is one.

A fingerprint is made of the kind, the exception, the place (the remote host, or the topmost frame of our own code) and the
message without what differs from case to case: numbers, ids, addresses, quoted names.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Count, Exists, Max, Min, OuterRef, Q, QuerySet
from django.utils import timezone

from jobs import sql
from jobs.models import FailureGroup, Job, JobItem
from jobs.queries import JobQuerySet, begin_of, hour_of
from jobs.states import Status

SHOWN_DAYS = 7
TREND_HOURS = 48
MASK = "…"
URL = re.compile(r"\bhttps?://[^\s\"'<>“”]+")
# what differs from case to case, in this order: quoted names, UUIDs, long hexadecimal ids, numbers with their separators
VARIES = re.compile(
    r"“[^”]*”|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?=\w*\d)[0-9a-fA-F]{8,}\b|\d+(?:[.,:]\d+)*"
)
FRAME = re.compile(r'^  File "([^"]+)", line \d+, in (.+)$', re.MULTILINE)
RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)


@dataclass(frozen=True)
class Mark:
    """What makes failures alike. `text` is the message with a mask for what varies."""

    kind: str
    exception: str
    place: str
    text: str

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256("\0".join((self.kind, self.exception, self.place, self.text)).encode()).hexdigest()[:16]


def mark_of(kind: str, message: str, *, traceback: str = "", key: str = "") -> Mark:
    """`key` is the name of the item that failed, whose host is the place if it is an address."""
    address = URL.match(key) or URL.search(message)
    host = host_of(address[0]) if address else ""
    frame, exception = raised_in(traceback)
    text = VARIES.sub(MASK, URL.sub(MASK, message))
    return Mark(kind, exception, (host or frame)[:200], " ".join(text.split())[:300])


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def raised_in(traceback: str) -> tuple[str, str]:
    """(topmost frame of the project's own code below the job system, name of the exception), as far as there are any."""
    own, base = "", f"{settings.BASE_DIR}/"
    for path, function in FRAME.findall(traceback):
        inside = path.removeprefix(base)
        if path.startswith(base) and "site-packages" not in path and Path(inside).parent != Path("jobs"):
            own = f"{inside} in {function}"
    names = RAISED.findall(traceback.rpartition("\n  File ")[2])
    return own, names[0].rpartition(".")[2] if names else ""


def keep(marks: Iterable[Mark]) -> None:
    """A row for each that is new, in the order of the keys, so that two writers cannot wait for each other."""
    rows = {mark.fingerprint: mark for mark in marks}
    if rows:
        made = (
            FailureGroup(fingerprint=key, kind=mark.kind, exception=mark.exception[:100], place=mark.place, text=mark.text)
            for key, mark in sorted(rows.items())
        )
        sql.insert(made, ignore_conflicts=True)


@dataclass
class Trouble:
    """A group as one person sees it: of the jobs in their scope alone, since `SHOWN_DAYS` days ago."""

    group: FailureGroup
    jobs: int = 0  # that failed
    items: int = 0  # that failed in jobs which otherwise went on
    item_jobs: int = 0
    first: datetime | None = None
    last: datetime | None = None
    trend: list[int] = field(default_factory=list)  # as `trends` counts; this and what follows is filled for a page
    job: Job | None = None  # where there is only one; with its first way out
    way: Any = None

    @property
    def is_acknowledged(self) -> bool:
        """Until it comes back."""
        at = self.group.acknowledged_at
        return at is not None and (self.last is None or self.last <= at)

    def add(self, first: datetime, last: datetime) -> None:
        self.first = min(first, self.first or first)
        self.last = max(last, self.last or last)


def failed_jobs(visible: Any, since: datetime) -> Any:
    """Failed jobs that no later job has taken up."""
    return not_taken_up(visible.filter(status=Status.FAILED, completed_at__gte=since).exclude(failure=""))


def not_taken_up(jobs: Any, key: str = "pk") -> Any:
    return jobs.exclude(Exists(Job.objects.filter(continues_id=OuterRef(key))))


def failed_items(visible: JobQuerySet, since: datetime) -> QuerySet:
    """Items that failed in visible jobs which completed without them, and that no later job has taken up."""
    went_on = visible.filter(status=Status.COMPLETED, pk=OuterRef("job_id")).order_by()
    rows = JobItem.objects.filter(Exists(went_on), outcome=JobItem.Outcome.FAILED, at__gte=since).exclude(failure="")
    return not_taken_up(rows, "job_id")


def lately() -> datetime:
    return timezone.now() - timedelta(days=SHOWN_DAYS)


def troubles(visible: JobQuerySet, fingerprint: str = "") -> list[Trouble]:
    """What failed lately, the most recent first. Three queries, however many failures."""
    since = lately()
    jobs, rows = failed_jobs(visible, since).order_by(), failed_items(visible, since).order_by()
    if fingerprint:
        jobs, rows = jobs.filter(failure=fingerprint), rows.filter(failure=fingerprint)
    of_jobs = list(jobs.values_list("failure").annotate(Count("pk"), Min("completed_at"), Max("completed_at")))
    of_items = list(rows.values_list("failure").annotate(Count("pk"), Count("job", distinct=True), Min("at"), Max("at")))
    groups = FailureGroup.objects.in_bulk({row[0] for row in (*of_jobs, *of_items)})
    found = {key: Trouble(group) for key, group in groups.items()}
    for key, count, first, last in of_jobs:
        found[key].jobs = count
        found[key].add(first, last)
    for key, count, jobs_of_items, first, last in of_items:
        found[key].items, found[key].item_jobs = count, jobs_of_items
        found[key].add(first, last)
    return sorted(found.values(), key=lambda trouble: trouble.last or since, reverse=True)


def trends(visible: JobQuerySet, fingerprints: Collection[str]) -> dict[str, list[int]]:
    """Failures of each group in each of the last TREND_HOURS hours of the clock, the oldest first. Two queries, however many groups."""
    first = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=TREND_HOURS - 1)
    counts = {key: [0] * TREND_HOURS for key in fingerprints}
    for rows, moment in ((failed_jobs(visible, first), "completed_at"), (failed_items(visible, first), "at")):
        by_hour = rows.filter(failure__in=list(counts)).order_by().values_list("failure", hour_of(moment)).annotate(Count("pk"))
        for key, hour, count in by_hour:
            counts[key][min(TREND_HOURS - 1, (begin_of(hour) - first) // timedelta(hours=1))] += count
    return counts


def acknowledge(fingerprint: str, note: str, *, by: Any) -> None:
    """Take a group out of what needs people, for all of them, until it comes back; with an empty `by`, put it in again."""
    FailureGroup.objects.filter(pk=fingerprint).update(
        acknowledged_at=timezone.now() if by else None, acknowledged_by=by.get_username() if by else "", note=note[:300] if by else ""
    )


def with_failure(fingerprint: str) -> Q:
    """Jobs that failed in this way, or that have items which did."""
    items = JobItem.objects.filter(outcome=JobItem.Outcome.FAILED, failure=fingerprint, job=OuterRef("pk"))
    return Q(failure=fingerprint) | Q(Exists(items))
