"""The filters of the job list, shared by the page and the API."""

from datetime import timedelta
from typing import Any

import django_filters as filters
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.utils import timezone

from jobs import registry, search
from jobs.failures import MASK, failed_jobs, lately, with_failure
from jobs.fulltext import terms_of
from jobs.models import Job
from jobs.queries import few_subjects
from jobs.states import Priority, Status

# What people look for, beyond the five statuses. Held and retrying are kinds of waiting.
STATES = {
    "waiting": "Waiting",
    "held": "Held",
    "retrying": "Retrying",
    "running": "Running",
    "stalled": "Stalled",
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
PERIODS = {"1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
HOURS = {"1h": 1, "24h": 24, "7d": 168, "30d": 720}
SORTS = {
    "-created": "-created_at", "created": "created_at", "-ended": "-completed_at", "ended": "completed_at",
    "-priority": "-priority", "priority": "priority", "name": "name", "-name": "-name",
}  # fmt: skip
FIRST_SORT = "-created_at"


def state_query(state: str) -> Q:
    now = timezone.now()
    pending = Q(status=Status.PENDING)
    retrying = pending & Q(hold_reason="", run_after__gt=now) & ~Q(error_kind="")
    if state == "held":
        return pending & ~Q(hold_reason="")
    if state == "retrying":
        return retrying
    if state == "stalled":
        return Q(status=Status.RUNNING, stalled_at__isnull=False)
    if state == "waiting":
        return pending & Q(hold_reason="") & ~retrying
    return Q(status=state.upper())


class JobFilter(filters.FilterSet):
    has_more = False  # of what a search for words found

    state = filters.MultipleChoiceFilter(distinct=False, choices=list(STATES.items()), method="by_state", label="State")
    status = filters.MultipleChoiceFilter(distinct=False, choices=Status.choices, label="Status")
    type = filters.MultipleChoiceFilter(distinct=False, field_name="job_type", choices=registry.choices, label="Type")
    priority = filters.MultipleChoiceFilter(
        distinct=False, choices=[(p.name, p.label) for p in Priority], method="by_priority", label="Priority"
    )
    by = filters.CharFilter(method="by_creator", label="Started by")
    subject = filters.UUIDFilter(field_name="subject_id", label="Subject")
    group = filters.UUIDFilter(field_name="group_id", label="Group")
    failure = filters.CharFilter(method="by_failure", label="Failure", max_length=16)
    since = filters.ChoiceFilter(choices=list(PERIODS.items()), method="by_period", label="Created")
    ended = filters.ChoiceFilter(choices=list(PERIODS.items()), method="by_end", label="Ended")
    held_for = filters.CharFilter(method="by_hold", label="Held for", max_length=200)
    open_failure = filters.CharFilter(method="by_open_failure", label="Failure that needs people", max_length=16)
    ended_after = filters.IsoDateTimeFilter(field_name="completed_at", lookup_expr="gte", label="Ended from")
    created_after = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte", label="Created from")
    created_before = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt", label="Created before")
    q = filters.CharFilter(method="by_text", label="Text", max_length=200)
    sort = filters.ChoiceFilter(choices=[(name, name) for name in SORTS], method="in_order", label="Order")

    class Meta:
        model = Job
        fields: list[str] = []

    def by_state(self, jobs: QuerySet, name: str, values: list[str]) -> QuerySet:
        wanted = Q()
        for value in values:
            wanted |= state_query(value)
        return jobs.filter(wanted)

    def by_creator(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        """The id first: joined by name, PostgreSQL would walk the newest jobs until it has found enough of theirs."""
        return jobs.filter(created_by__in=ids_of(value))

    def by_failure(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        return jobs.filter(with_failure(value))

    def by_open_failure(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        """Failed jobs of a kind of failure, as far as they are counted there: lately, and not taken up."""
        return failed_jobs(jobs, lately()).filter(failure=value)

    def by_priority(self, jobs: QuerySet, name: str, values: list[str]) -> QuerySet:
        return jobs.filter(priority__in=[Priority[value] for value in values]) if values else jobs

    def by_period(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        return jobs.filter(created_at__gte=timezone.now() - timedelta(hours=HOURS[value]))

    def by_end(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        return jobs.filter(completed_at__gte=timezone.now() - timedelta(hours=HOURS[value]))

    def by_hold(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        """Held for a reason that is like `value`, in which MASK stands for what varies (`bottlenecks.held_for`)."""
        first, *rest = value.split(MASK)
        wanted = Q(hold_reason__startswith=first) if first else ~Q(hold_reason="")
        for part in filter(None, rest):
            wanted &= Q(hold_reason__contains=part)
        return jobs.filter(wanted, status=Status.PENDING)

    def by_text(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        """The newest jobs with these words; `has_more` says that there are more than are found."""
        if not terms_of(value):
            return jobs
        ids, self.has_more = search.newest(value, jobs, search.scope_of(self.request.user, few_subjects(self.request)))
        return jobs.filter(pk__in=ids)

    def in_order(self, jobs: QuerySet, name: str, value: str) -> QuerySet:
        """Ordered by the time of their end, only jobs that have one are there: databases differ in where the others would stand."""
        column = SORTS[value]
        if column.endswith("completed_at"):
            jobs = jobs.filter(completed_at__isnull=False)
        return jobs.order_by(column, "-id" if column.startswith("-") else "id")

    @property
    def order(self) -> str:
        """The column that the rows are ordered by."""
        return SORTS.get(self.form.cleaned_data.get("sort") or "", FIRST_SORT)


def ids_of(username: str) -> list[int]:
    return list(get_user_model().objects.filter(username=username).values_list("pk", flat=True))


def filtered(data: Any, jobs: QuerySet, request: Any) -> tuple[JobFilter, list[str]]:
    """A filter that can be used, and what of `data` made no sense and was left out, in words."""
    good = without_blanks(data)
    form = JobFilter(good, queryset=jobs, request=request)
    problems = {} if form.is_valid() else {name: " ".join(errors) for name, errors in form.form.errors.items()}
    person = good.get("by")
    # whether there is such a person is told only of those whose jobs can be seen
    if person and person != request.user.get_username() and not jobs.filter(created_by__in=ids_of(person)).order_by().exists():
        problems["by"] = f"Nobody whose jobs you see is called “{person[:80]}”."
    if not problems:
        return form, []
    for name in problems:
        good.pop(name, None)
    return JobFilter(good, queryset=jobs, request=request), [f"{form.form.fields[name].label}: {text}" for name, text in problems.items()]


def without_blanks(data: Any) -> Any:
    """A query without the fields of a form that were left empty."""
    good = data.copy()
    for name, values in data.lists():
        given = [value for value in values if value]
        if given:
            good.setlist(name, given)
        else:
            del good[name]
    return good
