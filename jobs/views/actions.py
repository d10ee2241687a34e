"""What people ask of one job, or of a group, with a button."""

import uuid
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import InvalidParameters, NotAllowed, UnknownJobType
from jobs.forms import CancelForm, RetryForm
from jobs.graph import graph_of
from jobs.manager import JobManager
from jobs.models import Artifact, Job, JobGroup
from jobs.presentation import badge, group_state
from jobs.states import Status
from jobs.views.scope import mark_seen, offer_undo, subject_of, visible_job


@login_required
@require_POST
def job_cancel(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    form = CancelForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    if JobManager().cancel_job(job.pk, reason, by=request.user):
        messages.success(request, f"“{job.name}” is being cancelled." if job.status == Status.RUNNING else f"“{job.name}” is cancelled.")
    else:
        job.refresh_from_db()
        already = "is being cancelled" if job.status == Status.RUNNING else f"has already ended ({job.get_status_display().lower()})"
        messages.error(request, f"This job {already}. Nothing was changed.")
    return redirect(job)


def asked(request: HttpRequest, job: Job, ask: Any, said: str, undo: str = "", **values: str) -> HttpResponse:
    """Do what was asked of a job and say what came of it; go to the job, or to the new one that was made.

    `undo` names the view that takes it back, with `values`.
    """
    try:
        answer = ask()
    except (NotAllowed, InvalidParameters, UnknownJobType) as error:
        messages.error(request, f"{error} Nothing was changed.")
        return redirect(job)
    if answer is False:
        job.refresh_from_db()
        if job.is_ended:
            stands = f"This job has already ended ({job.get_status_display().lower()})."
        else:
            stands = f"That does not fit how this job stands: it is {badge(job).label.lower()}."
        messages.error(request, f"{stands} Nothing was changed.")
        return redirect(job)
    messages.success(request, said)
    if undo:
        offer_undo(request, reverse(undo, args=[job.pk]), **values)
    return redirect(answer if isinstance(answer, Job) else job)


@login_required
@require_POST
def job_retry(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    form = RetryForm(request.POST)
    if not form.is_valid():
        messages.error(request, "A limit is a whole number. Nothing was changed.")
        return redirect(job)
    said = f"“{job.name}” waits for a worker."
    return asked(request, job, lambda: JobManager().retry_job(job.pk, by=request.user, **form.cleaned_data), said)


@login_required
@require_POST
def job_run_now(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    return asked(request, job, lambda: JobManager().run_now(job.pk, by=request.user), f"“{job.name}” waits for a worker.")


@login_required
@require_POST
def job_retry_items(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    return asked(request, job, lambda: JobManager().retry_items(job.pk, by=request.user), "This new job takes up what failed.")


@login_required
@require_POST
def job_continue(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    return asked(request, job, lambda: JobManager().continue_job(job.pk, by=request.user), "This new job goes on where the other stopped.")


@login_required
@require_POST
def job_pause(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    said = f"“{job.name}” stops at its next checkpoint." if job.status == Status.RUNNING else f"“{job.name}” is paused."
    return asked(request, job, lambda: JobManager().pause_job(job.pk, by=request.user), said, "job-resume")


@login_required
@require_POST
def job_resume(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    return asked(request, job, lambda: JobManager().resume_job(job.pk, by=request.user), f"“{job.name}” goes on.", "job-pause")


@login_required
@require_POST
def job_keep(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    keep = request.POST.get("keep") == "1"
    said = "Cleanup leaves this job alone." if keep else "Cleanup may archive this job once it is old enough."
    return asked(request, job, lambda: JobManager().set_keep(job.pk, keep, by=request.user), said, "job-keep", keep="0" if keep else "1")


def visible_group(request: HttpRequest, group_id: uuid.UUID) -> JobGroup:
    return get_object_or_404(JobGroup.objects.visible_to(request.user).select_related("created_by"), pk=group_id)


@login_required
@require_GET
def group_detail(request: HttpRequest, group_id: uuid.UUID) -> HttpResponse:
    """Jobs that were started as one: how far they are together, and each with what it waits for."""
    group = visible_group(request, group_id)
    mark_seen(request, group=group)
    state = group_state(group)
    artifacts = Artifact.objects.filter(job_id__in=[job.pk for job in state.jobs]).order_by("created_at")
    ended = all(job.is_ended for job in state.jobs)
    return render(
        request,
        "jobs/group.html",
        {
            "group": group,
            "state": state,
            "jobs": state.jobs,
            "graph": graph_of(state.jobs),
            "done": sum(job.status == Status.COMPLETED for job in state.jobs),
            "artifacts": list(artifacts),
            "ended": ended,
            "can_retry": ended and any(job.status in (Status.FAILED, Status.CANCELLED) for job in state.jobs),
            "subject": subject_of(request, group.subject_id),
        },
    )


@login_required
@require_POST
def group_cancel(request: HttpRequest, group_id: uuid.UUID) -> HttpResponse:
    group = visible_group(request, group_id)
    count = JobManager().cancel_group(group, by=request.user)
    if count:
        messages.success(request, f"{count} of its jobs will stop. What is done is kept.")
    else:
        messages.error(request, "All of its jobs have ended already. Nothing was changed.")
    return redirect(group)


@login_required
@require_POST
def group_retry(request: HttpRequest, group_id: uuid.UUID) -> HttpResponse:
    group = visible_group(request, group_id)
    try:
        taken_up = JobManager().retry_group(group, by=request.user)
    except (NotAllowed, InvalidParameters, UnknownJobType) as error:
        messages.error(request, f"{error} Nothing was changed.")
    else:
        count = len(taken_up)
        messages.success(
            request,
            "1 of its jobs is taken up again; what is done stays."
            if count == 1
            else f"{count} of its jobs are taken up again; what is done stays.",
        )
    return redirect(group)
