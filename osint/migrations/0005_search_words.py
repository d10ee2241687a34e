"""PostgreSQL finds the parts of addresses, hosts and file names in documents, as SQLite does."""

from django.db import migrations

from jobs.fulltext import words_sql

COLUMN = """ALTER TABLE osint_document ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', {title}), 'A') || to_tsvector('simple', {text}) || to_tsvector('simple', {url})) STORED"""
PLAIN = {"title": "title", "text": "left(text, 250000)", "url": "url"}


def make_anew(editor, parts):
    if editor.connection.vendor == "postgresql":
        editor.execute("DROP INDEX document_search")
        editor.execute("ALTER TABLE osint_document DROP COLUMN search")
        editor.execute(COLUMN.format(**parts), None)  # no parameters: a % is one
        editor.execute("CREATE INDEX document_search ON osint_document USING gin (search)")


def forwards(apps, editor):
    make_anew(editor, {name: words_sql(expression) for name, expression in PLAIN.items()})


def backwards(apps, editor):
    make_anew(editor, PLAIN)


class Migration(migrations.Migration):
    dependencies = [("osint", "0004_search")]
    operations = [migrations.RunPython(forwards, backwards)]
