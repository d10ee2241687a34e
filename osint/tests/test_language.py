"""The second language: whole, compiled, and shown on every page, also of what was stored before."""

import ast
import re
from pathlib import Path

import lxml.html
import polib
import pytest
from django.conf import settings
from django.utils import timezone, translation

from jobs.language import Catalogue, told
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt
from jobs.tests.fixtures import reload
from osint.models import Entity, Subject
from osint.tests.fixtures import add_document

ROOT = Path(settings.BASE_DIR)
FOLDER = ROOT / "osint" / "locale" / "de" / "LC_MESSAGES"
PLACEHOLDER = re.compile(r"\{(\d)[!?]?\}|%\((\w+)\)s|%s")


class TestCatalogues:
    @pytest.mark.parametrize("name", ["django", "djangojs", "sentences"])
    def test_each_text_is_translated_and_compiled(self, name):
        source = polib.pofile(str(FOLDER / f"{name}.po"))
        compiled = {entry.msgid: entry for entry in polib.mofile(str(FOLDER / f"{name}.mo"))}
        assert [entry.msgid for entry in source if not entry.translated() or entry.fuzzy] == []
        for entry in source:
            assert compiled[entry.msgid].msgstr == entry.msgstr, "compile it: django-admin compilemessages"
            assert compiled[entry.msgid].msgstr_plural == entry.msgstr_plural
        assert len(compiled) == len(source)

    @pytest.mark.parametrize("name", ["django", "djangojs", "sentences"])
    def test_what_varies_is_in_both(self, name):
        for entry in polib.pofile(str(FOLDER / f"{name}.po")):
            for translated in filter(None, [entry.msgstr, *entry.msgstr_plural.values()]):
                there, here = ([re.sub("[!?]", "", found[0]) for found in PLACEHOLDER.finditer(text)] for text in (entry.msgid, translated))
                assert sorted(there) == sorted(here), entry.msgid

    def test_the_texts_of_templates_are_in_it(self):
        known = {entry.msgid for entry in polib.pofile(str(FOLDER / "django.po"))}
        for path in (ROOT / "templates").rglob("*.html"):
            text = path.read_text()
            for _, found in re.findall(r"""\{% translate (["'])(.*?)\1 %\}""", text):
                assert found.replace("%", "%%") in known or found in known, f"{path.name}: {found}"
            for found in re.findall(r"\{% blocktranslate trimmed[^%]*%\}(.*?)\{% (?:plural|endblocktranslate)", text, re.DOTALL):
                msgid = re.sub(r"\{\{ (\w+) \}\}", r"%(\1)s", found.replace("%", "%%"))
                assert msgid in known, f"{path.name}: {msgid}"

    def test_the_texts_of_scripts_are_in_it(self):
        known = {entry.msgid for entry in polib.pofile(str(FOLDER / "djangojs.po"))}
        for path in (ROOT / "static" / "js").glob("*.js"):
            for found in re.findall(r'n?gettext\("([^"]+)"', path.read_text()):
                assert found in known, f"{path.name}: {found}"

    def test_what_people_are_told_by_the_code_is_in_it(self):
        catalogue = Catalogue("de")
        unknown = [f"{where}: {text}" for where, text in said_by_the_code() if catalogue.translate(text) == text]
        assert unknown == []


# proper names, and texts for the log of the server alone
NOT_TRANSLATED = {"JSON Lines", "CSV", "GraphML", "ZIP", "FollowTheMoney JSON", "Text"}
CALLS = {"success": 1, "error": 1, "warning": 1, "log_info": 0, "log_warning": 0, "log_error": 0, "update_step": 0, "stage": 0,
         "NotAllowed": 0, "PermanentError": 0, "TransientError": 0, "FetchError": 0, "Refused": 0, "Unreadable": 0,
         "ValidationError": 0, "QuotaExceeded": 0, "item_skipped": 1}  # fmt: skip


