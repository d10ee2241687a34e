"""A capture becomes a document: the current one of its address, with what changed since the last."""

import difflib
from typing import Any

from jobs.models import Job
from osint.capture import Page
from osint.models import Document

DIFF_CHARS_MAX = 100_000
DIFF_LINES_MAX = 20_000  # difflib is quadratic; longer texts are only said to differ


def store_document(job: Job, url: str, page: Page, fields: dict[str, Any]) -> Document:
    """Upsert by (job, url), inside the caller's transaction. `fields` are those of the response: final_url, http_status, …"""
    others = Document.objects.exclude(job=job).filter(url=url, is_current=True)
    earlier = others.filter(subject_id=job.subject_id) if job.subject_id is not None else others.none()
    previous = earlier.order_by("-fetched_at").first()
    read = {
        "content_type": page.content_type[:200], "charset": page.charset[:40], "title": page.title, "author": page.author, "published": page.published,
        "language": page.language, "text": page.text, "links": page.links, "problem": page.problem, "canonical_url": page.canonical_url,
    }  # fmt: skip
    changes = {"previous": previous, "diff": difference(previous.text, page.text)} if previous else {}
    made = {"subject_id": job.subject_id, "attempt": job.attempt, **read, **fields, **changes}
    document, _ = Document.objects.update_or_create(job=job, url=url, defaults=made)
    if previous is not None:
        earlier.update(is_current=False)
    return document


def difference(before: str, after: str) -> str:
    """What changed, as a unified diff of lines; empty when nothing did."""
    if before == after:
        return ""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > DIFF_LINES_MAX:
        return f"The text has changed: {len(old):,} lines before, {len(new):,} now; too long to compare line by line."
    return "\n".join(list(difflib.unified_diff(old, new, "before", "now", lineterm="", n=1))[2:])[:DIFF_CHARS_MAX]
