"""Find documents and entities of a subject that are likely the same, with the reasons, for a person to decide."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.db import transaction
from django.db.models import QuerySet

from jobs import words
from jobs.models import Job
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint import similarity
from osint.models import Document, DuplicateGroup, DuplicatePair, Entity, lock_subject, subject_of
from osint.similarity import Pair

PAIRS = uuid.UUID("b1c4d9ae-14d4-4a54-9b4d-3a1a51b0f6d2")  # names the ids of pairs and groups, so that links hold
ROWS_A_QUERY = 400
COMPARED_MAX = 50  # earlier documents with which one is compared: of a thousand copies the first ones stand for all
GROUP_LINKED = 0.5  # of all pairs between two groups more than this must be alike, or a chain would tie strangers together
NAMED_TYPES = (Entity.Type.PERSON, Entity.Type.ORGANISATION, Entity.Type.PLACE)
STEPS = ("documents", "names", "records")


class DuplicateDetectionForm(forms.Form):
    documents = forms.BooleanField(label="Compare documents", required=False, initial=True)
    entities = forms.BooleanField(label="Compare names and records", required=False, initial=True)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not cleaned.get("documents") and not cleaned.get("entities"):
            self.add_error("documents", "Choose what is compared: documents, entities, or both.")
        return cleaned


def summarise(result: dict[str, Any]) -> str:
    text = f"{words.count(result['duplicates'], 'likely duplicate')} in {words.count(result['groups'], 'group')}"
    return f"{text}, {result['to_review']:,} to review" if result["to_review"] else text


@register(
    "duplicate_detection",
    label="Duplicate detection",
    form=DuplicateDetectionForm,
    describe=lambda parameters: "Find duplicates",
    summarise=summarise,
    total_steps=lambda parameters: len(STEPS),
    result_template="osint/_duplicates_result.html",
    resumable=True,
    needs_subject=True,
    memory_limit_mb=1024,
    help="Finds near-identical documents, names that mean the same, and records that are likely one.",
)
def duplicate_detection(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    job = Job.objects.get(pk=tracker.job_id)
    settled = tracker.settled()
    chosen = {"documents": parameters["documents"], "names": parameters["entities"], "records": parameters["entities"]}
    for step in STEPS:
        if step in settled:
            continue
        if not chosen[step]:
            tracker.item_skipped(step, "Not asked for")
        else:
            tracker.stage(f"Comparing {step}")
            tracker.update_step(f"Comparing {step}", 0)
            found = {"documents": near_documents, "names": alike_names, "records": alike_records}[step](tracker, job)
            with tracker.spending("writing"), transaction.atomic():
                lock_subject(job.subject_id)
                store(job, step, found)
                tracker.done(step)
        tracker.update_step(f"Compared {step}")
    return result_of(job)


@dataclass
class Comparison:
    """What was compared: ids by position, and the pairs of positions that are likely the same."""

    ids: list[uuid.UUID]
    names: list[str]
    pairs: list[Pair]


# -- documents --------------------------------------------------------------------------------------------------


def near_documents(tracker: ProgressTracker, job: Job) -> Comparison:
    """Candidates by MinHash, each verified by what the texts share; the same bytes need no comparison."""
    documents = Document.objects.filter(subject_id=subject_of(job), is_current=True).exclude(text="").order_by("fetched_at", "pk")
    index = similarity.NearDuplicates()
    ids, names, pairs = [], [], []
    hashes: dict[str, int] = {}
    for number, document in enumerate(documents.only("pk", "title", "url", "text", "sha256").iterator(chunk_size=100)):
        ids.append(document.pk)
        names.append(str(document)[:300])
        shingles = similarity.shingles(document.text)
        first = hashes.setdefault(document.sha256, number)
        earlier = [n for n in index.add(number, shingles) if n != first][:COMPARED_MAX]
        if first != number:
            pairs.append(Pair(first, number, 1.0, ("the same bytes (SHA-256)",)))
        texts = Document.objects.filter(pk__in=[ids[n] for n in earlier]).values_list("pk", "text")
        others = {pk: similarity.shingles(text) for pk, text in texts}
        for other in earlier:
            share = similarity.jaccard(shingles, others[ids[other]])
            if share >= similarity.DOCUMENTS_ALIKE:
                pairs.append(Pair(other, number, round(share, 4), (f"{share:.0%} of their runs of five words are the same",)))
        if number % 100 == 0:
            tracker.update_step(f"Comparing documents: {number:,}", 0)
    return Comparison(ids, names, pairs)


# -- names ------------------------------------------------------------------------------------------------------


def alike_names(tracker: ProgressTracker, job: Job) -> Comparison:
    """People, organisations and places that are written differently."""
    ids: list[uuid.UUID] = []
    names: list[str] = []
    pairs: list[Pair] = []
    for kind in NAMED_TYPES:
        rows = list(Entity.objects.filter(subject_id=subject_of(job), type=kind).order_by("key").values_list("pk", "name"))
        shift = len(ids)
        ids += [pk for pk, _ in rows]
        names += [name for _, name in rows]
        for pair in similarity.alike_names([name for _, name in rows], kind):
            pairs.append(Pair(pair.left + shift, pair.right + shift, pair.score, pair.reasons))
        tracker.update_step(f"Compared {words.count(len(rows), f'{kind} name')}", 0)
    return Comparison(ids, names, pairs)


def alike_records(tracker: ProgressTracker, job: Job) -> Comparison:
    rows = list(
        Entity.objects.filter(subject_id=subject_of(job), type=Entity.Type.RECORD).order_by("key").values_list("pk", "name", "properties")
    )
    records = similarity.Records([properties for _, _, properties in rows])
    tracker.update_step(f"Comparing {words.count(len(rows), 'record')}", 0)
    return Comparison([pk for pk, _, _ in rows], [name for _, name, _ in rows], records.pairs())


# -- storing ------------------------------------------------------------------------------------------------------


def store(job: Job, step: str, found: Comparison) -> None:
    """The pairs of this step anew; what a person decided stays and counts in the groups."""
    kind = "document" if step == "documents" else "entity"
    of_step = DuplicatePair.objects.filter(subject_id=subject_of(job), kind=kind, step=step)
    of_step.filter(decision="").delete()
    decided = decisions(of_step, set(found.ids))
    DuplicateGroup.objects.filter(subject_id=subject_of(job), kind=kind, step=step).delete()
    made = {"subject_id": subject_of(job), "kind": kind, "step": step, "job": job, "attempt": job.attempt}
    scored = {ordered(found.ids[p.left], found.ids[p.right]): p for p in found.pairs}
    links = {pair: p.score for pair, p in scored.items() if p.score >= least_to_link(step)}
    links = {
        pair: score for pair, score in links.items() if pair not in decided or decided[pair].decision != DuplicatePair.Decision.DIFFERENT
    }
    links |= {pair: 1.0 for pair, row in decided.items() if row.decision == DuplicatePair.Decision.SAME}
    apart = {pair for pair, row in decided.items() if row.decision == DuplicatePair.Decision.DIFFERENT}
    names = dict(zip(found.ids, found.names, strict=True))
    group_of: dict[uuid.UUID, uuid.UUID] = {}
    groups = []
    rank = {pk: n for n, pk in enumerate(found.ids)}
    for members in grouped(links, apart, rank):
        pk = uuid.uuid5(PAIRS, f"{subject_of(job)} {step} {min(members)}")
        groups.append(DuplicateGroup(id=pk, name=names.get(min(members), "")[:300], size=len(members), **made))
        group_of |= dict.fromkeys(members, pk)
    DuplicateGroup.objects.bulk_create(groups, batch_size=ROWS_A_QUERY)
    rows = [
        DuplicatePair(
            id=uuid.uuid5(PAIRS, f"{subject_of(job)} {kind} {left} {right}"), left=left, right=right, score=p.score, reasons=list(p.reasons),
            group_id=same_group(group_of, left, right), **made,
        )
        for (left, right), p in scored.items() if (left, right) not in decided
    ]  # fmt: skip
    DuplicatePair.objects.bulk_create(rows, batch_size=ROWS_A_QUERY)
    for (left, right), row in decided.items():
        DuplicatePair.objects.filter(pk=row.pk).update(group_id=same_group(group_of, left, right))


def decisions(of_step: QuerySet, present: set[uuid.UUID]) -> dict[tuple[uuid.UUID, uuid.UUID], DuplicatePair]:
    """What a person decided, about what is there now: a decision about a page holds for its later captures as well."""
    pairs = list(of_step.exclude(decision="").order_by("decided_at"))
    gone = {pk for pair in pairs for pk in (pair.left, pair.right)} - present
    captures = Document.objects.filter(pk__in=gone).values_list("pk", "subject_id", "url")
    later = {}
    for pk, subject_id, url in captures:
        current = Document.objects.filter(subject_id=subject_id, url=url, is_current=True).values_list("pk", flat=True).first()
        if current in present:
            later[pk] = current
    decided: dict[tuple[uuid.UUID, uuid.UUID], DuplicatePair] = {}
    for pair in pairs:
        left, right = ordered(later.get(pair.left, pair.left), later.get(pair.right, pair.right))
        if {left, right} <= present and left != right and (left, right) not in decided:
            if (left, right) != (pair.left, pair.right):
                of_step.filter(pk=pair.pk).update(left=left, right=right)
            decided[left, right] = pair
    return decided


def least_to_link(step: str) -> float:
    return similarity.DOCUMENTS_LINKED if step == "documents" else similarity.LIKELY if step == "records" else similarity.NAMES_LINKED


def same_group(group_of: dict[uuid.UUID, uuid.UUID], left: uuid.UUID, right: uuid.UUID) -> uuid.UUID | None:
    group = group_of.get(left)
    return group if group is not None and group == group_of.get(right) else None


def ordered(one: uuid.UUID, other: uuid.UUID) -> tuple[uuid.UUID, uuid.UUID]:
    return (one, other) if one < other else (other, one)


def grouped(
    links: Mapping[tuple[uuid.UUID, uuid.UUID], float],
    apart: Iterable[tuple[uuid.UUID, uuid.UUID]] = (),
    rank: Mapping[uuid.UUID, int] | None = None,
) -> list[list[uuid.UUID]]:
    """Connected components, joined from the strongest link on, but only where more than half of all pairs between two parts are linked.

    So a chain A–B–C–D of which each resembles the next alone does not become one; and two that a person told apart are never
    in one group. Of equally strong links those come first whose members stand first by `rank`, which must not depend on ids.
    """
    rank = rank or {}
    cluster: dict[uuid.UUID, list[uuid.UUID]] = {}
    enemies: dict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    for left, right in apart:
        enemies[left].add(right)
        enemies[right].add(left)
    for (left, right), _ in sorted(links.items(), key=lambda link: (-link[1], *sorted(rank.get(pk, 0) for pk in link[0]), link[0])):
        one, other = cluster.setdefault(left, [left]), cluster.setdefault(right, [right])
        if one is other or any(b in enemies[a] for a in one for b in other):
            continue
        linked = sum(ordered(a, b) in links for a in one for b in other)
        if linked > GROUP_LINKED * len(one) * len(other):
            one += other
            for member in other:
                cluster[member] = one
    unique = {id(members): sorted(members) for members in cluster.values() if len(members) > 1}
    return sorted(unique.values())


def result_of(job: Job) -> dict[str, Any]:
    pairs = DuplicatePair.objects.filter(subject_id=subject_of(job))
    groups = DuplicateGroup.objects.filter(subject_id=subject_of(job))
    sizes = list(groups.values_list("size", flat=True))
    by_step: dict[str, int] = defaultdict(int)
    for step in pairs.exclude(decision=DuplicatePair.Decision.DIFFERENT).values_list("step", flat=True):
        by_step[step] += 1
    return {
        "duplicates": sum(sizes) - len(sizes),
        "groups": len(sizes),
        "pairs": sum(by_step.values()),
        "by_step": dict(by_step),
        "to_review": pairs.filter(decision="").count(),
        "confirmed": pairs.filter(decision=DuplicatePair.Decision.SAME).count(),
        "rejected": pairs.filter(decision=DuplicatePair.Decision.DIFFERENT).count(),
    }