def said_by_the_code():
    """(place, sentence) of what the pages' views, the managers and the job types say, with 7 for what varies."""
    for path in [*(ROOT / "jobs").rglob("*.py"), *(ROOT / "osint").rglob("*.py")]:
        if {"tests", "migrations", "management", "api", "ner"} & set(path.parts) or path.name in (
            "admin.py",
            "demo.py",
            "api.py",
            "archive.py",
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("success", "error", "warning") and getattr(node.func.value, "id", "") != "messages":
                continue
            places = [1, 2] if name == "Way" else [CALLS[name]] if name in CALLS else []
            for place in places:
                text = text_of(node.args[place]) if len(node.args) > place else ""
                if re.search(r"[a-z]{3}", text.replace("7", "")) and text not in NOT_TRANSLATED:
                    yield f"{path.name}:{node.lineno}", text


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "7" for part in node.values)
    return ""


def in_german(text):
    with translation.override("de"):
        return told(text)


class TestTold:
    @pytest.mark.parametrize(("english", "german"), [
        ("Waiting for a free worker", "Wartet auf einen freien Worker"),
        ("Fetched example.org/a 200 24 kB", "Abgerufen: example.org/a 200 24 kB"),
        ("44 pages stored, 2 could not be read", "44 Seiten gespeichert, 2 nicht lesbar"),
        ("Completed. 1,204 pages stored", "Abgeschlossen. 1.204 Seiten gespeichert"),
        ("Waits for memory: 1.1 GB needed, 0.6 GB free", "Wartet auf Speicher: 1,1 GB gebraucht, 0,6 GB frei"),
        ("Fetching example.org/a · 4 of 10 pages · about 3 min left", "Ruft ab: example.org/a · 4 von 10 Seiten · noch etwa 3 min"),
        ("Try 2 of 4 failed: Not finished in 60 s", "Versuch 2 von 4 fehlgeschlagen: Nicht fertig in 60 s"),
        ("Cancelled by ortega: wrong site", "Abgebrochen von ortega: wrong site"),
        ("https://example.org/119: Not finished in 60 s", "https://example.org/119: Nicht fertig in 60 s"),
        ("Investigate Meridian Holdings: 44 pages stored, 2 could not be read",
         "Meridian Holdings untersuchen: 44 Seiten gespeichert, 2 nicht lesbar"),
        ("Investigate Meridian Holdings: something of a library", "Meridian Holdings untersuchen: something of a library"),
        ("Scrape 2 pages of example.org: None of the 2 pages could be read, such as https://example.org/a: 404 Not Found",
         "2 Seiten von example.org abrufen: Keine der 2 Seiten ist lesbar, zum Beispiel https://example.org/a: 404 Not Found"),
        ("Cancelled by ortega: given up after a failed try", "Abgebrochen von ortega: nach einem fehlgeschlagenen Versuch aufgegeben"),
        ("Waits for “Assemble the timeline”", "Wartet auf „Zeitleiste zusammenstellen“"),
        ("Waits for “a: b” and 2 more", "Wartet auf „a: b“ und 2 weitere"),
        ("74% of their runs of five words are the same", "74 % ihrer Folgen von fünf Wörtern sind gleich"),
        ("0.4 s", "0,4 s"),
        ("Retries in 4 min 12 s", "Neuer Versuch in 4 min 12 s"),
        ("It is tried again by itself. If it keeps failing, check that the host is reachable.",
         "Es wird von selbst noch einmal versucht. Wenn es weiter fehlschlägt, prüfen Sie, ob der Host erreichbar ist."),
    ])  # fmt: skip
    def test_sentences_with_what_varies(self, english, german):
        assert in_german(english) == german

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Meridian Holdings",
            "coordinates: 48.137, 11.575",
            "Python: 3.11",
            "1.5 and 2.5",
            "ValueError: 3.5",
            "KeyError: 'x'",
            "{0}",
            "http://example.org/?a={1}",
            "a · b",
            "(.+?)",
        ],
    )
    def test_what_is_not_known_stays(self, text):
        assert in_german(text) == text

    def test_what_stands_in_quotes_is_somebodys_own_word(self):
        assert in_german("“Waiting” is paused.") == "„Waiting“ ist pausiert."
        assert in_german("with the group “Failed”") == "mit der Gruppe „Failed“"

    def test_names_and_reasons_of_people_are_their_own(self):
        assert in_german("Created by Failed") == "Erstellt von Failed"
        assert in_german("Cancelled by ortega: Done") == "Abgebrochen von ortega: Done"
        assert in_german("Cancelled by the system: Done") == "Abgebrochen vom System: Done"
        assert in_german("Fetched 3 pages") == "Abgerufen: 3 pages"

    def test_a_long_text_is_somebodys_and_costs_nothing(self):
        for text in (" at a of " * 500, "Failed: " * 2000, ", ".join("a · b; c. d" for _ in range(3000))):
            assert in_german(text) == text


