"""The pages about subjects and what was found about them."""

import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Page, Paginator
from django.db import DatabaseError, connection
from django.db.models import BooleanField, Count, ExpressionWrapper, F, Prefetch, Q, QuerySet
from django.db.models.functions import Greatest, Least, Substr
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from jobs.errors import InvalidParameters, NotAllowed
from jobs.manager import JobManager
from jobs.models import Artifact, Job, JobGroup
from jobs.presentation import decorate, group_state
from osint.forms import DecisionForm, InvestigateForm, SubjectForm, UploadForm
from osint.investigation import investigate
from osint.job_types.file_import import parameters_for
from osint.models import Document, DuplicatePair, Entity, EventSource, Mention, Subject, Upload
from osint.search import search
from osint.urllist import read_urls

CONTEXT_CHARS = 90
TEXTS = ("document__text", "document__links", "document__headers", "document__diff")  # large, and not shown
PAIRS_SHOWN = 50
EVENTS_SHOWN = 2000
MARKS_MAX = 5000


@login_required
def subject_list(request: HttpRequest) -> HttpResponse:
    form = SubjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.created_by = request.user
        return redirect(form.save())
    subjects = Subject.objects.visible_to(request.user).annotate(document_count=Count("documents", filter=Q(documents__is_current=True)))
    page = Paginator(subjects.order_by("name", "id"), 50).get_page(request.GET.get("page"))
    return render(request, "osint/subject_list.html", {"page": page, "form": form}, status=422 if form.errors else 200)


# -- one subject ------------------------------------------------------------------------------------------------


def visible_subject(request: HttpRequest, subject_id: uuid.UUID) -> Subject:
    return get_object_or_404(Subject.objects.visible_to(request.user), pk=subject_id)


