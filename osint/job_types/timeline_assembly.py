"""Assemble what the documents of a subject date: each event once, with every sentence that reports it."""

import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from django.db import connection, transaction
from django.db.models import Max, Min
from rapidfuzz import fuzz

from jobs import words
from jobs.errors import Kind
from jobs.models import Job
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint.dates import Found, find_dates
from osint.models import Document, EventSource, TimelineEvent, lock_subject, subject_of
from osint.texts import published_on, sentences

SENTENCE_CHARS_MAX = 1000
TITLE_CHARS = 160
ALIKE = 80  # of rapidfuzz's token_set_ratio, from which two sentences with the same date report the same event
COLUMNS_MAX = 24  # of the chart of the result
SPANS = (1, 5, 10, 50, 100, 500)  # years
COMPARED_MAX = 400  # sentences of one date that are compared with each other
EVENTS = uuid.UUID("6f2a4c1e-5f0e-4f65-9d8e-0f7d2a4b7c11")  # names the ids of events, so that links to them hold


def summarise(result: dict[str, Any]) -> str:
    text = words.count(result["events"], "event")
    if result.get("first"):
        text += f", {result['first'][:4]} to {result['last'][:4]}"
    return f"{text}, from {words.count(result['sources'], 'sentence')}"


@register(
    "timeline_assembly",
    label="Timeline assembly",
    unit="document",
    describe=lambda parameters: "Assemble the timeline",
    summarise=summarise,
    result_template="osint/_timeline_result.html",
    resumable=True,
    needs_subject=True,
    help="Reads the dates in the documents of a subject and puts what happened in order.",
)
def timeline_assembly(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    job = Job.objects.get(pk=tracker.job_id)
    documents = Document.objects.filter(subject_id=subject_of(job), is_current=True).order_by("fetched_at", "pk")
    ids = list(documents.values_list("pk", flat=True))
    tracker.set_total(len(ids))
    if not ids:
        tracker.log_warning("The subject has no documents: there is nothing to read")
    settled = tracker.settled()
    tracker.stage("Reading documents")
    counts = Counter(settled.values())
    for pk in ids:
        if str(pk) not in settled:
            counts[read(tracker, job, Document.objects.get(pk=pk))] += 1
    tracker.stage("Merging events")
    tracker.update_step("Merging what is reported more than once", 0)
    events = assemble(tracker, job)
    return result_of(job, events, counts)


def read(tracker: ProgressTracker, job: Job, document: Document) -> str:
    """Store its dated sentences; returns the outcome of this item."""
    tracker.update_step(f"Reading {document}"[:200], 0)
    key = str(document.pk)
    if not document.text.strip():
        tracker.item_skipped(key, "It has no text")
        outcome = "skipped"
    else:
        try:
            rows = dated_sentences(document)
        except Exception as error:  # one document is no reason to stop
            tracker.item_failed(key, f"{document}: {type(error).__name__}: {error}", kind=Kind.PERMANENT)
            outcome = "failed"
        else:
            with tracker.spending("writing"), transaction.atomic():
                lock_subject(job.subject_id)
                EventSource.objects.filter(document=document).delete()
                EventSource.objects.bulk_create([as_source(job, document, row) for row in rows], batch_size=400)
                tracker.done(key)
            outcome = "ok"
    tracker.update_step(f"Read {document}"[:200])
    return outcome


@dataclass(frozen=True)
class Dated:
    found: Found
    sentence: str


def dated_sentences(document: Document) -> list[Dated]:
    """Each date of a document that has a place in time, with the sentence that it stands in."""
    text = document.text
    host = urlsplit(document.final_url).hostname or ""
    dates = find_dates(text, reference=published_on(document), language=document.language, host=host)
    spans = iter(sentences(text))
    start, end = next(spans, (0, len(text)))
    rows = []
    for found in dates:
        if found.begins is None:
            continue
        while end <= found.start:
            start, end = next(spans, (found.start, len(text)))
        rows.append(Dated(found, cut_around(text[start:end], found.start - start)))
    return rows


def cut_around(sentence: str, at: int) -> str:
    """A sentence of bearable length: of an endless line what stands around the date."""
    if len(sentence) <= SENTENCE_CHARS_MAX:
        return re.sub(r"^[-–•*]\s+", "", " ".join(sentence.split()))  # without the sign of a list
    first = max(0, at - SENTENCE_CHARS_MAX // 2)
    return f"… {' '.join(sentence[first : first + SENTENCE_CHARS_MAX].split())} …"


def as_source(job: Job, document: Document, row: Dated) -> EventSource:
    found = row.found
    assert found.begins is not None  # dated_sentences leaves out the others
    assert found.ends is not None
    return EventSource(
        job=job, attempt=job.attempt, document=document, start=found.start, end=found.end, text=document.text[found.start : found.end][:200],
        sentence=row.sentence, begins=found.begins, ends=found.ends, clock=found.clock, precision=found.precision, rule=found.rule, note=found.note,
    )  # fmt: skip


def assemble(tracker: ProgressTracker, job: Job) -> int:
    """Make the events anew from all sentences; those that say the same stay what they were, by their ids."""
    sources = EventSource.objects.filter(document__subject_id=subject_of(job), document__is_current=True)
    urls = dict(Document.objects.filter(subject_id=subject_of(job), is_current=True).values_list("pk", "url"))
    by_date: dict[tuple, list[EventSource]] = defaultdict(list)
    for source in sources.order_by("document__fetched_at", "document_id", "start").iterator(chunk_size=2000):
        by_date[source.begins, source.ends, source.precision, source.clock].append(source)
    events: dict[uuid.UUID, TimelineEvent] = {}
    members: dict[uuid.UUID, list[int]] = {}
    for (begins, ends, precision, clock), rows in by_date.items():
        for group in same_event(rows):
            first = group[0]
            name = f"{subject_of(job)} {begins} {ends} {precision} {urls[first.document_id]} {first.start}"
            pk = uuid.uuid5(EVENTS, name)
            events[pk] = TimelineEvent(
                id=pk, subject_id=subject_of(job), job=job, attempt=job.attempt, begins=begins, ends=ends, precision=precision,
                clock=clock, title=title_of(group),
                source_count=len({row.document_id for row in group}),
            )  # fmt: skip
            members[pk] = [row.pk for row in group]
    prepared = EventSource._meta.get_field("event")
    with tracker.spending("writing"), transaction.atomic():  # only to write: the comparing above may take long
        lock_subject(job.subject_id)
        TimelineEvent.objects.filter(subject_id=subject_of(job)).delete()
        TimelineEvent.objects.bulk_create(events.values(), batch_size=400)
        with connection.cursor() as cursor:  # one prepared statement; bulk_update would build a CASE of thousands of lines
            cursor.executemany(
                "UPDATE osint_eventsource SET event_id = %s WHERE id = %s",
                [(prepared.get_db_prep_save(event, connection), row) for event, rows in members.items() for row in rows],
            )
    return len(events)


@dataclass
class Told:
    """Sentences of one date that report the same, and what the first of them is made of."""

    rows: list[EventSource]
    content: str
    names: frozenset[str]


def same_event(rows: list[EventSource]) -> list[list[EventSource]]:
    """Sentences of one date, those together that report the same; each is compared with the first of a group."""
    groups: list[Told] = []
    by_text: dict[str, Told] = {}
    for row in rows:
        content, names = content_of(row.sentence), names_in(row.sentence)
        group = by_text.get(row.sentence) or next((g for g in groups[:COMPARED_MAX] if alike(g, content, names)), None)
        if group is None:
            group = Told([], content, names)
            groups.append(group)
        by_text[row.sentence] = group
        group.rows.append(row)
    return [group.rows for group in groups]


def alike(group: Told, content: str, names: frozenset[str]) -> bool:
    """Enough of the same words, and not another name or number in each: of France here, of Russia there."""
    conflict = (names - group.names) and (group.names - names)
    return not conflict and enough(content) and fuzz.token_set_ratio(group.content, content) >= ALIKE


def content_of(sentence: str) -> str:
    """The words of a sentence without its numbers, which its date has in any case."""
    return " ".join(re.findall(r"[^\W\d_]{3,}", sentence.casefold()))


def names_in(sentence: str) -> frozenset[str]:
    """Words with a capital, but for the first, and numbers: what tells two sentences of the same pattern apart."""
    return frozenset(re.findall(r"(?<!^)(?:\b[^\W\d_a-zà-ÿ][\w-]+|\d+)", sentence))


def enough(text: str) -> bool:
    return text.count(" ") >= 3


def title_of(group: list[EventSource]) -> str:
    """The shortest whole sentence that reports it."""
    whole = [row.sentence for row in group if len(row.sentence) >= 25] or [row.sentence for row in group]
    title = min(whole, key=lambda sentence: (len(sentence), sentence))
    return title if len(title) <= TITLE_CHARS else f"{title[:TITLE_CHARS].rsplit(' ', 1)[0]} …"


def result_of(job: Job, events: int, counts: Counter) -> dict[str, Any]:
    span = TimelineEvent.objects.filter(subject_id=subject_of(job)).aggregate(first=Min("begins"), last=Max("ends"))
    return {
        "events": events,
        "sources": EventSource.objects.filter(event__subject_id=subject_of(job)).count(),
        "documents": counts["ok"],
        "skipped": counts["skipped"],
        "failed": counts["failed"],
        "first": span["first"].isoformat() if span["first"] else "",
        "last": span["last"].isoformat() if span["last"] else "",
        "by_time": by_time(TimelineEvent.objects.filter(subject_id=subject_of(job)).values_list("begins", flat=True)),
    }


def by_time(dates: Iterable[date]) -> list[tuple[str, int]]:
    """(year, events that begin in it), the earliest first; spans of years, all as long, where there are more than COLUMNS_MAX."""
    years = sorted(moment.year for moment in dates)
    if not years:
        return []
    span = next(length for length in SPANS if years[-1] // length - years[0] // length < COLUMNS_MAX)
    counts = Counter(year // span * span for year in years)
    return [
        (f"{first}" if span == 1 else f"{first}–{first + span - 1}", counts[first]) for first in range(min(counts), max(counts) + 1, span)
    ]
