"""The pages about jobs. Each works without JavaScript; the scripts make it move."""

import csv
import itertools
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from jobs import bulk, conf, failures, items, registry, words
from jobs.bottlenecks import held_for, paces
from jobs.errors import MEANING, InvalidParameters, NotAllowed, UnknownJobType
from jobs.filters import PERIODS, STATES, JobFilter, filtered, state_query
from jobs.forecast import place_of
from jobs.forms import AcknowledgeForm, BulkForm, CancelForm, JobOptionsForm, MailForm, RetryForm, SavedViewForm, priorities_for
from jobs.mailing import save_wishes
from jobs.manager import JobManager
from jobs.models import ArchivedJob, Artifact, Job, JobAttempt, JobGroup, JobItem, JobLog, MailWish, Notification, SavedView
from jobs.paging import COUNTED, counted, keyset_page
from jobs.presentation import Badge, badge, chart, decorate, group_state, live_fields, pace, type_label, unit_of
from jobs.queries import JobQuerySet, subjects_of
from jobs.resources import ResourceManager, live_workers, unserved_queues
from jobs.search import HITS_MAX
from jobs.states import Level, Priority, Status
from jobs.ways import ways_out

PAGE_SIZE = 50
LOG_LINES_SHOWN = 300
ITEMS_SHOWN = 200
TROUBLES_SHOWN = 6


def navigation(request: HttpRequest) -> dict[str, Any]:
    """What every page's head shows."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"unread": Notification.objects.filter(user=user, read_at=None).count()}


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


AWAY = timedelta(minutes=20)


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


@login_required
@require_GET
def job_list(request: HttpRequest) -> HttpResponse:
    visible = Job.objects.visible_to(request.user)
    filters, problems = filtered(request.GET, visible.select_related("created_by"), request)
    where = {name: request.GET.get(name, "") for name in ("after", "before")}
    page = keyset_page(filters.qs, filters.order, PAGE_SIZE, **where)
    if not page.rows and any(where.values()):
        return redirect(f"{reverse('job-list')}?{without(request, 'after', 'before')}")
    decorate(page.rows)
    count = counted(filters.qs)
    return render(
        request,
        "jobs/list.html",
        {
            "page": page,
            "count": count,
            "count_said": words.up_to(count, COUNTED),
            "newest_only": HITS_MAX if filters.has_more else None,
            "views": list(SavedView.objects.filter(user_id=str(request.user.pk))),
            "problems": problems,
            "chips": state_chips(request, visible),
            "filters": filters,
            "types": registry.choices(),
            "priorities": [(p.name, p.label) for p in Priority],
            "periods": PERIODS.items(),
            "creators": creators_of(request.user),
            "given": request.GET,
            "is_filtered": any(v for k, v in request.GET.items() if k in JobFilter.base_filters and k != "sort"),
            "subject": subject_of(request, request.GET.get("subject")),
            "query": without(request, "after", "before"),
        },
    )  # fmt: skip


@login_required
@require_GET
def job_list_csv(request: HttpRequest) -> StreamingHttpResponse:
    """The jobs of the list, with its filters and order, as CSV; up to `bulk_max` times ten of them."""
    filters, _ = filtered(request.GET, Job.objects.visible_to(request.user).select_related("created_by"), request)
    writer = csv.writer(Echo())
    head = ["id", "name", "type", "status", "state", "says", "priority", "by", "created", "started", "ended", "done", "of", "problems"]
    response = StreamingHttpResponse(
        itertools.chain([writer.writerow(head)], map(writer.writerow, csv_rows(filters.qs[: 10 * conf.get("bulk_max")]))),
        content_type="text/csv; charset=utf-8",
    )
    response["Content-Disposition"] = 'attachment; filename="jobs.csv"'
    return response


def csv_rows(jobs: JobQuerySet) -> Iterator[list[Any]]:
    for batch in items.batches(jobs.iterator(chunk_size=500), 500):
        for job in decorate(batch):
            by = job.created_by.get_username() if job.created_by else "system"
            moments = [moment.isoformat() if moment else "" for moment in (job.created_at, job.started_at, job.completed_at)]
            texts = [words.csv_cell(text) for text in (job.name, job.type_label, job.status, job.badge.label, job.sentence)]
            done = [job.completed_steps, "" if job.total_steps is None else job.total_steps, job.problem_count]
            yield [job.pk, *texts, job.get_priority_display(), words.csv_cell(by), *moments, *done]


@login_required
@require_POST
def view_save(request: HttpRequest) -> HttpResponse:
    """Keep the filters of the list under a name; the same name again replaces them."""
    form = SavedViewForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"{' '.join(str(text) for texts in form.errors.values() for text in texts)} Nothing was saved.")
        return redirect(f"{reverse('job-list')}?{request.POST.get('query', '')}")
    said = form.cleaned_data
    SavedView.objects.update_or_create(user_id=str(request.user.pk), name=said["name"], defaults={"query": said["query"]})
    messages.success(request, f"“{said['name']}” is among your views.")
    return redirect(f"{reverse('job-list')}?{said['query']}")


@login_required
@require_POST
def view_delete(request: HttpRequest, view_id: int) -> HttpResponse:
    view = get_object_or_404(SavedView.objects.filter(user_id=str(request.user.pk)), pk=view_id)
    view.delete()
    messages.success(request, f"“{view.name}” is no longer among your views.")
    return redirect("job-list")


def creators_of(user: Any) -> list[str]:
    """Of the jobs that a person may see: everybody who started one, or those who did on the person's subjects."""
    people = get_user_model().objects.order_by("username")
    if user.has_perm("jobs.view_all_jobs"):
        people = people.filter(Exists(Job.objects.filter(created_by=OuterRef("pk")).order_by()))
    else:
        subjects = subjects_of(user)
        shared = Job.objects.none() if subjects is None else Job.objects.filter(subject_id__in=subjects.values("pk"))
        people = people.filter(pk__in={user.pk, *shared.order_by().values_list("created_by_id", flat=True).distinct()})
    return list(people.values_list("username", flat=True)[:100])


