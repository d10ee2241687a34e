"""The page of one job, its log and items, and the form for a new one."""

import csv
import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from jobs import failures, items, registry, timing, words
from jobs.errors import MEANING, InvalidParameters, NotAllowed, UnknownJobType
from jobs.forecast import place_of
from jobs.forms import JobOptionsForm
from jobs.graph import JOBS_MAX, graph_of
from jobs.manager import JobManager
from jobs.models import ArchivedJob, Artifact, Job, JobAttempt, JobDependency, JobGroup, JobItem, JobLog
from jobs.presentation import Badge, as_lists, chart, decorate, last_seq, live_fields, pace, told_live, type_label, unit_of
from jobs.previews import INLINE, preview_of
from jobs.resources import unserved_queues
from jobs.states import Level, Status
from jobs.views.scope import Echo, is_redraw, mark_seen, subject_of, visible_job, visible_jobs, without
from jobs.ways import ways_out

LOG_LINES_SHOWN = 300
ITEMS_SHOWN = 200
EVENTS_MARKED = 30
LEVELS = {"info": Level.INFO, "warning": Level.WARNING, "error": Level.ERROR}


@login_required
@require_GET
def job_detail(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    job = visible_jobs(request).filter(pk=job_id).first()
    if job is None:
        return archived_job(request, job_id)
    if request.GET.get("line") in LEVELS:  # as notifications say it, who do not know its number
        seq = last_seq(job, LEVELS[request.GET["line"]])
        return redirect(job.get_absolute_url() + (f"#L{seq}" if seq else ""))
    mark_seen(request, job=job, group=None, count=1)
    decorate([job])
    kind = registry.find(job.job_type)
    attempts = list(job.attempts.order_by("number"))
    log = LogAsked.of(request)
    lines = [] if is_redraw(request) else log.lines(job)
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
            "time": timing.split(job, attempts),
            "stages": timing.stages(attempts[-1] if attempts else None),
            "subject": subject_of(request, job.subject_id),
            "parameters": parameters_of(job),
            "chart": chart(samples, job.memory_limit_mb, events=serious_lines(job, attempts[-1]) if samples else ()),
            "lines": lines,
            "log_is_whole": len(lines) < LOG_LINES_SHOWN,
            "levels": levels_of(job),
            "level": log.level,
            "log": log,
            "artifacts": list(job.artifacts.all()),
            "unserved": job.status == Status.PENDING and bool(unserved_queues({job.queue_name})),
            "place": place_of(job),
            "error_seq": last_seq(job, Level.ERROR) if job.status == Status.FAILED else None,
            "ways": ways_out(job, request.user),
            "meaning": MEANING.get(job.error_kind, ""),
            "alike": failures.failed_jobs(visible_jobs(request), failures.lately()).filter(failure=job.failure).exclude(pk=job.pk).count()
            if job.failure
            else 0,
            "items": items.counts(job.pk),
            "can_pause": job.status == Status.PENDING or bool(kind and kind.resumable),
            "continues": linked(request, job.continues_id),
            "group": JobGroup.objects.visible_to(request.user).filter(pk=job.group_id).first() if job.group_id else None,
            "graph": graph_of(around(request, job)),
            "actions": list(job.logs.exclude(by="").order_by("-seq")[:50]),
            "continued_by": Job.objects.visible_to(request.user).filter(continues_id=job.pk).order_by().first(),
        },
    )


def around(request: HttpRequest, job: Job) -> list[Job]:
    """The job, those of its group, those that it needs and those that need it, as far as the viewer may see them."""
    edges = JobDependency.objects.filter(Q(job=job) | Q(needs=job)).order_by().values_list("job_id", "needs_id")
    near = {pk for edge in edges[: 2 * JOBS_MAX] for pk in edge}
    if not near and not job.group_id:
        return []
    which = Q(pk__in=near | {job.pk}) | (Q(group_id=job.group_id) if job.group_id else Q())
    return decorate(list(visible_jobs(request).filter(which).order_by("created_at", "pk")[: JOBS_MAX + 1]))


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


def serious_lines(job: Job, attempt: JobAttempt) -> list[tuple[float, int, str]]:
    """(seconds from the start, number, text) of the last warnings and errors of an attempt, for its chart."""
    rows = JobLog.objects.filter(job=job, level__gte=Level.WARNING, attempt=attempt.number).order_by("-seq")[:EVENTS_MARKED]
    return [((row.timestamp - attempt.started_at).total_seconds(), row.seq, row.message) for row in rows]


def parameters_of(job: Job) -> list[tuple[str, str]]:
    kind = registry.find(job.job_type)
    return kind.parameters_shown(job.parameters) if kind else [(name, str(value)) for name, value in job.parameters.items()]


