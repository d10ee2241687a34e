"""The dashboard, and what is slow."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from jobs import failures
from jobs.bottlenecks import held_for, paces
from jobs.models import Job
from jobs.presentation import decorate
from jobs.queries import JobQuerySet
from jobs.resources import ResourceManager, live_workers, unserved_queues
from jobs.states import Status
from jobs.views.failures import TROUBLES_SHOWN, shown
from jobs.views.scope import visible_jobs

AWAY = timedelta(minutes=20)


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
            "troubles": [shown(trouble, visible, request.user) for trouble in needs[:TROUBLES_SHOWN]],
            "recent": decorate(list(visible.filter(completed_at__isnull=False).order_by("-completed_at")[:6])),
            "workers": workers_with_jobs(visible),
            "unserved": sorted(unserved_queues(waiting_queues)),
            "no_workers": not stats["workers"],
            "held": next(iter(held_for(visible)), None) if stats["held"] else None,
            "away": since_last_here(request, visible),
            "any_jobs": visible.exists(),
            "minutes": ended_per_minute(visible),
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
    return render(request, "jobs/slow.html", {"held": held_for(visible), "paces": found, "slower": slower})


def workers_with_jobs(visible: JobQuerySet) -> list[dict[str, Any]]:
    """Every live worker, with its job if the viewer may see that; otherwise only that it is busy."""
    busy = dict(Job.objects.running().order_by().values_list("worker_id", "id"))
    seen = {job.worker_id: job for job in visible.running().order_by()}
    return [
        {"name": w.name, "seen_at": w.seen_at, "busy": w.name in busy, "job": seen.get(w.name), "upkeep": w.upkeep}
        for w in live_workers().order_by("host", "pk")
    ]


def ended_per_minute(visible: QuerySet, minutes: int = 60) -> dict[str, Any]:
    """Bars of an SVG chart: jobs that completed or failed in each of the last 60 minutes."""
    now = timezone.now()
    first = now - timedelta(minutes=minutes)
    rows = visible.filter(completed_at__gte=first).order_by().values_list("completed_at", "status")
    done, failed = [0] * minutes, [0] * minutes
    for ended, status in rows.iterator():
        slot = min(minutes - 1, int((ended - first).total_seconds() // 60))
        if status == Status.FAILED:
            failed[slot] += 1
        elif status == Status.COMPLETED:
            done[slot] += 1
    top = max((d + f for d, f in zip(done, failed, strict=True)), default=0)
    scale = 84 / top if top else 0
    bars = [
        {"x": n * 10, "done_y": 90 - d * scale, "done_h": d * scale, "failed_y": 90 - (d + f) * scale, "failed_h": f * scale}
        for n, (d, f) in enumerate(zip(done, failed, strict=True))
    ]
    return {"bars": bars, "completed": sum(done), "failed": sum(failed), "top": top}
