"""The report on a subject as PDF/A, set by typst from data alone."""

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import orjson
from django import forms
from django.db import transaction
from django.db.models import Count, Q
from django.db.models.functions import ExtractYear
from django.utils import timezone

from jobs import words
from jobs.models import Artifact, Job
from jobs.processes import scratch_of
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint.models import Document, DuplicatePair, Entity, Subject, TimelineEvent, subject_of
from osint.precision import when

TEMPLATE = Path(__file__).resolve().parent.parent / "report" / "report.typ"
FONTS = TEMPLATE.parent / "fonts"
FORMAT: Literal["a-2u"] = "a-2u"  # PDF/A-2 with Unicode text: it can be searched and copied
DOCUMENTS_MAX, EVENTS_MAX, ENTITIES_A_TYPE, GROUPS_MAX = 5000, 2000, 25, 200
BOX = "□"
STEPS = ("Collecting", "Typesetting", "Storing")


class PdfGenerationForm(forms.Form):
    title = forms.CharField(label="Title", required=False, max_length=200, help_text="The name of the subject, if you leave it empty.")


@register(
    "pdf_generation",
    label="PDF report",
    form=PdfGenerationForm,
    describe=lambda parameters: f"Report “{parameters['title']}”" if parameters["title"] else "Make the report",
    summarise=lambda result: f"Report of {words.count(result['pages'], 'page')}, {words.size(result['bytes'])}",
    total_steps=lambda parameters: len(STEPS),
    result_template="osint/_files_result.html",
    needs_subject=True,
    memory_limit_mb=1024,
    help="Makes a report on a subject: summary, key entities, timeline, documents with their hashes, duplicates.",
)
def pdf_generation(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    import typst  # only here: each worker would carry it

    job = Job.objects.get(pk=tracker.job_id)
    folder = scratch_of(job.pk)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    tracker.stage("Collecting")
    tracker.update_step("Collecting what was found", 0)
    data, boxes = showable(report_data(job, parameters["title"]))
    if boxes:
        data["about"].append(
            f"{words.count(boxes, 'character')} of scripts without a font here are shown as {BOX}; the export has the texts as they are."
        )
        tracker.log_warning(f"{words.count(boxes, 'character')} cannot be shown by the fonts of the report")
    (folder / "data.json").write_bytes(orjson.dumps(data))
    shutil.copy(TEMPLATE, folder / "report.typ")
    tracker.stage("Typesetting")
    tracker.update_step("Typesetting the report")
    path = folder / "report.pdf"
    # the root is the scratch folder: nothing else can be read from inside, and packages cannot be fetched
    typst.compile(
        str(folder / "report.typ"), str(path), root=str(folder), font_paths=[str(FONTS)], ignore_system_fonts=True, pdf_standards=[FORMAT],
        timestamp=int(job.created_at.timestamp()), package_path=str(folder), package_cache_path=str(folder),
    )  # fmt: skip
    tracker.stage("Storing")
    tracker.update_step("Storing the report")
    pages = page_count(path)
    with tracker.spending("writing"), transaction.atomic():
        artifact = Artifact.keep(job, path, "report.pdf", "application/pdf")
    shutil.rmtree(folder, ignore_errors=True)
    tracker.update_step("Stored the report")
    return {"files": [artifact.name], "pages": pages, "bytes": artifact.size, "sha256": artifact.sha256}


@cache
def characters() -> frozenset[int]:
    """All that the fonts of the report can show. PDF/A does not allow what they cannot."""
    from fontTools.ttLib import TTFont  # only here: it costs 100 ms to load

    shown: set[int] = set()
    for path in sorted(FONTS.glob("*.ttf")):
        with TTFont(path, lazy=True) as font:
            shown |= set(font.getBestCmap())
    return frozenset(shown)


def showable(value: Any) -> tuple[Any, int]:
    """Data without what no font shows, and how many characters that were."""
    if isinstance(value, str):
        odd = {c for c in set(value) if ord(c) not in characters() and c not in "\n\t\u200d\u200c\ufe0f"}
        kept = value.translate(dict.fromkeys(map(ord, odd), BOX) | dict.fromkeys(map(ord, "\u200d\ufe0f"), ""))
        return kept, sum(value.count(c) for c in odd)
    if isinstance(value, dict):
        pairs = {name: showable(item) for name, item in value.items()}
        return {name: item for name, (item, _) in pairs.items()}, sum(n for _, n in pairs.values())
    if isinstance(value, list):
        items = [showable(item) for item in value]
        return [item for item, _ in items], sum(n for _, n in items)
    return value, 0


def page_count(path: Path) -> int:
    from pypdf import PdfReader  # only here, as typst

    return len(PdfReader(path).pages)


# -- what the report says ------------------------------------------------------------------------------------------


def report_data(job: Job, title: str) -> dict[str, Any]:
    """All values as text and numbers; what is not there is an empty list."""
    subject = Subject.objects.get(pk=subject_of(job))
    documents = subject.documents.filter(is_current=True)
    made = timezone.localtime(job.created_at)
    return {
        "title": title or subject.name,
        "author": job.created_by.get_username() if job.created_by else "Fieldwork",
        "date": [made.year, made.month, made.day],
        "prepared": made.strftime("%-d %B %Y, %H:%M %Z"),
        "scope": scope_of(subject),
        "summary": list(summary_lines(subject)),
        "entity_counts": [[str(Entity.Type(kind).label), n] for kind, n in entity_counts(subject)],
        "event_years": event_years(subject),
        "entities": list(entity_tables(subject)),
        "events": [
            [when(event), event.title, event.source_count] for event in subject.events.order_by("begins", "ends", "pk")[:EVENTS_MAX]
        ],
        "documents": [
            as_document(row) for row in documents.order_by("fetched_at", "pk").defer("text", "links", "headers", "diff")[:DOCUMENTS_MAX]
        ],
        "duplicates": list(duplicate_groups(subject)),
        "about": list(about_lines(subject, documents.count())),
    }


def scope_of(subject: Subject) -> str:
    span = subject.documents.filter(is_current=True).order_by("fetched_at").values_list("fetched_at", flat=True)
    if not span:
        return "No document had been captured when this report was made."
    first, last = timezone.localtime(span[0]), timezone.localtime(span.reverse()[0])
    return f"Documents captured from {first:%-d %B %Y, %H:%M} to {last:%-d %B %Y, %H:%M %Z}."


def summary_lines(subject: Subject) -> Iterator[str]:
    documents = subject.documents.filter(is_current=True)
    blocked = documents.exclude(problem="").count()
    yield f"{words.count(documents.count(), 'document')} about {subject.name} were read." + (
        f" {words.count(blocked, 'page')} could not be read as they are: they ask to sign in, to prove to be human, or need a browser."
        if blocked
        else ""
    )
    entities = subject.entities.count()
    yield f"They name {words.count(entities, 'entity', 'entities')} and date {words.count(subject.events.count(), 'event')}."
    people = subject.entities.filter(type=Entity.Type.PERSON)[:5]
    if people:
        yield f"Most often named: {', '.join(person.name for person in people)}."
    pairs = subject.duplicate_pairs
    if pairs.exists():
        waiting = pairs.filter(decision="").count()
        yield f"{words.count(pairs.count(), 'pair')} of documents or names are likely the same; {waiting:,} of them wait for a decision."
    if subject.notes:
        yield subject.notes


def entity_counts(subject: Subject) -> list[tuple[str, int]]:
    return list(subject.entities.order_by().values_list("type").annotate(n=Count("pk")).order_by("-n", "type"))


def event_years(subject: Subject) -> list[list[Any]]:
    """Events that are known to the year or better, for each of the last 30 years that have any."""
    rows = (
        subject.events.exclude(precision=TimelineEvent.Precision.DECADE).annotate(year=ExtractYear("begins")).order_by().values_list("year")
    )
    return [[str(year), n] for year, n in rows.annotate(n=Count("pk")).order_by("year")][-30:]


def entity_tables(subject: Subject) -> Iterator[dict[str, Any]]:
    for kind, count in sorted(entity_counts(subject), key=lambda row: list(Entity.Type.values).index(row[0])):
        if kind == Entity.Type.DATE:
            continue
        rows = subject.entities.filter(type=kind).annotate(
            documents=Count("mentions__document", filter=Q(mentions__document__is_current=True), distinct=True)
        )
        shown = rows.order_by("-mention_count", "name", "pk")[:ENTITIES_A_TYPE]
        yield {
            "label": str(Entity.Type(kind).label),
            "rows": [[entity.name, entity.mention_count, entity.documents] for entity in shown],
            "more": max(0, count - ENTITIES_A_TYPE),
        }


def as_document(document: Document) -> dict[str, str]:
    return {
        "title": str(document),
        "url": document.final_url or document.url,
        "captured": timezone.localtime(document.fetched_at).strftime("%Y-%m-%d %H:%M:%S %Z"),
        "published": document.published,
        "problem": str(document.get_problem_display()) if document.problem else "",
        "sha256": document.sha256,
    }


def duplicate_groups(subject: Subject) -> Iterator[dict[str, Any]]:
    for group in subject.duplicate_groups.prefetch_related("pairs")[:GROUPS_MAX]:
        pairs = [pair for pair in group.pairs.all() if pair.decision != DuplicatePair.Decision.DIFFERENT][:20]
        names = names_of(group.kind, {pk for pair in pairs for pk in (pair.left, pair.right)})
        yield {
            "name": f"{group.name} ({group.size})",
            "rows": [
                [names.get(pair.left, ""), names.get(pair.right, ""), f"{pair.score:.0%}", decided(pair) + "; ".join(pair.reasons)]
                for pair in pairs
            ],
        }


def decided(pair: DuplicatePair) -> str:
    return "confirmed by hand; " if pair.decision == DuplicatePair.Decision.SAME else ""


def names_of(kind: str, ids: set) -> dict[Any, str]:
    if kind == "document":
        return {row.pk: str(row) for row in Document.objects.filter(pk__in=ids).only("pk", "title", "url")}
    return dict(Entity.objects.filter(pk__in=ids).values_list("pk", "name"))


def about_lines(subject: Subject, documents: int) -> Iterator[str]:
    yield "Each document is kept as it was sent, in a WARC file or as it was uploaded; the SHA-256 beside it is that of these bytes."
    yield (
        "Names were found by a statistical model and can be wrong; indicators and dates were read by rules. Each mention is kept with the "
        "engine that found it, its score and its place in the text."
    )
    yield (
        "Dates are no more exact than their source: a month is shown as a month. Relative dates, such as “last Tuesday”, were counted "
        "from the day of their document."
    )
    shown = []
    if documents > DOCUMENTS_MAX:
        shown.append(f"the first {DOCUMENTS_MAX:,} of {documents:,} documents")
    if subject.events.count() > EVENTS_MAX:
        shown.append(f"the first {EVENTS_MAX:,} of {subject.events.count():,} events")
    if subject.duplicate_groups.count() > GROUPS_MAX:
        shown.append(f"the {GROUPS_MAX:,} largest of {subject.duplicate_groups.count():,} groups of duplicates")
    if shown:
        yield f"This report shows {', '.join(shown)}; the export has them all."