def of_subject(request: HttpRequest, template: str, subject: Subject, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """A page of a subject, with what its tabs show."""
    counts = {
        "documents": subject.documents.filter(is_current=True).count(),
        "entities": subject.entities.count(),
        "events": subject.events.count(),
        "to_review": subject.duplicate_pairs.filter(decision="").count(),
        "pairs": subject.duplicate_pairs.count(),
        "files": Artifact.objects.filter(subject_id=subject.pk).count(),
        "jobs": Job.objects.visible_to(request.user).filter(subject_id=subject.pk).count(),
    }
    return render(request, f"osint/{template}", {"subject": subject, "counts": counts, **context}, status=status)


def page_of(request: HttpRequest, rows: QuerySet, size: int = 100) -> Page:
    return Paginator(rows, size).get_page(request.GET.get("page"))


def query_without_page(request: HttpRequest) -> str:
    query = request.GET.copy()
    query.pop("page", None)
    return query.urlencode()


@login_required
@require_GET
def subject_detail(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    """What is known at a glance, what runs, and how to go on."""
    subject = visible_subject(request, subject_id)
    jobs = Job.objects.visible_to(request.user).filter(subject_id=subject.pk).select_related("created_by")
    group = JobGroup.objects.visible_to(request.user).filter(subject_id=subject.pk).first()
    return of_subject(
        request, "subject_detail.html", subject,
        {
            "jobs": decorate(list(jobs[:8])),
            "group": group,
            "state": group_state(group) if group else None,
            "types": entity_types(subject),
            "people": subject.entities.filter(type__in=("person", "organisation", "place"))[:12],
            "latest": subject.documents.filter(is_current=True).order_by("-fetched_at").defer("text", "links", "headers", "diff")[:8],
            "events": subject.events.order_by("-begins")[:6],
            "members": subject.members.all(),
        },
    )  # fmt: skip


@login_required
@require_GET
def subject_documents(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = visible_subject(request, subject_id)
    rows = subject.documents.filter(is_current=True).order_by("-fetched_at", "id").defer("text", "links", "headers", "diff")
    rows = rows.annotate(changed=ExpressionWrapper(~Q(diff=""), BooleanField()))
    shown = request.GET.get("show", "")
    chosen = {"changed": rows.exclude(diff=""), "problem": rows.exclude(problem="")}.get(shown, rows)
    chips = [
        ("", "All", rows.count()),
        ("changed", "Changed", rows.exclude(diff="").count()),
        ("problem", "Not readable", rows.exclude(problem="").count()),
    ]
    return of_subject(
        request, "subject_documents.html", subject, {"page": page_of(request, chosen), "chips": chips, "shown": shown, "query": query_without_page(request)}
    )  # fmt: skip


def entity_types(subject: Subject) -> list[tuple[str, str, int]]:
    counts = dict(subject.entities.order_by().values_list("type").annotate(Count("pk")))
    return [(str(value), str(label), counts[value]) for value, label in Entity.Type.choices if value in counts]


@login_required
@require_GET
def subject_entities(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = visible_subject(request, subject_id)
    kind, text = request.GET.get("type", ""), request.GET.get("q", "").replace("\x00", "").strip()[:200]
    rows = subject.entities.order_by("-mention_count", "name", "id")
    if kind in Entity.Type.values:
        rows = rows.filter(type=kind)
    if text:
        rows = rows.filter(name__icontains=text)
    return of_subject(
        request, "subject_entities.html", subject,
        {"page": page_of(request, rows), "types": entity_types(subject), "kind": kind, "text": text, "query": query_without_page(request)},
    )  # fmt: skip


@login_required
@require_GET
def entity_detail(request: HttpRequest, entity_id: uuid.UUID) -> HttpResponse:
    entity = get_object_or_404(Entity.objects.visible_to(request.user).select_related("subject"), pk=entity_id)
    mentions = Mention.objects.filter(entity=entity, document__is_current=True).select_related("document").defer(*TEXTS)
    mentions = mentions.annotate(
        before=Substr("document__text", Greatest(F("start") - CONTEXT_CHARS + 1, 1), Least(F("start"), CONTEXT_CHARS)),
        after=Substr("document__text", F("end") + 1, CONTEXT_CHARS),
    )
    page = page_of(request, mentions.order_by("document__fetched_at", "document_id", "start"), 50)
    pairs = DuplicatePair.objects.filter(Q(left=entity.pk) | Q(right=entity.pk), subject=entity.subject, kind="entity")
    return of_subject(
        request, "entity_detail.html", entity.subject,
        {"entity": entity, "page": page, "pairs": with_sides(list(pairs[:20]))},
    )  # fmt: skip


@login_required
@require_GET
def subject_timeline(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = visible_subject(request, subject_id)
    text = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    sources = EventSource.objects.select_related("document").defer(*TEXTS)
    rows = subject.events.order_by("begins", "ends", "id").prefetch_related(Prefetch("sources", sources))
    if text:
        rows = rows.filter(title__icontains=text)
    events = list(rows[: EVENTS_SHOWN + 1])
    return of_subject(
        request, "subject_timeline.html", subject,
        {"events": events[:EVENTS_SHOWN], "more": len(events) > EVENTS_SHOWN, "text": text},
    )  # fmt: skip


@login_required
@require_GET
def subject_duplicates(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = visible_subject(request, subject_id)
    show = request.GET.get("show", "")
    pairs = subject.duplicate_pairs.filter(decision=show if show in DuplicatePair.Decision.values else "").select_related("decided_by")
    page = page_of(request, pairs.order_by("-score", "id"), PAIRS_SHOWN)
    counts = dict(subject.duplicate_pairs.order_by().values_list("decision").annotate(Count("pk")))
    chips = [
        ("", "To review", counts.get("", 0)),
        ("same", "The same", counts.get("same", 0)),
        ("different", "Not the same", counts.get("different", 0)),
    ]
    return of_subject(
        request, "subject_duplicates.html", subject,
        {
            "page": page, "pairs": with_sides(list(page.object_list)), "chips": chips, "show": show, "query": query_without_page(request),
            "groups": subject.duplicate_groups.all()[:50],
        },
    )  # fmt: skip


def with_sides(pairs: list[DuplicatePair]) -> list[dict[str, Any]]:
    """Each pair with the two things that it compares, in two queries."""
    ids = {kind: {pk for pair in pairs if pair.kind == kind for pk in (pair.left, pair.right)} for kind in ("document", "entity")}
    documents = Document.objects.annotate(beginning=Substr("text", 1, 300)).defer("text", "links", "headers", "diff")
    things: dict[uuid.UUID, Any] = dict(documents.in_bulk(ids["document"]))
    things |= Entity.objects.in_bulk(ids["entity"])
    return [
        {"pair": pair, "sides": [things.get(pair.left), things.get(pair.right)]}
        for pair in pairs
        if pair.left in things and pair.right in things
    ]


@login_required
@require_POST
def decide_pair(request: HttpRequest, pair_id: uuid.UUID) -> HttpResponse:
    """Confirm or reject a pair, or take that back. Later runs respect it."""
    pair = get_object_or_404(DuplicatePair.objects.visible_to(request.user), pk=pair_id)
    form = DecisionForm(request.POST)
    if not form.is_valid():
        messages.error(request, "That is no decision about a pair. Nothing was changed.")
        return redirect("subject-duplicates", pair.subject_id)
    decision = form.cleaned_data["decision"]
    who, when = (request.user, timezone.now()) if decision else (None, None)
    if not DuplicatePair.objects.filter(pk=pair.pk).update(decision=decision, decided_by=who, decided_at=when):
        messages.error(request, "A run of duplicate detection has just replaced this pair: look again. Nothing was changed.")
        return redirect("subject-duplicates", pair.subject_id)
    said = {"same": "They are kept as the same.", "different": "They are kept apart.", "": "The pair is to review again."}
    messages.success(request, f"{said[decision]} The next run of duplicate detection puts the groups in order.")
    back = request.POST.get("next", "")
    here = back.startswith(("/subjects/", "/entities/"))  # and nowhere outside
    return redirect(back if here else reverse("subject-duplicates", args=[pair.subject_id]))


@login_required
@require_GET
def subject_files(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = visible_subject(request, subject_id)
    artifacts = Artifact.objects.filter(subject_id=subject.pk).order_by("-created_at")
    return of_subject(
        request,
        "subject_files.html",
        subject,
        {"page": page_of(request, artifacts), "uploads": subject.uploads.select_related("created_by")[:200]},
    )


@login_required
@require_GET
def subject_search(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = visible_subject(request, subject_id)
    text = request.GET.get("q", "").replace("\x00", "").strip()[:500]
    entities = subject.entities.filter(name__icontains=text).order_by("-mention_count")[:10] if text else []
    return of_subject(request, "subject_search.html", subject, {"text": text, "hits": search(subject.pk, text), "entities": entities})


# -- starting ---------------------------------------------------------------------------------------------------


@login_required
def subject_investigate(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    """One button: everything, as one group."""
    subject = visible_subject(request, subject_id)
    has_documents = subject.documents.exists()
    initial = {"title": subject.name}
    form = InvestigateForm(request.POST or None, user=request.user, has_documents=has_documents, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            chosen = form.cleaned_data
            return redirect(investigate(subject, scrape=form.scrape, by=request.user, priority=chosen["priority"], title=chosen["title"]))
        except (InvalidParameters, NotAllowed) as error:
            form.add_error(None, str(error))
    return of_subject(
        request, "subject_investigate.html", subject, {"form": form, "has_documents": has_documents}, status=422 if form.errors else 200
    )


@login_required
def subject_upload(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    """Own files: stored as they are, then read by a job."""
    subject = visible_subject(request, subject_id)
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    if request.method == "POST" and form.is_valid():
        uploads = form.store(subject, request.user)
        try:
            parameters = parameters_for(uploads, tables=form.cleaned_data["tables"])
            return redirect(JobManager().create_job("file_import", parameters=parameters, created_by=request.user, subject_id=subject.pk))
        except NotAllowed as error:
            form.add_error(None, f"{error} The files are stored.")
    return of_subject(request, "subject_upload.html", subject, {"form": form}, status=422 if form.errors else 200)


@login_required
@require_GET
def upload(request: HttpRequest, upload_id: uuid.UUID) -> FileResponse:
    """A file as it was given, always as a download."""
    found = get_object_or_404(Upload.objects.filter(subject__in=Subject.objects.visible_to(request.user)), pk=upload_id)
    return FileResponse(found.file.open("rb"), as_attachment=True, filename=found.name, content_type="application/octet-stream")


@login_required
@require_POST
def check_urls(request: HttpRequest) -> JsonResponse:
    """How many addresses of a pasted list can be fetched, stand there twice, or are refused and why."""
    found = read_urls(request.POST.get("urls", ""))
    return JsonResponse(
        {"good": len(found.good), "duplicates": found.duplicates, "refused": len(found.refused), "problems": found.problems()}
    )


# -- documents --------------------------------------------------------------------------------------------------


@login_required
@require_GET
def document_detail(request: HttpRequest, document_id: uuid.UUID) -> HttpResponse:
    visible = Document.objects.visible_to(request.user).select_related("job", "subject", "warc", "upload", "previous")
    document = get_object_or_404(visible, pk=document_id)
    mentions = list(document.mentions.select_related("entity").order_by("start")[:MARKS_MAX])
    return render(
        request,
        "osint/document_detail.html",
        {
            "document": document,
            "segments": list(segments_of(document.text, mentions)),
            "later": document.later.order_by("-fetched_at").first(),
        },
    )


def segments_of(text: str, mentions: list[Mention]) -> Iterator[tuple[str, Mention | None]]:
    """The text in pieces, those that name something with their mention."""
    at = 0
    for mention in mentions:
        if mention.start < at:
            continue
        if mention.start > at:
            yield text[at : mention.start], None
        yield text[mention.start : mention.end], mention
        at = mention.end
    if at < len(text):
        yield text[at:], None


@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """Up or down, and nothing else, for whoever asks."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"status": "down"}, status=503)
    return JsonResponse({"status": "up"})
