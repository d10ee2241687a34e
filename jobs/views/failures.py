"""Failures that are alike: what they are, and what can be done for all of them."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from jobs import bulk, conf, failures, words
from jobs.errors import MEANING
from jobs.forms import AcknowledgeForm
from jobs.models import FailureGroup, Notification
from jobs.presentation import decorate
from jobs.queries import JobQuerySet
from jobs.views.scope import PAGE_SIZE, mark_seen, offer_undo, visible_jobs
from jobs.ways import ways_out

TROUBLES_SHOWN = 6
PAGES_OF_ALL = ("dashboard", "failure-list")  # on which a group can be acknowledged, and whose reader wants to stay there


def shown(trouble: failures.Trouble, visible: JobQuerySet, user: Any) -> failures.Trouble:
    """With the job and its first way out, where there is only one to deal with."""
    if trouble.jobs + trouble.item_jobs == 1:
        since, key = failures.lately(), trouble.group.pk
        if trouble.jobs:
            ids = failures.failed_jobs(visible, since).filter(failure=key).order_by().values_list("pk", flat=True)
        else:
            ids = failures.failed_items(visible, since).filter(failure=key).order_by().values_list("job_id", flat=True)
        trouble.job = next(iter(decorate(list(visible.filter(pk__in=ids[:1])))), None)
    if trouble.job is not None:
        trouble.way = next(iter(ways_out(trouble.job, user)), None)
    return trouble


def with_trends(found: list[failures.Trouble], visible: JobQuerySet) -> list[failures.Trouble]:
    trends = failures.trends(visible, {trouble.group.pk for trouble in found})
    for trouble in found:
        trouble.trend = trends[trouble.group.pk]
    return found


def visible_trouble(request: HttpRequest, fingerprint: str) -> failures.Trouble:
    """404 for a failure that no job of the viewer's scope had lately."""
    visible = visible_jobs(request)
    found = failures.troubles(visible, fingerprint)
    if found:
        return found[0]
    told = Notification.objects.filter(user_id=str(request.user.pk), failure=fingerprint)
    if told.exists() or visible.filter(failures.with_failure(fingerprint)).exists():  # it was theirs once: a link may lead here
        return failures.Trouble(get_object_or_404(FailureGroup, pk=fingerprint))
    raise Http404("No job that you may see failed in this way in the last days.")


@login_required
@require_GET
def failure_list(request: HttpRequest) -> HttpResponse:
    visible = visible_jobs(request)
    found = with_trends(failures.troubles(visible), visible)
    context = {
        "open": [trouble for trouble in found if not trouble.is_acknowledged],
        "acknowledged": [trouble for trouble in found if trouble.is_acknowledged],
        "days": failures.SHOWN_DAYS,
    }
    return render(request, "jobs/failures.html", context)


@login_required
@require_GET
def failure_detail(request: HttpRequest, fingerprint: str) -> HttpResponse:
    """One kind of failure: when it began, how it goes, which jobs have it, and what can be done for all of them."""
    visible = visible_jobs(request)
    (trouble,) = with_trends([visible_trouble(request, fingerprint)], visible)
    mark_seen(request, failure=fingerprint, count__gt=1)
    with_it = visible.filter(failures.with_failure(fingerprint)).order_by("-created_at", "-id")
    context = {
        "trouble": trouble,
        "group": trouble.group,
        "meaning": MEANING.get(trouble.group.kind, ""),
        "jobs": decorate(list(with_it[:PAGE_SIZE])),
        "waiting": visible.waiting().filter(failure=fingerprint).count(),
        "hours": failures.TREND_HOURS,
        "items": list(
            failures.failed_items(visible, failures.lately()).filter(failure=fingerprint).select_related("job").order_by("-at")[:20]
        ),
    }
    return render(request, "jobs/failure.html", context)


@login_required
@require_POST
def failure_acknowledge(request: HttpRequest, fingerprint: str) -> HttpResponse:
    trouble = visible_trouble(request, fingerprint)
    form = AcknowledgeForm(request.POST)
    back = form.data.get("back")
    if not form.is_valid():
        messages.error(request, "A note has up to 300 characters. Nothing was changed.")
    elif form.cleaned_data["again"]:
        failures.acknowledge(fingerprint, "", by=None)
        messages.success(request, f"“{trouble.group}” needs people again.")
    else:
        failures.acknowledge(fingerprint, form.cleaned_data["note"], by=request.user)
        messages.success(request, f"“{trouble.group}” needs nobody until it comes back.")
        offer_undo(request, request.path, again="1", back=back or "")
    return redirect(back if back in PAGES_OF_ALL else trouble.group)


@login_required
@require_POST
def failure_retry_items(request: HttpRequest, fingerprint: str) -> HttpResponse:
    """A new job for what failed in each job that has such items."""
    trouble, visible = visible_trouble(request, fingerprint), visible_jobs(request)
    ids = failures.failed_items(visible, failures.lately()).filter(failure=fingerprint).values("job_id")
    outcomes = bulk.act("retry_items", list(visible.filter(pk__in=ids)[: conf.get("bulk_max")]), by=request.user)
    done = sum(outcome.done for outcome in outcomes)
    if done:
        messages.success(request, words.count(done, "new job takes up what failed.", "new jobs take up what failed."))
    for outcome in [outcome for outcome in outcomes if not outcome.done][:5]:
        messages.error(request, f"“{outcome.job}”: {outcome.detail}")
    return redirect("failure-list" if done == len(outcomes) else trouble.group)
