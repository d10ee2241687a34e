"""Full text of jobs: FTS5 on SQLite, a tsvector with a GIN index on PostgreSQL; kept by the database itself.

A later migration that rebuilds the table jobs_jobtext on SQLite drops its triggers and must make them again.
"""

from datetime import timedelta

from django.db import migrations
from django.utils import timezone

from jobs.fulltext import words_sql

SQLITE = (
    """CREATE VIRTUAL TABLE jobs_search USING fts5(
       scope, text, content='jobs_jobtext', content_rowid='id', tokenize='unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER jobs_search_insert AFTER INSERT ON jobs_jobtext BEGIN
       INSERT INTO jobs_search (rowid, scope, text) VALUES (new.id, new.scope, new.text);
       END""",
    """CREATE TRIGGER jobs_search_delete AFTER DELETE ON jobs_jobtext BEGIN
       INSERT INTO jobs_search (jobs_search, rowid, scope, text) VALUES ('delete', old.id, old.scope, old.text);
       END""",
)
POSTGRESQL = (
    f"""ALTER TABLE jobs_jobtext ADD COLUMN search tsvector
       GENERATED ALWAYS AS (setweight(to_tsvector('simple', scope), 'A')
           || to_tsvector('simple', {words_sql("left(text, 250000)")})) STORED""",
    "CREATE INDEX job_text_search ON jobs_jobtext USING gin (search)",
)
SQLITE_BACK = ("DROP TRIGGER jobs_search_insert", "DROP TRIGGER jobs_search_delete", "DROP TABLE jobs_search")
POSTGRESQL_BACK = ("DROP INDEX job_text_search", "ALTER TABLE jobs_jobtext DROP COLUMN search")


def forwards(apps, editor):
    for statement in {"sqlite": SQLITE, "postgresql": POSTGRESQL}[editor.connection.vendor]:
        editor.execute(statement, None)  # no parameters: a % is one
    find_what_is_there(apps)
    mark_what_failed(apps)


def find_what_is_there(apps):
    """The jobs that there are already, in the order in which they were made, and their warnings and errors."""
    from jobs.search import scope_words, texts_in

    Job, JobLog, JobText = (apps.get_model("jobs", name) for name in ("Job", "JobLog", "JobText"))
    scopes = {}
    rows = []
    for job in Job.objects.order_by("created_at").iterator(chunk_size=500):
        scopes[job.pk] = scope_words(job.created_by_id, job.subject_id)
        said = " ".join(texts_in(job.parameters))[:20_000]
        rows.append(JobText(job_id=job.pk, scope=scopes[job.pk], text=f"{job.name} {said}"))
        if len(rows) == 500:
            JobText.objects.bulk_create(rows)
            rows = []
    for line in JobLog.objects.filter(level__gte=30).order_by("timestamp").iterator(chunk_size=500):
        rows.append(JobText(job_id=line.job_id, scope=scopes.get(line.job_id, ""), text=line.message))
        if len(rows) == 500:
            JobText.objects.bulk_create(rows)
            rows = []
    JobText.objects.bulk_create(rows)


def mark_what_failed(apps):
    """What failed in the last days gets its fingerprint, so that it still needs people."""
    from jobs.failures import SHOWN_DAYS, mark_of

    Job, JobItem, FailureGroup = (apps.get_model("jobs", name) for name in ("Job", "JobItem", "FailureGroup"))
    since = timezone.now() - timedelta(days=SHOWN_DAYS)
    marks = {}
    for job in Job.objects.filter(status="FAILED", completed_at__gte=since).iterator(chunk_size=500):
        mark = mark_of(job.error_kind, job.error_message, traceback=job.error_traceback)
        marks[mark.fingerprint] = mark
        Job.objects.filter(pk=job.pk).update(failure=mark.fingerprint)
    for item in JobItem.objects.filter(outcome="failed", at__gte=since).iterator(chunk_size=500):
        mark = mark_of(item.kind, item.reason, key=item.key)
        marks[mark.fingerprint] = mark
        JobItem.objects.filter(pk=item.pk).update(failure=mark.fingerprint)
    rows = [
        FailureGroup(fingerprint=key, kind=mark.kind, exception=mark.exception[:100], place=mark.place, text=mark.text)
        for key, mark in marks.items()
    ]
    FailureGroup.objects.bulk_create(rows, ignore_conflicts=True)


def backwards(apps, editor):
    for statement in {"sqlite": SQLITE_BACK, "postgresql": POSTGRESQL_BACK}[editor.connection.vendor]:
        editor.execute(statement, None)  # no parameters: a % is one


class Migration(migrations.Migration):
    dependencies = [("jobs", "0005_troubles_stalls_views_and_wishes")]
    operations = [migrations.RunPython(forwards, backwards)]
