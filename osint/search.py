"""Search in the documents of a subject, by the full-text index of the database (migration 0004)."""

import uuid
from dataclasses import dataclass

from django.db import connection
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from jobs.fulltext import as_fts5, as_tsquery, terms_of
from osint.models import Document

HITS_MAX = 200
_OPEN, _CLOSE = "\ue000", "\ue001"  # private use: no text that we store means anything by them

_SQLITE = """
    SELECT r.document_id, snippet(osint_search, -1, %(open)s, %(close)s, ' … ', 40)
    FROM osint_search JOIN osint_searchrow r ON r.id = osint_search.rowid JOIN osint_document d ON d.id = r.document_id
    WHERE osint_search MATCH %(query)s AND d.subject_id = %(subject)s AND d.is_current
    ORDER BY bm25(osint_search, 5.0, 1.0, 2.0) LIMIT %(most)s"""
_POSTGRESQL = """
    SELECT d.id, ts_headline('simple', left(d.text, 100000), query,
        'MaxFragments=1, MaxWords=40, MinWords=15, StartSel=' || %(open)s || ', StopSel=' || %(close)s)
    FROM osint_document d, to_tsquery('simple', %(query)s) query
    WHERE d.search @@ query AND d.subject_id = %(subject)s AND d.is_current
    ORDER BY ts_rank(d.search, query) DESC, d.id LIMIT %(most)s"""


@dataclass(frozen=True)
class Hit:
    document: Document
    snippet: SafeString  # the words found are in <mark>


def search(subject_id: uuid.UUID, text: str) -> list[Hit]:
    """The documents that have all the words of `text`, best first; a last word may be the beginning of one.

    A phrase in double quotes is looked for as it stands. Up to 200 hits; nothing for a text without words.
    """
    terms = terms_of(text)
    if not terms:
        return []
    sqlite = connection.vendor == "sqlite"
    query = as_fts5(terms) if sqlite else as_tsquery(terms)
    subject = subject_id.hex if sqlite else subject_id
    with connection.cursor() as cursor:
        cursor.execute(
            _SQLITE if sqlite else _POSTGRESQL, {"open": _OPEN, "close": _CLOSE, "query": query, "subject": subject, "most": HITS_MAX}
        )
        rows = [(row[0] if isinstance(row[0], uuid.UUID) else uuid.UUID(row[0]), row[1]) for row in cursor.fetchall()]
    found = Document.objects.defer("text", "links", "headers", "diff").in_bulk([pk for pk, _ in rows])
    return [Hit(found[pk], marked(snippet)) for pk, snippet in rows if pk in found]


def marked(snippet: str) -> SafeString:
    return mark_safe(escape(snippet).replace(_OPEN, "<mark>").replace(_CLOSE, "</mark>"))  # noqa: S308 - escaped first