@dataclass(frozen=True)
class LogAsked:
    """Which lines of a log an address asks for: from a level on, with a text, and around a line or else the last ones."""

    level_name: str
    find: str
    around: int | None
    unknown_level: str = ""

    @classmethod
    def of(cls, request: HttpRequest) -> "LogAsked":
        """What makes no sense is left out."""
        name, line = request.GET.get("level", ""), request.GET.get("line", "")
        find = request.GET.get("find", "").replace("\x00", "").strip()[:200]
        known = name if name in LEVELS else ""
        return cls(known, find, int(line) if line.isdecimal() and len(line) < 10 else None, "" if known else name[:40])

    @property
    def level(self) -> int:
        return LEVELS.get(self.level_name, Level.DEBUG)

    def lines(self, job: Job) -> list[JobLog]:
        rows = lines_of(job, self.level, self.find)
        if self.around is not None:
            rows = rows.filter(seq__lte=self.around + LOG_LINES_SHOWN // 2)
        return list(reversed(rows.order_by("-seq")[:LOG_LINES_SHOWN]))

    def query(self) -> str:
        """To be continued with a level."""
        return urlencode({"find": self.find}) if self.find else ""


def lines_of(job: Job, level: int, find: str) -> QuerySet:
    rows = JobLog.objects.filter(job=job, level__gte=level)
    return rows.filter(message__icontains=find) if find else rows


def levels_of(job: Job) -> dict[str, int]:
    counts = dict(JobLog.objects.filter(job=job).order_by().values_list("level").annotate(Count("pk")))
    errors = counts.get(Level.ERROR, 0)
    warnings = errors + counts.get(Level.WARNING, 0)
    return {"info": warnings + counts.get(Level.INFO, 0), "warning": warnings, "error": errors}


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
    message = {"type": "job.snapshot", "job": live_fields(job), "log_seq": job.log_seq, "lines": as_lists(rows)}
    return JsonResponse(told_live(message))


class LinesForm(forms.Form):
    """Which lines of a log: those next to a line, or else the last ones; from a level on, with a text."""

    before = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    after = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    level = forms.TypedChoiceField(required=False, choices=Level.choices, coerce=int)
    find = forms.CharField(required=False, max_length=200)


@login_required
@require_GET
def job_lines(request: HttpRequest, job_id: uuid.UUID) -> JsonResponse:
    """Up to LOG_LINES_SHOWN lines in their order, and whether there are more on that side. 400 names what makes no sense."""
    job = visible_job(request, job_id)
    form = LinesForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    said = form.cleaned_data
    rows = lines_of(job, said["level"] or Level.DEBUG, said["find"])
    if said["after"] is not None:
        rows = rows.filter(seq__gt=said["after"]).order_by("seq")
    else:
        rows = (rows if said["before"] is None else rows.filter(seq__lt=said["before"])).order_by("-seq")
    found = list(rows[: LOG_LINES_SHOWN + 1])
    lines = sorted(found[:LOG_LINES_SHOWN], key=lambda row: row.seq)
    return JsonResponse(told_live({"lines": as_lists(lines), "more": len(found) > LOG_LINES_SHOWN}))


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
    parameters, chosen = initial_of(request, kind)
    form = kind.form(request.POST or None, initial=parameters)
    options = JobOptionsForm(request.POST or None, user=request.user, initial=chosen)
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


def initial_of(request: HttpRequest, kind: registry.JobType) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters, options) that a new job begins with: those of an earlier one, for "run again with changes"."""
    chosen = {"subject": request.GET.get("subject")}
    try:
        source = uuid.UUID(request.GET.get("from", ""))
    except ValueError:
        return {}, chosen
    job = Job.objects.visible_to(request.user).filter(pk=source, job_type=kind.name).first()
    return (dict(job.parameters), {"subject": job.subject_id, "priority": job.priority}) if job else ({}, chosen)


def items_shown(request: HttpRequest, job: Job) -> tuple[QuerySet, str, str]:
    """The items that the request asks for, its outcome if there is such a one, and its text."""
    outcome, text = request.GET.get("outcome", ""), request.GET.get("q", "").replace("\x00", "").strip()[:200]
    known = outcome if outcome in JobItem.Outcome.values else ""
    return items.find(job.pk, known, text), known, text


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
            "unknown_outcome": "" if outcome else request.GET.get("outcome", "")[:40],
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


def visible_artifact(request: HttpRequest, artifact_id: uuid.UUID) -> Artifact:
    return get_object_or_404(Artifact.objects.visible_to(request.user), pk=artifact_id)


@contextmanager
def gone_is_a_404() -> Iterator[None]:
    """For what opens the file of an artifact: its row may be there when the file is not."""
    try:
        yield
    except FileNotFoundError:
        raise Http404("The file is no longer there.") from None


@login_required
@require_GET
def artifact(request: HttpRequest, artifact_id: uuid.UUID) -> FileResponse:
    """A file of a job, as a download: what a job made is never run in our origin. Pictures and PDF may be shown inside its preview."""
    found = visible_artifact(request, artifact_id)
    with gone_is_a_404():
        stream = found.file.open("rb")
    inline = "inline" in request.GET and found.media_type in INLINE
    response = FileResponse(stream, as_attachment=not inline, filename=found.name, content_type=found.media_type)
    if inline:
        response["X-Frame-Options"] = "SAMEORIGIN"
        response["Content-Security-Policy"] = "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'"
    return response


@login_required
@require_GET
def artifact_preview(request: HttpRequest, artifact_id: uuid.UUID) -> HttpResponse:
    found = visible_artifact(request, artifact_id)
    with gone_is_a_404():
        preview = preview_of(found)
    return render(request, "jobs/preview.html", {"file": found, "preview": preview, "job": linked(request, found.job_id)})