@pytest.fixture
def subject(analyst):
    return Subject.objects.create(name="Meridian", created_by=analyst)


@pytest.fixture
def jobs(analyst, subject):
    manager = JobManager()
    found = {name: manager.create_job("entity_extraction", created_by=analyst, subject_id=subject.pk)
             for name in ("waiting", "held", "paused", "running", "failed", "completed", "cancelled", "retrying")}  # fmt: skip
    manager.hold([found["held"].pk], "Waits for memory: 1.1 GB needed, 0.6 GB free")
    manager.pause_job(found["paused"].pk, by=analyst)
    for name in ("running", "failed", "completed", "retrying"):
        manager.start([found[name].pk], worker_id="atlas-1", host="atlas")
    manager.update_progress(found["running"].pk, 40, "Reading Annual report", attempt=1, completed_steps=4, total_steps=10)
    manager.append_logs(
        found["running"].pk, [{"level": 30, "message": "The subject has no documents: there is nothing to read"}], attempt=1
    )
    manager.record_items(found["completed"].pk, [("a", "failed", "transient", "It has no text")], attempt=1)
    result = {
        "entities": 3,
        "documents": 2,
        "unchanged": 0,
        "skipped": 1,
        "mentions": 4,
        "by_type": {"person": 3},
        "engines": "rules",
        "languages": {},
    }
    manager.mark_completed(found["completed"].pk, result, attempt=1)
    manager.mark_failed(found["failed"].pk, "Ran longer than the 60 s it may", attempt=1, kind="limit")
    manager.mark_failed(found["retrying"].pk, "Something outside did not answer", attempt=1, kind="transient",
                        retry_at=timezone.now() + timezone.timedelta(minutes=4))  # fmt: skip
    manager.cancel_job(found["cancelled"].pk, by=analyst)
    return found


@pytest.fixture
def known(subject, analyst):
    """A page and a person."""
    document = add_document(subject, "Anna Keller met Jan Lindqvist.", title="Anna Keller 2024")
    entity = Entity.objects.create(subject=subject, type="person", key="anna keller", name="Anna Keller", mention_count=1)
    return document, entity


