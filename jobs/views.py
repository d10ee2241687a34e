"""The pages about jobs. Each works without JavaScript; the scripts make it move."""

import uuid
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from jobs import registry
from jobs.errors import InvalidParameters, NotAllowed, UnknownJobType
from jobs.filters import PERIODS, STATES, JobFilter, filtered, state_query
from jobs.forms import CancelForm, JobOptionsForm
from jobs.manager import JobManager
from jobs.models import Artifact, Job, JobLog, Notification
from jobs.presentation import chart, decorate, live_fields, pace
from jobs.queries import JobQuerySet, subjects_of
from jobs.resources import ResourceManager, live_workers, unserved_queues
from jobs.states import Level, Priority, Status

PAGE_SIZE = 50
LOG_LINES_SHOWN = 300


def navigation(request: HttpRequest) -> dict[str, Any]:
    """What every page's head shows."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"unread": Notification.objects.filter(user=user, read_at=None).count()}


@login_required
@require_GET
def dashboard(request: HttpRequest) -> HttpResponse:
    visible = Job.objects.visible_to(request.user).select_related("created_by")
    day_ago = timezone.now() - timedelta(hours=24)
    running = decorate(list(visible.running().order_by("started_at")[:20]))
    failed = decorate(list(visible.filter(status=Status.FAILED, completed_at__gte=day_ago).order_by("-completed_at")[:5]))
    stats = ResourceManager().get_queue_statistics(request.user)
    waiting_queues = set(visible.waiting().order_by().values_list("queue_name", flat=True).distinct())
    return render(
        request,
        "jobs/dashboard.html",
        {
            "stats": stats,
            "ended": sum(stats["ended_24h"].values()),
            "running": running,
            "failed": failed,
            "recent": decorate(list(visible.ended().order_by("-completed_at")[:6])),
            "workers": workers_with_jobs(visible),
            "unserved": sorted(unserved_queues(waiting_queues)),
            "no_workers": not stats["workers"],
            "any_jobs": visible.exists(),
            "minutes": ended_per_minute(visible),
        },
    )


def workers_with_jobs(visible: JobQuerySet) -> list[dict[str, Any]]:
    """Every live worker, with its job if the viewer may see that; otherwise only that it is busy."""
    busy = dict(Job.objects.running().values_list("worker_id", "id"))
    seen = {job.worker_id: job for job in visible.running()}
    return [
        {"name": w.name, "seen_at": w.seen_at, "busy": w.name in busy, "job": seen.get(w.name)}
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


@login_required
@require_GET
def job_list(request: HttpRequest) -> HttpResponse:
    visible = Job.objects.visible_to(request.user)
    filters, problems = filtered(request.GET, visible.select_related("created_by"))
    page = Paginator(filters.qs, PAGE_SIZE).get_page(request.GET.get("page"))
    page.object_list = decorate(list(page.object_list))
    return render(
        request,
        "jobs/list.html",
        {
            "page": page,
            "problems": problems,
            "chips": state_chips(request, visible),
            "filters": filters,
            "types": registry.choices(),
            "priorities": [(p.name, p.label) for p in Priority],
            "periods": PERIODS.items(),
            "creators": creators_of(visible),
            "given": request.GET,
            "is_filtered": any(v for k, v in request.GET.items() if k in JobFilter.base_filters and k != "sort"),
            "subject": subject_of(request, request.GET.get("subject")),
            "query": without(request, "page"),
        },
    )  # fmt: skip


def creators_of(visible: QuerySet) -> list[str]:
    names = visible.exclude(created_by=None).order_by("created_by__username").values_list("created_by__username", flat=True)
    return list(names.distinct()[:100])


def without(request: HttpRequest, *names: str) -> str:
    """The query of this page without some of its names, ready to be continued."""
    query = request.GET.copy()
    for name in names:
        query.pop(name, None)
    return query.urlencode()


def state_chips(request: HttpRequest, visible: QuerySet) -> list[dict[str, Any]]:
    """The states as filters with their counts, each a link that switches it on or off."""
    chosen = set(request.GET.getlist("state"))
    counts = visible.order_by().aggregate(**{name: Count("pk", filter=state_query(name)) for name in STATES})
    chips = []
    for name, label in STATES.items():
        query = request.GET.copy()
        query.pop("page", None)
        query.setlist("state", sorted(chosen ^ {name}))
        chips.append({"name": name, "label": label, "count": counts[name], "on": name in chosen, "query": query.urlencode()})
    return chips


def subject_of(request: HttpRequest, subject_id: Any) -> Any:
    """The subject, if there is one and the viewer may see it."""
    subjects = subjects_of(request.user)
    if subjects is None or not subject_id:
        return None
    try:
        return subjects.filter(pk=subject_id).first()
    except ValidationError:  # not a UUID
        return None


def visible_job(request: HttpRequest, job_id: uuid.UUID) -> Job:
    """404 for what is outside the viewer's scope, as for what does not exist."""
    return get_object_or_404(Job.objects.visible_to(request.user).select_related("created_by"), pk=job_id)


