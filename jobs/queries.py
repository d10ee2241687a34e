"""Querysets that speak the domain, shared by pages, API, sockets, admin and statistics.

`visible_to` is the one rule about who may see a job, and everything goes through it.
"""

import uuid
from datetime import UTC, datetime
from typing import Any, Self

from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.models import CharField, Q
from django.db.models.functions import Cast, Substr
from django.utils.module_loading import import_string

from jobs.states import ENDED, OPEN, Status

SUBJECTS_NAMED = 300  # of a person with more, a subquery finds them


def hour_of(moment: str) -> Any:
    """The hour of a column in UTC, as a text that `begin_of` reads, to group by: SQLite has no function for it that is not Python."""
    return Substr(Cast(moment, CharField()), 1, 13)


def begin_of(hour: str) -> datetime:
    """Of “2026-11-26 14”."""
    return datetime.strptime(hour, "%Y-%m-%d %H").replace(tzinfo=UTC)


def subjects_of(user: Any) -> models.QuerySet | None:
    """The subjects that `user` may see, as the project that uses us says, or None if it has none.

    `settings.JOBS_SUBJECTS` names a function (user) → queryset whose rows have a UUID key, a text and
    an address. Without it a person sees only what they created: deny by default.
    """
    path = getattr(settings, "JOBS_SUBJECTS", "")
    return import_string(path)(user) if path else None


def few_subjects_of(user: Any) -> list[uuid.UUID] | None:
    """The ids of the subjects that `user` may see; None where there are more than SUBJECTS_NAMED, or where no ids are needed."""
    if user is None or not user.is_authenticated or user.has_perm("jobs.view_all_jobs"):
        return None
    subjects = subjects_of(user)
    ids = [] if subjects is None else list(subjects.order_by().values_list("pk", flat=True)[: SUBJECTS_NAMED + 1])
    return ids if len(ids) <= SUBJECTS_NAMED else None


def few_subjects(request: Any) -> list[uuid.UUID] | None:
    """`few_subjects_of` the viewer, looked up once a request."""
    if not hasattr(request, "few_subjects"):
        request.few_subjects = few_subjects_of(request.user)
    found: list[uuid.UUID] | None = request.few_subjects
    return found


class JobQuerySet(models.QuerySet):
    def visible_to(self, user: Any, *, within: list[uuid.UUID] | None = None) -> Self:
        """Own jobs and those of subjects in the user's scope; all for those with `jobs.view_all_jobs`.

        `within` are the ids of these subjects, for who has them at hand (`few_subjects_of`): with ids PostgreSQL looks them
        up by index, with a subquery it walks all jobs.
        """
        if user is None or not user.is_authenticated or not user.is_active:
            return self.none()
        if user.has_perm("jobs.view_all_jobs"):
            return self
        mine = Q(created_by=user)
        if within is not None:
            return self.filter(mine | Q(subject_id__in=within))
        subjects = subjects_of(user)
        return self.filter(mine if subjects is None else mine | Q(subject_id__in=subjects.values("pk")))

    def running(self, job_id: uuid.UUID | None = None, attempt: int | None = None) -> Self:
        """Running jobs; with `attempt`, only the one that still holds this attempt (the fence)."""
        found = self.filter(status=Status.RUNNING)
        if job_id is not None:
            found = found.filter(pk=job_id)
        return found if attempt is None else found.filter(attempt=attempt)

    def waiting(self) -> Self:
        return self.filter(status=Status.PENDING)

    def due(self, now: datetime) -> Self:
        return self.filter(run_after__lte=now, hold_reason="")

    def ended(self) -> Self:
        return self.filter(status__in=ENDED)

    def open(self) -> Self:
        return self.filter(status__in=OPEN)


class OfJobQuerySet(models.QuerySet):
    """Rows that belong to a job: as visible as their job."""

    def visible_to(self, user: Any) -> Self:
        return self.filter(job__in=self.visible_jobs(user))

    def visible_jobs(self, user: Any) -> JobQuerySet:
        jobs: Any = self.model._meta.get_field("job").related_model
        return jobs.objects.visible_to(user)


class OfSubjectQuerySet(OfJobQuerySet):
    """Rows that outlive their job: as visible as their job, or as their subject."""

    def visible_to(self, user: Any) -> Self:
        jobs = self.visible_jobs(user)
        archived = apps.get_model("jobs", "ArchivedJob").objects.visible_to(user)
        # compared as ids: the row of an archived job is gone
        visible = Q(job_id__in=jobs.order_by().values("pk")) | Q(job_id__in=archived.order_by().values("pk"))
        subjects = subjects_of(user)
        return self.filter(visible if subjects is None else visible | Q(subject_id__in=subjects.values("pk")))