@pytest.mark.django_db
class TestPages:
    def paths(self, jobs, subject, known):
        document, entity = known
        failure = reload(jobs["failed"]).failure
        tabs = ("documents", "entities", "timeline", "duplicates", "files", "search", "investigate", "upload")
        return [
            "/", "/jobs/", "/jobs/?q=nothing", "/slow/", "/failures/", f"/failures/{failure}/", "/notifications/", "/notifications/mail/",
            "/jobs/new/", "/jobs/new/web_scraping/", "/jobs/new/data_export/", f"/jobs/{jobs['completed'].pk}/items/", "/nowhere/",
            *(job.get_absolute_url() for job in jobs.values()), "/subjects/", f"/subjects/{subject.pk}/",
            *(f"/subjects/{subject.pk}/{tab}/" for tab in tabs), f"/documents/{document.pk}/", f"/entities/{entity.pk}/",
        ]  # fmt: skip

    def test_no_page_shows_an_english_text_of_ours(self, client, analyst, jobs, subject, known):
        client.force_login(analyst)
        catalogue = Catalogue("de")
        django = {entry.msgid: entry.msgstr for entry in polib.pofile(str(FOLDER / "django.po")) if entry.msgstr}
        english = {text for text, german in (django | catalogue.plain).items() if text != german and len(text) > 3}
        left = []
        for path in self.paths(jobs, subject, known):
            page = lxml.html.fromstring(client.get(path, headers={"accept-language": "de"}).content)
            assert page.get("lang") == "de"
            for text in page.xpath("//body//text()[not(ancestor::script)] | //@aria-label | //@title | //@placeholder"):
                text = " ".join(text.split())
                if text in english or (text and catalogue.translate(text) != text):
                    left.append(f"{path}: {text}")
        assert left == []

    def test_numbers_in_drawings_are_no_words_of_a_language(self, client, analyst, jobs):
        JobAttempt.objects.filter(job=jobs["completed"]).update(
            times={"network": 1.2345, "stages": [["Reading documents", 0.0], ["Counting", 0.7]]}
        )
        client.force_login(analyst)
        page = lxml.html.fromstring(client.get(jobs["completed"].get_absolute_url(), headers={"accept-language": "de"}).content)
        numbers = [value for name in ("x", "y", "width", "height", "x1", "x2") for value in page.xpath(f"//svg//@{name}")]
        assert numbers
        assert [value for value in numbers if not re.fullmatch(r"-?\d+(\.\d+)?", value)] == []

    def test_a_choice_stays_and_goes_before_what_the_browser_asks_for(self, client, analyst):
        client.force_login(analyst)
        assert 'lang="en"' in client.get("/").content.decode()
        answer = client.post("/language/", {"language": "de", "next": "/jobs/"})
        assert answer["Location"] == "/jobs/"
        assert "Neuer Job" in client.get("/jobs/", headers={"accept-language": "en"}).content.decode()

    def test_what_is_stored_and_what_the_api_says_is_one_language(self, client, analyst, jobs):
        client.force_login(analyst)
        row = client.get(f"/api/jobs/{jobs['held'].pk}", headers={"accept-language": "de"}).json()
        assert row["sentence"] == "Waits for memory: 1.1 GB needed, 0.6 GB free"
        client.post(f"/jobs/{jobs['waiting'].pk}/cancel/", headers={"accept-language": "de"})
        assert reload(jobs["waiting"]).logs.last().message == "Cancelled by ortega"
        assert Job.objects.get(pk=jobs["waiting"].pk).name == "Extract entities"

    def test_thousands_are_the_same_number_in_each_language(self, client, analyst, jobs):
        Job.objects.filter(pk=jobs["running"].pk).update(total_steps=12_345, completed_steps=1_000)
        client.force_login(analyst)
        assert (
            "1.000 von 12.345 Dokumente"
            in client.get(jobs["running"].get_absolute_url(), headers={"accept-language": "de"}).content.decode()
        )
        row = client.get(f"/api/jobs/{jobs['running'].pk}", headers={"accept-language": "de"}).json()
        assert "1,000 of 12,345 documents" in row["sentence"]
        assert client.get("/api/jobs/nonsense", headers={"accept-language": "de"}).json()["detail"].isascii()

    def test_a_message_after_an_action(self, client, analyst, jobs):
        client.force_login(analyst)
        text = client.post(f"/jobs/{jobs['waiting'].pk}/cancel/", follow=True, headers={"accept-language": "de"}).content.decode()
        assert "„Extract entities“ ist abgebrochen." in text

    def test_words_of_the_scripts(self, client):
        assert "Nicht live, versucht es wieder" in client.get("/words.js", headers={"accept-language": "de"}).content.decode()
