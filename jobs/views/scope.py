"""What the pages share: what the viewer may see, and pieces of addresses."""

import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from jobs.filters import without_blanks
from jobs.models import Job
from jobs.notifications import mark_read, unread_of
from jobs.queries import JobQuerySet, few_subjects, subjects_of

PAGE_SIZE = 50  # rows


def navigation(request: HttpRequest) -> dict[str, Any]:
    """What every page's head shows."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    # a live redraw of another page must not take it away from the page that it is for
    undo = None if is_redraw(request) else request.session.pop("undo", None)
    return {"unread": unread_of(user), "undo": undo}


def is_redraw(request: HttpRequest) -> bool:
    """A page that draws parts of itself again, perhaps in the background: nobody chose or saw anything by that."""
    return "X-Regions" in request.headers


def mark_seen(request: HttpRequest, **which: Any) -> None:
    """The notifications that are like `which` are read by looking at this page."""
    if not is_redraw(request):
        mark_read(request.user, **which)


def offer_undo(request: HttpRequest, url: str, **values: str | list[str]) -> None:
    """Beside the message on the next page: a button that sends `values` to `url`, which takes back what was just done."""
    fields = [(name, one) for name, value in values.items() for one in ([value] if isinstance(value, str) else value)]
    request.session["undo"] = {"url": url, "fields": fields}


def visible_jobs(request: HttpRequest) -> JobQuerySet:
    return Job.objects.visible_to(request.user, within=few_subjects(request)).select_related("created_by")


def visible_job(request: HttpRequest, job_id: uuid.UUID) -> Job:
    """404 for what is outside the viewer's scope, as for what does not exist."""
    return get_object_or_404(visible_jobs(request), pk=job_id)


def subject_of(request: HttpRequest, subject_id: Any) -> Any:
    """The subject, if there is one and the viewer may see it."""
    subjects = subjects_of(request.user)
    if subjects is None or not subject_id:
        return None
    try:
        return subjects.filter(pk=subject_id).first()
    except ValidationError:  # not a UUID
        return None


def without(request: HttpRequest, *names: str) -> str:
    """The query of this page without some of its names and without empty fields, ready to be continued."""
    query = without_blanks(request.GET)
    for name in names:
        query.pop(name, None)
    return query.urlencode()


class Echo:
    """A file for csv.writer that gives back what is written."""

    def write(self, text: str) -> str:
        return text