def without(request: HttpRequest, *names: str) -> str:
    """The query of this page without some of its names, ready to be continued."""
    query = request.GET.copy()
    for name in names:
        query.pop(name, None)
    return query.urlencode()


def state_chips(request: HttpRequest, visible: QuerySet) -> list[dict[str, Any]]:
    """The states as filters with their counts, each a link that switches it on or off."""
    chosen = set(request.GET.getlist("state"))
    counts = {name: counted(visible.filter(state_query(name))) for name in STATES}
    chips = []
    for name, label in STATES.items():
        query = request.GET.copy()
        for name_of_place in ("after", "before"):
            query.pop(name_of_place, None)
        query.setlist("state", sorted(chosen ^ {name}))
        chips.append(
            {"name": name, "label": label, "count": words.up_to(counts[name], COUNTED), "on": name in chosen, "query": query.urlencode()}
        )
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
    return get_object_or_404(visible_jobs(request), pk=job_id)


def visible_jobs(request: HttpRequest) -> JobQuerySet:
    return Job.objects.visible_to(request.user).select_related("created_by")


@login_required
@require_GET
def job_detail(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_jobs(request).filter(pk=job_id).first()
    if job is None:
        return archived_job(request, job_id)
    decorate([job])
    kind = registry.find(job.job_type)
    attempts = list(job.attempts.order_by("number"))
    level = LEVELS.get(request.GET.get("level", ""), Level.DEBUG)
    samples = attempts[-1].samples if attempts else []
    for attempt in attempts:
        attempt.chart = chart(attempt.samples, None, width=110, height=26)
    return render(
        request,
        "jobs/detail.html",
        {
            "job": job,
            "kind": kind,
            "attempt": attempts[-1] if attempts else JobAttempt(),  # of a job that never ran there is nothing to show
            "attempts": attempts,
            "tries": job.max_retries + 1,
            "unit": unit_of(job),
            "pace": pace(job),
            "subject": subject_of(request, job.subject_id),
            "parameters": parameters_of(job),
            "chart": chart(samples, job.memory_limit_mb),
            "lines": last_lines(job, level),
            "levels": levels_of(job),
            "level": level,
            "artifacts": list(job.artifacts.all()),
            "unserved": job.status == Status.PENDING and bool(unserved_queues({job.queue_name})),
            "place": place_of(job),
            "error_seq": error_seq(job),
            "ways": ways_out(job, request.user),
            "meaning": MEANING.get(job.error_kind, ""),
            "alike": failures.failed_jobs(visible_jobs(request)).filter(failure=job.failure).exclude(pk=job.pk).count()
            if job.failure
            else 0,
            "items": items.counts(job.pk),
            "can_pause": job.status == Status.PENDING or bool(kind and kind.resumable),
            "continues": linked(request, job.continues_id),
            "group": JobGroup.objects.visible_to(request.user).filter(pk=job.group_id).first() if job.group_id else None,
            "needs": neighbours(request, Q(needed_by__job=job)),
            "needed_by": neighbours(request, Q(dependencies__needs=job)),
            "continued_by": Job.objects.visible_to(request.user).filter(continues_id=job.pk).order_by().first(),
        },
    )


def neighbours(request: HttpRequest, which: Q) -> list[Job]:
    """The jobs that one depends on, or that depend on it, as far as the viewer may see them."""
    return decorate(list(visible_jobs(request).filter(which).order_by("created_at")[:50]))


def linked(request: HttpRequest, job_id: uuid.UUID | None) -> Job | None:
    return Job.objects.visible_to(request.user).filter(pk=job_id).first() if job_id else None


def archived_job(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """What stays of a job in the archive; a 404 for what never was or is not the viewer's."""
    stub = get_object_or_404(ArchivedJob.objects.visible_to(request.user).select_related("created_by", "archive"), pk=job_id)
    return render(
        request,
        "jobs/archived.html",
        {
            "job": stub,
            "type_label": type_label(stub.job_type),
            "badge": Badge(stub.status.lower(), stub.get_status_display()),
            "artifacts": list(Artifact.objects.filter(job_id=stub.pk)),
            "subject": subject_of(request, stub.subject_id),
        },
    )


LEVELS = {"warning": Level.WARNING, "error": Level.ERROR}


def parameters_of(job: Job) -> list[tuple[str, str]]:
    kind = registry.find(job.job_type)
    return kind.parameters_shown(job.parameters) if kind else [(name, str(value)) for name, value in job.parameters.items()]


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
                place = options if name in options.fields else form
                place.add_error(name if name in place.fields else None, texts)
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


def asked(request: HttpRequest, job: Job, ask: Any, said: str) -> HttpResponse:
    """Do what was asked of a job and say what came of it; go to the job, or to the new one that was made."""
    try:
        answer = ask()
    except (NotAllowed, InvalidParameters, UnknownJobType) as error:
        messages.error(request, f"{error} Nothing was changed.")
        return redirect(job)
    if answer is False:
        job.refresh_from_db()
        messages.error(request, f"That does not fit how this job stands: it is {badge(job).label.lower()}. Nothing was changed.")
        return redirect(job)
    messages.success(request, said)
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
    return asked(request, job, lambda: JobManager().pause_job(job.pk, by=request.user), said)


@login_required
@require_POST
def job_resume(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    return asked(request, job, lambda: JobManager().resume_job(job.pk, by=request.user), f"“{job.name}” goes on.")


@login_required
@require_POST
def job_keep(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    keep = request.POST.get("keep") == "1"
    said = "Cleanup leaves this job alone." if keep else "Cleanup may archive this job once it is old enough."
    return asked(request, job, lambda: JobManager().set_keep(job.pk, keep, by=request.user), said)


# -- groups -----------------------------------------------------------------------------------------


def visible_group(request: HttpRequest, group_id: uuid.UUID) -> JobGroup:
    return get_object_or_404(JobGroup.objects.visible_to(request.user).select_related("created_by"), pk=group_id)


@login_required
@require_GET
def group_detail(request: HttpRequest, group_id: uuid.UUID) -> HttpResponse:
    """Jobs that were started as one: how far they are together, and each with what it waits for."""
    group = visible_group(request, group_id)
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
        messages.success(
            request, f"{len(taken_up)} of its jobs {'is' if len(taken_up) == 1 else 'are'} taken up again; what is done stays."
        )
    return redirect(group)


# -- failures ---------------------------------------------------------------------------------------


def shown(trouble: failures.Trouble, visible: JobQuerySet, user: Any) -> failures.Trouble:
    """With the job and its first way out, where there is only one to deal with."""
    if trouble.jobs + trouble.item_jobs == 1:
        with_it = visible.filter(failures.with_failure(trouble.group.pk)).filter(status=Status.FAILED if trouble.jobs else Status.COMPLETED)
        trouble.job = next(iter(decorate(list(with_it.order_by("-created_at")[:1]))), None)
    if trouble.job is not None:
        trouble.way = next(iter(ways_out(trouble.job, user)), None)
    return trouble


def visible_trouble(request: HttpRequest, fingerprint: str) -> failures.Trouble:
    """404 for a failure that no job of the viewer's scope had lately."""
    found = failures.troubles(visible_jobs(request), fingerprint)
    if not found:
        raise Http404("No job that you may see failed in this way in the last days.")
    return found[0]


@login_required
@require_GET
def failure_list(request: HttpRequest) -> HttpResponse:
    found = failures.troubles(visible_jobs(request))
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
    trouble, visible = visible_trouble(request, fingerprint), visible_jobs(request)
    with_it = visible.filter(failures.with_failure(fingerprint)).order_by("-created_at", "-id")
    context = {
        "trouble": trouble,
        "group": trouble.group,
        "meaning": MEANING.get(trouble.group.kind, ""),
        "jobs": decorate(list(with_it[:PAGE_SIZE])),
        "waiting": visible.waiting().filter(failure=fingerprint).count(),
        "trend": failures.trend(visible, fingerprint),
        "hours": failures.TREND_HOURS,
        "items": list(failures.failed_items(visible).filter(failure=fingerprint).select_related("job").order_by("-at")[:20]),
    }
    return render(request, "jobs/failure.html", context)


@login_required
@require_POST
def failure_acknowledge(request: HttpRequest, fingerprint: str) -> HttpResponse:
    trouble = visible_trouble(request, fingerprint)
    form = AcknowledgeForm(request.POST)
    if not form.is_valid():
        messages.error(request, "A note has up to 300 characters. Nothing was changed.")
    elif form.cleaned_data["again"]:
        failures.acknowledge(fingerprint, "", by=None)
        messages.success(request, f"“{trouble.group}” needs people again.")
    else:
        failures.acknowledge(fingerprint, form.cleaned_data["note"], by=request.user)
        messages.success(request, f"“{trouble.group}” needs nobody until it comes back.")
    return redirect(trouble.group)


@login_required
@require_POST
def failure_retry_items(request: HttpRequest, fingerprint: str) -> HttpResponse:
    """A new job for what failed in each job that has such items."""
    trouble, visible = visible_trouble(request, fingerprint), visible_jobs(request)
    ids = failures.failed_items(visible).filter(failure=fingerprint).values("job_id")
    outcomes = bulk.act("retry_items", list(visible.filter(pk__in=ids)[: conf.get("bulk_max")]), by=request.user)
    done = sum(outcome.done for outcome in outcomes)
    if done:
        messages.success(request, f"{words.count(done, 'new job')} {'takes' if done == 1 else 'take'} up what failed.")
    for outcome in [outcome for outcome in outcomes if not outcome.done][:5]:
        messages.error(request, f"“{outcome.job}”: {outcome.detail}")
    return redirect("failure-list" if done == len(outcomes) else trouble.group)


# -- items ------------------------------------------------------------------------------------------


def items_shown(request: HttpRequest, job: Job) -> tuple[QuerySet, str, str]:
    """The items that the request asks for, its outcome and its text."""
    outcome, text = request.GET.get("outcome", ""), request.GET.get("q", "").replace("\x00", "").strip()[:200]
    return items.find(job.pk, outcome if outcome in JobItem.Outcome.values else "", text), outcome, text


@login_required
@require_GET
def job_items(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_job(request, job_id)
    decorate([job])
    rows, outcome, text = items_shown(request, job)
    counts = items.counts(job.pk)
    chips = [{"value": "", "label": "All", "count": sum(counts.values())}]
    chips += [{"value": value, "label": label, "count": counts[value]} for value, label in JobItem.Outcome.choices]
    return render(
        request,
        "jobs/items.html",
        {
            "job": job,
            "page": Paginator(rows, ITEMS_SHOWN).get_page(request.GET.get("page")),
            "chips": chips,
            "outcome": outcome,
            "text": text,
            "query": without(request, "page"),
            "ways": [way for way in ways_out(job, request.user) if way.key == "retry_items"],
        },
    )


@login_required
@require_GET
def job_items_csv(request: HttpRequest, job_id: uuid.UUID) -> StreamingHttpResponse:
    """The items as CSV, with the filters of the page. Cells that a spreadsheet would run are made text."""
    job = visible_job(request, job_id)
    rows, _, _ = items_shown(request, job)
    writer = csv.writer(Echo())
    head = writer.writerow(["item", "outcome", "kind", "reason", "attempt", "at"])
    lines = (
        writer.writerow([words.csv_cell(r.key), r.outcome, r.kind, words.csv_cell(r.reason), r.attempt, r.at.isoformat()])
        for r in rows.iterator(chunk_size=2000)
    )
    response = StreamingHttpResponse(itertools.chain([head], lines), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="job-{job.pk}-items.csv"'
    return response


class Echo:
    """A file for csv.writer that gives back what is written."""

    def write(self, text: str) -> str:
        return text


# -- many at once -----------------------------------------------------------------------------------


@login_required
@require_POST
def job_bulk(request: HttpRequest) -> HttpResponse:
    """First how many jobs an action is for, then, confirmed, what came of each."""
    form = BulkForm(request.POST)
    if not form.is_valid():
        messages.error(request, "This action is not known. Nothing was changed.")
        return redirect("job-list")
    said = form.cleaned_data
    back = f"{reverse('job-list')}?{said['query']}"
    jobs, problem = chosen_jobs(request, said)
    if problem:
        messages.error(request, f"{problem} Nothing was changed.")
        return redirect(back)
    most = conf.get("bulk_max")
    action = bulk.ACTIONS[said["action"]]
    priorities = priorities_for(request.user)
    context = {
        "name": said["action"],
        "action": action,
        "given": said,
        "back": back,
        "most": most,
        "priorities": priorities,
        "normal": Priority.NORMAL,
    }
    if not said["confirmed"]:
        shown = decorate(list(jobs[:20]))
        context |= {"count": counted(jobs), "jobs": shown, "ids": [] if said["everything"] else request.POST.getlist("job")}
        return render(request, "jobs/bulk.html", context)
    outcomes = bulk.act(said["action"], list(jobs[:most]), by=request.user, reason=said["reason"], priority=said["priority"])
    done = sum(outcome.done for outcome in outcomes)
    return render(request, "jobs/bulk.html", {**context, "outcomes": outcomes, "done": done, "refused": len(outcomes) - done})


def chosen_jobs(request: HttpRequest, said: dict[str, Any]) -> tuple[JobQuerySet, str]:
    """The jobs that a bulk action is for, or why there are none."""
    visible = visible_jobs(request).order_by("-created_at", "-id")
    if said["everything"]:
        filters, problems = filtered(QueryDict(said["query"]), visible, request)
        if problems:
            return visible.none(), problems[0]
        jobs = filters.qs
    else:
        try:
            jobs = visible.filter(pk__in=bulk.ids_of(request.POST.getlist("job")))
        except ValueError:
            return visible.none(), "One of the chosen jobs has no proper id."
    if not jobs.exists():
        return visible.none(), "No job matches." if said["everything"] else "No job was chosen."
    return jobs, ""


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
    rows = list(mine.select_related("job", "group")[:100])
    return render(request, "jobs/notifications.html", {"rows": rows})


SUBJECTS_SHOWN = 100


@login_required
def mail_settings(request: HttpRequest) -> HttpResponse:
    """Of which ends the viewer gets mail, and when not."""
    subjects = list((subjects_of(request.user) or Job.objects.none())[:SUBJECTS_SHOWN])
    wishes = {wish.subject_id: wish for wish in MailWish.objects.filter(user_id=str(request.user.pk))}
    general = wishes.get(None) or MailWish()
    initial: dict[str, Any] = {name: getattr(general, name) for name in ("mail", "quiet_from", "quiet_until")}
    initial |= {f"subject_{subject_id}": wish.mail for subject_id, wish in wishes.items() if subject_id}
    form = MailForm(request.POST or None, initial=initial, subjects=subjects)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        asked_for = {name: said[name] for name in ("mail", "quiet_from", "quiet_until")}
        by_subject = {subject.pk: said[name] for name, subject in form.subject_fields.items()}
        save_wishes(request.user, {**asked_for, "zone": timezone.get_current_timezone_name()}, by_subject)
        messages.success(request, "Your wishes about mail are saved.")
        return redirect("mail-settings")
    context = {"form": form, "zone": timezone.get_current_timezone_name(), "address": getattr(request.user, "email", "")}
    return render(request, "jobs/mail_settings.html", context, status=422 if form.errors else 200)
