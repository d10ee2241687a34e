"""The dashboard, and what is slow."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from jobs import failures
from jobs.bottlenecks import held_for, paces, slowest
from jobs.models import Job
from jobs.presentation import decorate
from jobs.queries import JobQuerySet, begin_of, hour_of
from jobs.resources import ResourceManager, live_workers, unserved_queues
from jobs.states import Status
from jobs.views.failures import TROUBLES_SHOWN, shown, with_trends
from jobs.views.scope import visible_jobs

AWAY = timedelta(minutes=20)
CHARTED = timedelta(days=28)
REASONS_SHOWN = 3


@login_required
@require_GET
def dashboard(request: HttpRequest) -> HttpResponse:
    visible = visible_jobs(request)
    running = decorate(list(visible.running().order_by("started_at")[:20]))
    needs = [trouble for trouble in failures.troubles(visible) if not trouble.is_acknowledged]
    stats = ResourceManager().get_queue_statistics(request.user)
    waiting_queues = set(visible.waiting().order_by().values_list("queue_name", flat=True).distinct())
    return render(
        request,
        "jobs/dashboard.html",
        {
            "stats": stats,
            "ended": sum(stats["ended_24h"].values()),
            "running": running,
            "needs": len(needs),
            "troubles": with_trends([shown(trouble, visible, request.user) for trouble in needs[:TROUBLES_SHOWN]], visible),
            "recent": decorate(list(visible.filter(completed_at__isnull=False).order_by("-completed_at")[:6])),
            "workers": workers_with_jobs(visible),
            "unserved": sorted(unserved_queues(waiting_queues)),
            "no_workers": not stats["workers"],
            "held": held_for(visible)[:REASONS_SHOWN] if stats["held"] else [],
            "away": since_last_here(request, visible),
            "any_jobs": visible.exists(),
        },
    )


def since_last_here(request: HttpRequest, visible: JobQuerySet) -> dict[str, Any] | None:
    """What ended while the viewer was away for some time; shown until they go away again. None at a first visit."""
    now = timezone.now()
    seen, session = request.session.get("seen_at"), request.session
    if seen is not None and now - datetime.fromisoformat(seen) >= AWAY:
        session["away_since"] = seen
    if seen is None or now - datetime.fromisoformat(seen) >= timedelta(minutes=1):  # not with each live redraw
        session["seen_at"] = now.isoformat()
    if "away_since" not in session:
        return None
    since = datetime.fromisoformat(session["away_since"])
    ended = visible.filter(completed_at__gte=since).order_by()
    counts = ended.aggregate(**{status.value: Count("pk", filter=Q(status=status)) for status in (Status.COMPLETED, Status.FAILED)})
    return {"since": since, "query": since.isoformat(), **counts}


@login_required
@require_GET
def slow(request: HttpRequest) -> HttpResponse:
    """The limit or reason that holds most jobs, and the types that wait or run longer than the week before."""
    visible = visible_jobs(request)
    found = paces(visible)
    slower = sum(pace.is_slower or pace.waits_longer for pace in found)
    hosts, stages, looked_at = slowest(visible)
    compared = any(pace.before for pace in found)
    context = {
        "held": held_for(visible),
        "paces": found,
        "slower": slower,
        "compared": compared,
        "hosts": hosts,
        "stages": stages,
        "looked_at": looked_at,
    }
    return render(request, "jobs/slow.html", context)


def workers_with_jobs(visible: JobQuerySet) -> list[dict[str, Any]]:
    """Every live worker, with its job if the viewer may see that; otherwise only that it is busy."""
    busy = dict(Job.objects.running().order_by().values_list("worker_id", "id"))
    seen = {job.worker_id: job for job in visible.running().order_by()}
    return [
        {"name": w.name, "host": w.host, "busy": w.name in busy, "job": seen.get(w.name), "upkeep": w.upkeep}
        for w in live_workers().order_by("host", "pk")
    ]


@login_required
@require_GET
def throughput(request: HttpRequest) -> JsonResponse:
    """{"hours": [[seconds since the epoch, ended well, failed], …]} of the last four weeks; hours without an end are left out."""
    since = (timezone.now() - CHARTED).replace(minute=0, second=0, microsecond=0)
    ended = visible_jobs(request).filter(completed_at__gte=since, status__in=(Status.COMPLETED, Status.FAILED)).order_by()
    hours = ended.annotate(hour=hour_of("completed_at")).values("hour")
    counts = hours.annotate(failed=Count("pk", filter=Q(status=Status.FAILED)), ended=Count("pk")).values_list("hour", "ended", "failed")
    rows = sorted((int(begin_of(hour).timestamp()), ended - failed, failed) for hour, ended, failed in counts)
    return JsonResponse({"hours": rows})
