"""Full text of documents: FTS5 on SQLite, a tsvector with a GIN index on PostgreSQL; kept by the database itself.

SQLite: `osint_searchrow` gives each document a number that outlives a VACUUM, and the index reads the texts
through a view, so they are stored once. A later migration that rebuilds the table of documents drops its
triggers and must make them again.
"""

from django.db import migrations

SQLITE = (
    "CREATE TABLE osint_searchrow (id INTEGER PRIMARY KEY AUTOINCREMENT, document_id char(32) NOT NULL UNIQUE)",
    """CREATE VIEW osint_searchsource AS SELECT r.id AS id, d.title AS title, d.text AS text, d.url AS url
       FROM osint_searchrow r JOIN osint_document d ON d.id = r.document_id""",
    """CREATE VIRTUAL TABLE osint_search USING fts5(
       title, text, url, content='osint_searchsource', content_rowid='id', tokenize='unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER osint_search_insert AFTER INSERT ON osint_document BEGIN
       INSERT INTO osint_searchrow (document_id) VALUES (new.id);
       INSERT INTO osint_search (rowid, title, text, url)
         VALUES ((SELECT id FROM osint_searchrow WHERE document_id = new.id), new.title, new.text, new.url);
       END""",
    """CREATE TRIGGER osint_search_delete AFTER DELETE ON osint_document BEGIN
       INSERT INTO osint_search (osint_search, rowid, title, text, url)
         VALUES ('delete', (SELECT id FROM osint_searchrow WHERE document_id = old.id), old.title, old.text, old.url);
       DELETE FROM osint_searchrow WHERE document_id = old.id;
       END""",
    """CREATE TRIGGER osint_search_update AFTER UPDATE OF title, text, url ON osint_document BEGIN
       INSERT INTO osint_search (osint_search, rowid, title, text, url)
         VALUES ('delete', (SELECT id FROM osint_searchrow WHERE document_id = old.id), old.title, old.text, old.url);
       INSERT INTO osint_search (rowid, title, text, url)
         VALUES ((SELECT id FROM osint_searchrow WHERE document_id = new.id), new.title, new.text, new.url);
       END""",
    "INSERT INTO osint_searchrow (document_id) SELECT id FROM osint_document",
    "INSERT INTO osint_search (osint_search) VALUES ('rebuild')",
)
# to_tsvector takes up to 1 MB of words, so the index covers the beginning of a very long text
POSTGRESQL = (
    """ALTER TABLE osint_document ADD COLUMN search tsvector GENERATED ALWAYS AS (
       setweight(to_tsvector('simple', title), 'A') || to_tsvector('simple', left(text, 250000)) || to_tsvector('simple', url)) STORED""",
    "CREATE INDEX document_search ON osint_document USING gin (search)",
)
SQLITE_BACK = (
    "DROP TRIGGER osint_search_insert", "DROP TRIGGER osint_search_delete", "DROP TRIGGER osint_search_update",
    "DROP TABLE osint_search", "DROP VIEW osint_searchsource", "DROP TABLE osint_searchrow",
)
POSTGRESQL_BACK = ("DROP INDEX document_search", "ALTER TABLE osint_document DROP COLUMN search")


def forwards(apps, editor):
    run(editor, SQLITE, POSTGRESQL)


def backwards(apps, editor):
    run(editor, SQLITE_BACK, POSTGRESQL_BACK)


def run(editor, sqlite, postgresql):
    for statement in {"sqlite": sqlite, "postgresql": postgresql}[editor.connection.vendor]:
        editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("osint", "0003_what_jobs_find")]
    operations = [migrations.RunPython(forwards, backwards)]
