"""The pieces that pages are made of, on one page for those who make pages: only where DEBUG is on."""

from datetime import timedelta
from typing import cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from jobs.models import Job, JobLog
from jobs.presentation import Badge, decorate
from jobs.states import Level, Status

COLORS = ("bg", "surface", "sunken", "line", "ink", "ink-2", "accent", "running", "completed", "failed", "held", "retrying", "cancelled")
BADGES = (
    Badge("waiting", "Waiting"), Badge("held", "Held"), Badge("retrying", "Retries in 4 min 12 s"), Badge("running", "Running"),
    Badge("completed", "Completed, 7 of 1,000 failed"), Badge("failed", "Failed"), Badge("cancelled", "Cancelled"),
)  # fmt: skip


@login_required
@require_GET
def styleguide(request: HttpRequest) -> HttpResponse:
    if not settings.DEBUG:
        raise Http404
    now, viewer = timezone.now(), cast(User, request.user)
    jobs = [
        Job(name="Scrape 1,000 pages of example.org", status=Status.RUNNING, current_step="Fetching example.org/412", total_steps=1000,
            completed_steps=412, progress_percent=41.2, started_at=now - timedelta(minutes=2), estimated_duration=300, created_by=viewer),
        Job(name="Make the report", status=Status.PENDING, hold_reason="Waits for “Find duplicates”", created_by=viewer),
        Job(name="Extract entities", status=Status.FAILED, error_message="Needed more memory than the 512 MB it may use",
            started_at=now - timedelta(minutes=9), completed_at=now - timedelta(minutes=1), attempt=1, created_by=viewer),
    ]  # fmt: skip
    texts = {Level.DEBUG: "Looked up example.org", Level.INFO: "Fetched example.org/412 200 24 kB", Level.WARNING: "No progress for 3 min"}
    texts[Level.ERROR] = "Failed: example.org does not answer in 30 s"
    lines = [JobLog(seq=n, level=level, message=text, timestamp=now) for n, (level, text) in enumerate(texts.items(), 1)]
    context = {"colors": COLORS, "badges": BADGES, "jobs": decorate(jobs), "lines": lines, "counts": [0, 2, 5, 1, 0, 8, 3]}
    return render(request, "jobs/styleguide.html", context)