@login_required
@require_GET
def job_detail(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    decorate([job])
    kind = registry.find(job.job_type)
    attempts = list(job.attempts.order_by("number"))
    level = LEVELS.get(request.GET.get("level", ""), Level.DEBUG)
    samples = attempts[-1].samples if attempts else []
    return render(
        request,
        "jobs/detail.html",
        {
            "job": job,
            "kind": kind,
            "attempt": attempts[-1] if attempts else None,
            "attempts": attempts,
            "tries": job.max_retries + 1,
            "pace": pace(job),
            "subject": subject_of(request, job.subject_id),
            "parameters": parameters_of(job),
            "chart": chart(samples, job.memory_limit_mb),
            "lines": last_lines(job, level),
            "levels": levels_of(job),
            "level": level,
            "artifacts": list(job.artifacts.all()),
            "unserved": job.status == Status.PENDING and bool(unserved_queues({job.queue_name})),
            "before": jobs_before(job) if job.status == Status.PENDING else None,
            "error_seq": error_seq(job),
        },
    )


LEVELS = {"warning": Level.WARNING, "error": Level.ERROR}


def jobs_before(job: Job) -> int:
    """How many due jobs of the same queue are likely to start before this one."""
    due = Job.objects.waiting().due(timezone.now()).filter(queue_name=job.queue_name)
    return due.filter(Q(priority__gt=job.priority) | Q(priority=job.priority, run_after__lt=job.run_after)).count()


def parameters_of(job: Job) -> list[tuple[str, str]]:
    """Names and values as people read them."""
    kind = registry.find(job.job_type)
    if kind and kind.show_parameters:
        return kind.show_parameters(job.parameters)
    labels = {name: str(f.label or name.replace("_", " ").capitalize()) for name, f in kind.form.base_fields.items()} if kind else {}
    return [(labels.get(name, name), str(value)) for name, value in job.parameters.items() if value not in (None, "", [])]


def last_lines(job: Job, level: int) -> list[JobLog]:
    rows = JobLog.objects.filter(job=job, level__gte=level).order_by("-seq")[:LOG_LINES_SHOWN]
    return list(reversed(rows))


def levels_of(job: Job) -> dict[str, int]:
    counts = dict(JobLog.objects.filter(job=job).order_by().values_list("level").annotate(Count("pk")))
    errors = counts.get(Level.ERROR, 0)
    return {"all": job.log_seq, "warning": errors + counts.get(Level.WARNING, 0), "error": errors}


def error_seq(job: Job) -> int | None:
    """The number of the line that says why a failed job failed."""
    if job.status != Status.FAILED:
        return None
    return JobLog.objects.filter(job=job, level=Level.ERROR).order_by("-seq").values_list("seq", flat=True).first()


@login_required
@require_GET
def job_live(request: HttpRequest, job_id: uuid.UUID) -> JsonResponse:
    """What the socket would say, for pages that have none: the job now, and its log after a line."""
    job = visible_job(request, job_id)
    try:
        after = max(0, int(request.GET.get("after", "")))
    except ValueError:
        after = job.log_seq
    rows = JobLog.objects.filter(job=job, seq__gt=after).order_by("seq")[:500]
    lines = [[row.seq, row.level, row.message, row.timestamp.timestamp(), row.step_name] for row in rows]
    return JsonResponse({"type": "job.snapshot", "job": live_fields(job), "log_seq": job.log_seq, "lines": lines})


@login_required
@require_GET
def job_log(request: HttpRequest, job_id: uuid.UUID) -> StreamingHttpResponse:
    """The whole log as a text file."""
    job = visible_job(request, job_id)
    rows = JobLog.objects.filter(job=job).order_by("seq").iterator(chunk_size=2000)
    text = (
        f"{row.seq:>7}  {timezone.localtime(row.timestamp):%Y-%m-%d %H:%M:%S.%f%z}  {row.get_level_display():<7}  {row.message}\n"
        for row in rows
    )
    response = StreamingHttpResponse(text, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="job-{job.pk}.log"'
    return response


@login_required
def job_new(request: HttpRequest, job_type: str = "") -> HttpResponse:
    """Choose a type, or fill in the parameters of one."""
    types = list(registry.offered())
    if not job_type:
        return redirect("job-new-of", types[0].name) if len(types) == 1 else render(request, "jobs/new.html", {"types": types})
    try:
        kind = registry.get(job_type)
    except UnknownJobType as error:
        raise Http404(str(error)) from None
    start = initial_of(request, kind)
    form = kind.form(request.POST or None, initial=start)
    options = JobOptionsForm(request.POST or None, user=request.user, initial={"subject": request.GET.get("subject")})
    if request.method == "POST" and form.is_valid() & options.is_valid():
        try:
            subject = options.cleaned_data.get("subject")
            job = JobManager().create_job(
                kind.name,
                parameters=form.cleaned_data,
                created_by=request.user,
                priority=options.cleaned_data["priority"],
                subject_id=subject.pk if subject else None,
            )
            return redirect(job)
        except InvalidParameters as error:
            for name, texts in error.errors.items():
                form.add_error(name if name in form.fields else None, texts)
        except NotAllowed as error:
            form.add_error(None, str(error))
    status = 422 if form.errors or options.errors else 200
    return render(request, "jobs/new.html", {"kind": kind, "form": form, "options": options, "types": types}, status=status)


def initial_of(request: HttpRequest, kind: registry.JobType) -> dict[str, Any]:
    """The parameters of an earlier job, for "run again with changes"."""
    try:
        source = uuid.UUID(request.GET.get("from", ""))
    except ValueError:
        return {}
    job = Job.objects.visible_to(request.user).filter(pk=source, job_type=kind.name).first()
    return dict(job.parameters) if job else {}


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


@login_required
@require_POST
def job_retry(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    try:
        JobManager().retry_job(job.pk, by=request.user)
        messages.success(request, f"“{job.name}” waits for a worker and goes on where it stopped.")
    except NotAllowed as error:
        messages.error(request, f"{error} Nothing was changed.")
    return redirect(job)


@login_required
@require_GET
def artifact(request: HttpRequest, artifact_id: uuid.UUID) -> FileResponse:
    """A file of a job, always as a download: what a job made is never run in our origin."""
    found = get_object_or_404(Artifact.objects.visible_to(request.user), pk=artifact_id)
    try:
        stream = found.file.open("rb")
    except FileNotFoundError:
        raise Http404("The file is no longer there.") from None
    return FileResponse(stream, as_attachment=True, filename=found.name, content_type=found.media_type)


@login_required
def notifications(request: HttpRequest) -> HttpResponse:
    mine = Notification.objects.filter(user_id=str(request.user.pk))
    if request.method == "POST":
        mine.filter(read_at=None).update(read_at=timezone.now())
        return redirect("notifications")
    rows = list(mine.select_related("job")[:100])
    return render(request, "jobs/notifications.html", {"rows": rows})
