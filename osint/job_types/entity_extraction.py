"""Read the documents of a subject: who and what they name, where exactly, and how sure that is."""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from django import forms
from django.db import transaction
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce

from jobs import words
from jobs.errors import Kind
from jobs.models import Job
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint import indicators, names
from osint.dates import find_dates
from osint.helpers import helpers
from osint.models import Document, Entity, Mention, lock_subject, subject_of
from osint.texts import published_on, region_of

VERSION = f"{indicators.ENGINE} dates-1"
ROWS_A_QUERY = 400
READ_APART_FROM = 10  # documents from which the helpers, who load the model first, are worth it
DOCUMENTS_AHEAD = 6
ENTITIES = UUID("0f4a1c9b-7f5e-4f0e-9a55-3b7a5d2c8e10")
NO_TEXT = "It has no text"
UNCHANGED = "Read before by the same engines"


class EntityExtractionForm(forms.Form):
    again = forms.BooleanField(
        label="Read all documents again", required=False, help_text="Otherwise only those that the present engines have not read yet."
    )


def summarise(result: dict[str, Any]) -> str:
    text = f"{words.count(result['entities'], 'entity', 'entities')} in {words.count(result['documents'], 'document')}"
    if result.get("unchanged"):
        text += f", {result['unchanged']:,} were read before"
    return f"{text}, {result['skipped']:,} without text" if result.get("skipped") else text


