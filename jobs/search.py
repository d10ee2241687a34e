"""Search over all jobs: in their names, parameters, and the warnings and errors of their logs (migration 0006).

What may be found is stored in `JobText`, a row for each job and one for each such line, with words for whom it concerns:
so that the index itself looks only at what a person may see, and not at a million jobs of others.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from jobs.fulltext import as_fts5, as_tsquery, terms_of
from jobs.models import Job, JobText

HITS_MAX = 200
CHARS_MAX = 20_000  # of the parameters of a job
BATCH, BATCHES_MAX = 300, 6  # each twice as large as the one before: 18,900 texts at most

_SQLITE = """
    SELECT s.rowid, t.job_id FROM jobs_search s JOIN jobs_jobtext t ON t.id = s.rowid
    WHERE jobs_search MATCH %s AND s.rowid < %s ORDER BY s.rowid DESC LIMIT %s"""
_POSTGRESQL = """
    SELECT id, job_id FROM jobs_jobtext WHERE search @@ to_tsquery('simple', %s) AND id < %s ORDER BY id DESC LIMIT %s"""
LAST = 2**62


def newest(text: str, visible: QuerySet, scope: list[str]) -> tuple[list[uuid.UUID], bool]:
    """(the newest visible jobs that have all words of `text` in one place, 200 at most; whether there may be more).

    `scope` is `scope_of` the viewer. Where fewer have the last word whole, those come after them that have it as a beginning;
    a phrase in double quotes is looked for as it stands. Whole words first, because for a beginning an index of either database
    collects every text that has it before the newest are known.
    """
    terms = terms_of(text)
    if not terms:
        return [], False
    found, more = found_by(query_of(terms, scope, beginning=False), visible)
    if len(found) <= HITS_MAX and len(terms[-1]) == 1:
        begun, more = found_by(query_of(terms, scope, beginning=True), visible)
        found = list(dict.fromkeys([*found, *begun]))
    return found[:HITS_MAX], more or len(found) > HITS_MAX


def found_by(query: str, visible: QuerySet) -> tuple[list[uuid.UUID], bool]:
    """(visible jobs, the newest texts first, until there are more than HITS_MAX; whether there may be more)."""
    found: dict[uuid.UUID, None] = {}
    more = False
    for ids, are_more in batches(query):
        more = are_more
        new = [pk for pk in ids if pk not in found]
        seen = set(visible.filter(pk__in=new).order_by().values_list("pk", flat=True))
        found |= dict.fromkeys(pk for pk in new if pk in seen)
        if len(found) > HITS_MAX:
            break
    return list(found), more


def batches(query: str) -> Iterator[tuple[list[uuid.UUID], bool]]:
    """(ids of jobs, whether more texts match) again and again, the newest texts first; up to a limit."""
    last = LAST
    for n in range(BATCHES_MAX):
        size = BATCH << n
        with connection.cursor() as cursor:
            cursor.execute(_SQLITE if connection.vendor == "sqlite" else _POSTGRESQL, [query, last, size])
            rows = cursor.fetchall()
        yield [pk if isinstance(pk, uuid.UUID) else uuid.UUID(pk) for _, pk in rows], len(rows) == size
        if len(rows) < size:
            return
        last = rows[-1][0]


def query_of(terms: list[list[str]], scope: list[str], *, beginning: bool) -> str:
    if connection.vendor == "sqlite":
        words = f"text : ({as_fts5(terms, beginning=beginning)})"
        return f"{words} AND scope : ({' OR '.join(scope)})" if scope else words
    words = as_tsquery(terms, "D", beginning=beginning)  # words for whom a text concerns have the weight A
    return f"{words} & ({' | '.join(f'{word}:A' for word in scope)})" if scope else words


def scope_of(user: Any, few: list[uuid.UUID] | None) -> list[str]:
    """The words of which a text must have one; none for who sees all, or would need too many of them. `few` is of `few_subjects_of`."""
    return [] if few is None else [person(user.pk), *map(of_subject, few)]


def person(user_id: int) -> str:
    return f"zzu{user_id}"


def of_subject(subject_id: uuid.UUID) -> str:
    return f"zzs{subject_id.hex}"


def scope_words(created_by_id: int | None, subject_id: uuid.UUID | None) -> str:
    return " ".join([*([person(created_by_id)] if created_by_id else []), *([of_subject(subject_id)] if subject_id else [])])


def text_of(job: Job) -> JobText:
    """Its name and its parameters, as far as they are texts."""
    said = " ".join(texts_in(job.parameters))[:CHARS_MAX]
    return JobText(job_id=job.pk, scope=scope_words(job.created_by_id, job.subject_id), text=f"{job.name} {said}")


def describe_again(job: Job) -> None:
    """After its parameters have changed: the first text of a job is the one about itself."""
    first = JobText.objects.filter(job=job).order_by("pk").first()
    if first is not None:
        first.delete()
    text_of(job).save(force_insert=True)


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from texts_in(inner)
