"""A capture becomes a document; of all captures of an address the latest that could be read is the current one."""

import difflib
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, ExpressionWrapper, Q

from jobs.models import Job
from osint.capture import Page
from osint.models import Document, lock_subject

DIFF_CHARS_MAX = 100_000
DIFF_LINES_MAX = 20_000  # difflib is quadratic; longer texts are only said to differ


def store_document(job: Job, url: str, page: Page, fields: dict[str, Any]) -> Document:
    """Upsert by (job, url), inside the caller's transaction. `fields` are those of the response: final_url, fetched_at, …

    A page that stands in the way, or that cannot be read, never takes the place of one that was read.
    """
    lock_subject(job.subject_id)
    problem = page.problem or (Document.Problem.UNREADABLE if page.unreadable else "")
    read = {
        "content_type": page.content_type[:200], "charset": page.charset[:40], "title": page.title, "author": page.author, "published": page.published,
        "language": page.language, "text": page.text, "links": page.links, "problem": problem, "canonical_url": page.canonical_url,
    }  # fmt: skip
    made = {"subject_id": job.subject_id, "attempt": job.attempt, "is_current": True, **read, **fields}
    if job.subject_id is None:
        return Document.objects.update_or_create(job=job, url=url, defaults=made)[0]
    captures = Document.objects.filter(subject_id=job.subject_id, url=url)
    if not captures.exists():
        return Document.objects.create(job=job, url=url, **made)
    known = captures.exclude(job=job).filter(problem="", fetched_at__lt=fields["fetched_at"]).order_by("-fetched_at")
    previous = known.first() if not problem else None
    changes = {"previous": previous, "diff": difference(previous.text, page.text)} if previous else {}
    document, _ = Document.objects.update_or_create(job=job, url=url, defaults={**made, "is_current": False, **changes})
    choose_current(job.subject_id, url)
    return document


def choose_current(subject_id: UUID, url: str) -> None:
    """The latest capture that was read; while none was, the latest of all."""
    captures = Document.objects.filter(subject_id=subject_id, url=url)
    ranked = captures.annotate(was_read=ExpressionWrapper(Q(problem=""), BooleanField())).order_by("-was_read", "-fetched_at", "-pk")
    best: Any = ranked.values_list("pk", flat=True).first()
    captures.filter(is_current=True).exclude(pk=best).update(is_current=False)
    captures.filter(pk=best).update(is_current=True)


def difference(before: str, after: str) -> str:
    """What changed, as a unified diff of lines; empty when nothing did."""
    if before == after:
        return ""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > DIFF_LINES_MAX:
        return f"The text has changed: {len(old):,} lines before, {len(new):,} now; too long to compare line by line."
    return "\n".join(list(difflib.unified_diff(old, new, "before", "now", lineterm="", n=1))[2:])[:DIFF_CHARS_MAX]