@register(
    "entity_extraction",
    label="Entity extraction",
    form=EntityExtractionForm,
    unit="document",
    describe=lambda parameters: "Extract entities",
    summarise=summarise,
    result_template="osint/_entities_result.html",
    resumable=True,
    needs_subject=True,
    memory_limit_mb=1024,
    help="Finds people, organisations, places, dates and indicators in the documents of a subject.",
)
def entity_extraction(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    with helpers() as pool:
        job = Job.objects.get(pk=tracker.job_id)
        return Extraction(tracker, job, parameters["again"], pool).run()


@dataclass(frozen=True)
class Found:
    """One mention, before it is stored."""

    start: int
    end: int
    type: str
    key: str
    name: str
    engine: str
    score: float
    properties: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass
class Extraction:
    tracker: ProgressTracker
    job: Job
    again: bool
    pool: Executor
    counts: Counter = field(default_factory=Counter)  # read, unchanged, skipped, failed: of this and earlier attempts

    def run(self) -> dict[str, Any]:
        engine = names.engine()
        version = f"{VERSION} {engine.name}"[:60]
        documents = Document.objects.filter(subject_id=subject_of(self.job), is_current=True)
        rows = list(documents.order_by("fetched_at", "pk").values_list("pk", "extracted_by"))
        self.tracker.set_total(len(rows))
        if not rows:
            self.tracker.log_warning("The subject has no documents: there is nothing to read")
        settled = self.tracker.settled()
        for key, outcome, reason in self.job.items.order_by().values_list("key", "outcome", "reason"):
            if key in settled:
                self.counts["unchanged" if outcome == "skipped" and reason != NO_TEXT else outcome] += 1
        waiting = []
        for pk, extracted_by in rows:
            if str(pk) in settled:
                continue
            if extracted_by == version and not self.again:
                self.tracker.item_skipped(str(pk), UNCHANGED)
                self.counts["unchanged"] += 1
                self.tracker.update_step("Skipped what was read before")
            else:
                waiting.append(pk)
        self.tracker.stage("Reading documents")
        for document, ask in self.ahead(waiting):
            self.read(document, ask, version)
        self.tracker.stage("Counting")
        self.tracker.update_step("Counting", 0)
        with self.tracker.spending("writing"), transaction.atomic():
            lock_subject(self.job.subject_id)
            recount(subject_of(self.job))
        return self.result(engine, version)

    def ahead(self, waiting: Sequence[Any]) -> Iterator[tuple[Document, Callable[[], list[Found]]]]:
        """Each document with the way to what it names; the helpers are some documents ahead of what is stored."""
        asked: deque[tuple[Document, Callable[[], list[Found]]]] = deque()
        for pk in waiting:
            document = Document.objects.defer("links", "headers", "diff").get(pk=pk)
            if len(waiting) < READ_APART_FROM:
                yield document, partial(find_all, document, names.engine())
                continue
            asked.append((document, self.pool.submit(find_in_helper, document).result))
            if len(asked) > DOCUMENTS_AHEAD:
                yield asked.popleft()
        yield from asked

    def read(self, document: Document, ask: Callable[[], list[Found]], version: str) -> None:
        self.tracker.update_step(f"Reading {document}"[:200], 0)
        key = str(document.pk)
        if not document.text.strip():
            self.tracker.item_skipped(key, NO_TEXT)
            self.counts["skipped"] += 1
        else:
            try:
                found = ask()
            except Exception as error:  # one document is no reason to stop
                self.tracker.item_failed(key, f"{document}: {type(error).__name__}: {error}", kind=Kind.PERMANENT)
                self.counts["failed"] += 1
            else:
                with self.tracker.spending("writing"), transaction.atomic():
                    self.store(document, found)
                    Document.objects.filter(pk=document.pk).update(extracted_by=version)
                    self.tracker.done(key)
                self.counts["ok"] += 1
        self.tracker.update_step(f"Read {document}"[:200])

    def store(self, document: Document, found: Sequence[Found]) -> None:
        """The mentions of the document anew: a second reading replaces the first."""
        lock_subject(self.job.subject_id)
        made = {"job": self.job, "attempt": self.job.attempt}
        Mention.objects.filter(document=document).delete()
        wanted = {(f.type, f.key): f for f in reversed(found)}
        rows = [
            Entity(
                id=entity_id(subject_of(self.job), f),
                subject_id=subject_of(self.job),
                type=f.type,
                key=f.key,
                name=f.name,
                properties=f.properties,
                **made,
            )
            for f in sorted(wanted.values(), key=lambda f: (f.type, f.key))
        ]
        Entity.objects.bulk_create(rows, ignore_conflicts=True, batch_size=ROWS_A_QUERY)
        ids = entity_ids(subject_of(self.job), wanted)
        Mention.objects.bulk_create(
            [
                Mention(
                    entity_id=ids[f.type, f.key], document=document, start=f.start, end=f.end, text=document.text[f.start : f.end][:2000],
                    engine=f.engine, score=f.score, **made,
                )
                for f in found
            ],
            batch_size=ROWS_A_QUERY,
        )  # fmt: skip

    def result(self, engine: names.Engine, version: str) -> dict[str, Any]:
        entities = Entity.objects.filter(subject_id=subject_of(self.job), mention_count__gt=0)
        counts = dict(entities.order_by().values_list("type").annotate(Count("pk")))
        mentions = Mention.objects.filter(entity__subject_id=subject_of(self.job)).count()
        languages = (
            Document.objects.filter(subject_id=subject_of(self.job), is_current=True)
            .order_by()
            .values_list("language")
            .annotate(Count("pk"))
        )
        if engine.note:
            self.tracker.log_info(engine.note)
        return {
            "documents": self.counts["ok"],
            "unchanged": self.counts["unchanged"],
            "skipped": self.counts["skipped"],
            "failed": self.counts["failed"],
            "entities": sum(counts.values()),
            "mentions": mentions,
            "by_type": counts,
            "languages": {language or "unknown": n for language, n in languages},
            "engines": version,
        }


def entity_id(subject_id: UUID, found: Found) -> UUID:
    """Follows from what it names, so that decisions about an entity hold when it goes and comes again."""
    return uuid5(ENTITIES, f"{subject_id} {found.type} {found.key}")


def find_in_helper(document: Document) -> list[Found]:
    return find_all(document, names.engine())


def find_all(document: Document, engine: names.Engine) -> list[Found]:
    """Indicators, then dates, then names, where no earlier one stands. Offsets are those of the stored text.

    A name may stand in a handle: @BorisJohnson is a handle and names a person.
    """
    text = document.text
    taken = bytearray(len(text))
    found: list[Found] = []

    def take(one: Found) -> None:
        if not any(taken[one.start : one.end]):
            found.append(one)
            if one.type != "handle":
                taken[one.start : one.end] = b"\1" * (one.end - one.start)

    host = urlsplit(document.final_url).hostname or ""
    for i in indicators.find_indicators(text, region_of(host, document.language)):
        take(Found(i.start, i.end, i.type, short_key(i.value), i.value[:300], indicators.ENGINE, i.score, with_whole(i)))
    for d in find_dates(text, reference=published_on(document), language=document.language, host=host):
        take(Found(d.start, d.end, "date", d.key, d.key, "dates-1", 1.0 if d.rule in ("absolute", "range") else 0.8))
    for one in with_short_forms(text, engine.find(text, document.language)):
        take(one)
    return sorted(found, key=lambda f: f.start)


def with_whole(indicator: indicators.Indicator) -> dict[str, str]:
    """Its properties, with the whole value where the key is shorter."""
    whole = {} if len(indicator.value) <= 300 else {"value": indicator.value}
    return {**indicator.properties, **whole}


def short_key(value: str) -> str:
    """A value as it is; of one that is too long for a key its beginning and its hash, so that two are never one."""
    return value if len(value) <= 300 else f"{value[:235]}#{hashlib.sha256(value.encode()).hexdigest()}"


def with_short_forms(text: str, found: Iterable[names.Name]) -> list[Found]:
    """Names with their keys; “Keller” alone is the one “Anna Keller” of the same document, if there is only one."""
    rows = [(n, names.tidy(text[n.start : n.end])) for n in found]
    full = defaultdict(set)
    for name, surface in rows:
        parts = surface.split()
        if name.type == "person" and len(parts) > 1:
            full[parts[-1].casefold()].add(surface)
    made = []
    for name, surface in rows:
        longer = full.get(surface.casefold(), set()) if name.type == "person" else set()
        shown = next(iter(longer)) if len({names.key_of(x) for x in longer}) == 1 else surface
        key = names.key_of(shown)
        if key:
            made.append(Found(name.start, name.end, name.type, key[:300], shown[:300], name.engine, name.score))
    return made


def entity_ids(subject_id: Any, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    by_type: dict[str, list[str]] = defaultdict(list)
    for kind, key in wanted:
        by_type[kind].append(key)
    ids = {}
    for kind, keys in by_type.items():
        for first in range(0, len(keys), ROWS_A_QUERY):
            rows = Entity.objects.filter(subject_id=subject_id, type=kind, key__in=keys[first : first + ROWS_A_QUERY])
            ids.update({(kind, key): pk for key, pk in rows.values_list("key", "pk")})
    return ids


def recount(subject_id: Any) -> None:
    """How often each entity is named in current documents; what is named no longer goes, but for records of tables."""
    counts = Mention.objects.filter(entity=OuterRef("pk"), document__is_current=True).order_by().values("entity").annotate(n=Count("pk"))
    entities = Entity.objects.filter(subject_id=subject_id)
    entities.update(mention_count=Coalesce(Subquery(counts.values("n")), 0))
    entities.exclude(type=Entity.Type.RECORD).filter(mention_count=0).delete()
