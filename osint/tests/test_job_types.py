"""What each job type finds, and bad input: only the item that is bad is reported."""

import io
import json
import zipfile
from datetime import date
from pathlib import Path

import lxml.html
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from pypdf import PdfWriter
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from jobs import registry
from jobs.errors import AllItemsFailed, InvalidParameters
from jobs.manager import JobManager
from osint import names
from osint.job_types.timeline_assembly import by_time
from osint.models import Document, DuplicatePair, Entity, EventSource, Mention, TimelineEvent, Upload
from osint.tests.fixtures import add_document, run_here

pytestmark = pytest.mark.django_db

TEXT = (
    "Anna Keller met Jan Lindqvist in Zürich on 3 June 2023. Keller is the chief executive of Meridian Holdings AG.\n"
    "Write to anna.keller[at]meridian[.]com or call +41 44 668 18 00. Last Tuesday the board met again."
)


# -- entities -----------------------------------------------------------------------------------------------------


def extract(subject, by, **parameters):
    return run_here("entity_extraction", subject, by, **parameters)


def test_entities_with_their_exact_places(subject, analyst):
    document = add_document(subject, TEXT)
    job = extract(subject, analyst)
    found = {(m.entity.type, m.entity.key): m for m in Mention.objects.select_related("entity")}
    assert {("person", "anna keller"), ("person", "jan lindqvist"), ("place", "zürich"), ("email", "anna.keller@meridian.com")} <= set(
        found
    )
    assert {("phone", "+41446681800"), ("date", "2023-06-03"), ("date", "2024-05-14")} <= set(found)
    for mention in Mention.objects.all():
        assert document.text[mention.start : mention.end] == mention.text
        assert 0 < mention.score <= 1
        assert mention.engine
    # “Keller” alone is the Anna Keller of the same document
    assert Entity.objects.get(type="person", key="anna keller").mention_count == 2
    assert job.result_data["documents"] == 1


def test_a_second_run_reads_only_what_is_new_and_doubles_nothing(subject, analyst):
    add_document(subject, TEXT)
    first = extract(subject, analyst)
    mentions = Mention.objects.count()
    add_document(subject, "Anna Keller again.")
    second = extract(subject, analyst)
    assert (second.result_data["documents"], second.result_data["unchanged"]) == (1, 1)
    third = extract(subject, analyst, again=True)
    assert (third.result_data["documents"], Mention.objects.count()) == (2, mentions + 1)
    assert Entity.objects.get(type="person", key="anna keller").mention_count == 3
    assert first.result_data["entities"] == third.result_data["entities"]


def test_an_entity_that_is_named_no_longer_goes(subject, analyst):
    document = add_document(subject, TEXT)
    extract(subject, analyst)
    Document.objects.filter(pk=document.pk).update(text="Nothing of note.", extracted_by="")
    extract(subject, analyst)
    assert not Entity.objects.exists()


ODD = {
    "empty": "", "blank": " \n ", "emoji": "Anna Keller 🎉🎉 wrote to a@b.org 👩‍👩‍👧", "rtl": "كتب أحمد إلى user@example.org في 3 June 2023 من حيفا",
    "one line": "Anna Keller " * 30_000, "no letters": "1" * 50_000, "mixed": "Ã¼ber \udcff".encode("utf-8", "replace").decode(), "phone": "+" + "4" * 400,
    "february": "It was on 31 February 2023.",
}  # fmt: skip


def test_odd_texts_are_read_or_skipped_one_by_one(subject, analyst):
    for title, text in ODD.items():
        add_document(subject, text, title=title)
    job = extract(subject, analyst)
    assert (job.result_data["documents"], job.result_data["skipped"], job.result_data["failed"]) == (7, 2, 0)
    assert set(job.items.filter(outcome="skipped").values_list("reason", flat=True)) == {"It has no text"}
    timeline = run_here("timeline_assembly", subject, analyst)
    assert (timeline.result_data["documents"], timeline.result_data["skipped"]) == (7, 2)
    assert list(TimelineEvent.objects.values_list("begins", flat=True)) == [timezone.datetime(2023, 6, 3).date()]


def test_a_document_that_breaks_the_engine_is_one_problem(subject, analyst, monkeypatch):
    add_document(subject, TEXT)
    add_document(subject, "POISON")
    find = names.OwnModel.find

    def broken(self, text, language):
        if text == "POISON":
            raise ValueError("no")
        return find(self, text, language)

    monkeypatch.setattr(names.OwnModel, "find", broken)
    job = extract(subject, analyst)
    assert (job.result_data["documents"], job.result_data["failed"]) == (1, 1)


def test_an_empty_subject_completes_and_says_so(subject, analyst):
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection", "data_export", "pdf_generation"):
        job = run_here(job_type, subject, analyst)
        assert job.status == "COMPLETED", job_type
    assert extract(subject, analyst).logs.filter(message__contains="no documents").exists()


@pytest.mark.parametrize(
    "job_type", ["entity_extraction", "timeline_assembly", "duplicate_detection", "data_export", "pdf_generation", "file_import"]
)
def test_without_a_subject_there_is_nothing_to_work_on(job_type, analyst, subject):
    parameters = {"uploads": [str(upload(subject, analyst, "a.txt", b"x").pk)]} if job_type == "file_import" else {}
    with pytest.raises(InvalidParameters, match="choose one"):
        JobManager().create_job(job_type, parameters=parameters, created_by=analyst)


def test_spacy_may_be_chosen_but_must_be_there(settings):
    from django.core.exceptions import ImproperlyConfigured

    settings.NER_ENGINE = "spacy:en_core_web_none"
    names.engine.cache_clear()
    with pytest.raises(ImproperlyConfigured, match="en_core_web_none"):
        names.engine()
    names.engine.cache_clear()


# -- timeline -----------------------------------------------------------------------------------------------------


def assemble(subject, by):
    return run_here("timeline_assembly", subject, by)


def test_events_with_their_sentence_and_precision(subject, analyst):
    document = add_document(subject, TEXT)
    assemble(subject, analyst)
    first, second = TimelineEvent.objects.order_by("begins")
    assert (first.begins.isoformat(), first.precision) == ("2023-06-03", "day")
    assert (second.begins.isoformat(), second.title) == ("2024-05-14", "Last Tuesday the board met again.")
    source = EventSource.objects.get(event=second)
    assert document.text[source.start : source.end] == source.text == "Last Tuesday"
    assert (source.rule, source.note) == ("relative", "counted from the document's date")


@pytest.mark.parametrize(("years", "columns"), [
    ((), []),
    ((2011,), [("2011", 1)]),
    ((2011, 2013, 2013), [("2011", 1), ("2012", 0), ("2013", 2)]),
    ((1950, 2000, 2001), [(f"{year}–{year + 4}", n) for year, n in zip(range(1950, 2001, 5), [1, *[0] * 9, 2], strict=True)]),
    ((1, 9999), [(f"{year}–{year + 499}", int(year in (0, 9500))) for year in range(0, 9501, 500)]),
])  # fmt: skip
def test_events_by_time(years, columns):
    assert by_time(date(year, 5, 17) for year in years) == columns


def test_the_results_are_charts_too(client, subject, analyst):
    add_document(subject, "Anna Keller joined Baltic Bulk in Rostock on 3 June 2019. The office in Rostock closed on 4 May 2021.")
    client.force_login(analyst)
    found = {job_type: run_here(job_type, subject, analyst) for job_type in ("entity_extraction", "timeline_assembly")}
    for job_type, label, width in (("entity_extraction", "Date", "100.0"), ("timeline_assembly", "2020", "0.0")):
        html = lxml.html.fromstring(client.get(found[job_type].get_absolute_url()).content)
        bars = {row.find("th").text: row.xpath(".//rect/@width")[0] for row in html.xpath("//table[contains(@class, 'counts')]//tr")}
        assert bars[label] == width, bars


def test_what_several_documents_report_is_one_event(subject, analyst):
    add_document(subject, "The company Northgate sold two carriers to a buyer in Dubai on 9 November 2023.")
    add_document(subject, "On 9 November 2023 Northgate sold two carriers to a buyer in Dubai, the register says.")
    add_document(subject, "On 9 November 2023 the choir of Hamburg sang in the rain for six hours.")
    assemble(subject, analyst)
    assert sorted(TimelineEvent.objects.values_list("source_count", flat=True)) == [1, 2]
    ids = set(TimelineEvent.objects.values_list("pk", flat=True))
    assemble(subject, analyst)
    assert set(TimelineEvent.objects.values_list("pk", flat=True)) == ids, "links to an event hold"


# -- duplicates ---------------------------------------------------------------------------------------------------


def detect(subject, by, **parameters):
    return run_here("duplicate_detection", subject, by, **parameters)


def test_documents_that_are_almost_the_same(subject, analyst):
    text = " ".join(f"word{n} of the story" for n in range(100))
    for version in (text, text.replace("word50", "another"), "Something else entirely, " * 40):
        add_document(subject, version)
    detect(subject, analyst)
    [pair] = DuplicatePair.objects.all()
    assert 0.9 < pair.score < 1
    assert pair.group.size == 2
    assert "runs of five words" in pair.reasons[0]


def test_a_decision_is_kept_and_respected(subject, analyst):
    add_document(subject, "Anna Keller spoke. Anna Kellar spoke. Keller Anna spoke in Zürich, said Anna Keller.")
    for key, name in (("anna keller", "Anna Keller"), ("anna kellar", "Anna Kellar"), ("keller anna", "Keller Anna")):
        Entity.objects.create(subject=subject, type="person", key=key, name=name)
    detect(subject, analyst)
    assert DuplicatePair.objects.count() == 3
    assert set(DuplicatePair.objects.values_list("group__size", flat=True)) == {3}
    apart = DuplicatePair.objects.order_by("-score").first()
    DuplicatePair.objects.filter(pk=apart.pk).update(decision="different", decided_by=analyst, decided_at=timezone.now())
    result = detect(subject, analyst).result_data
    apart.refresh_from_db()
    assert (apart.decision, apart.group, result["rejected"]) == ("different", None, 1)
    assert DuplicatePair.objects.filter(group__size=3).count() == 0
    DuplicatePair.objects.filter(pk=apart.pk).update(decision="same")
    detect(subject, analyst)
    apart.refresh_from_db()
    assert apart.group is not None


# -- own files -----------------------------------------------------------------------------------------------------


def upload(subject, by, name, content):
    made = Upload(subject=subject, name=name, size=len(content), sha256="0" * 64, created_by=by)
    made.file.save(name, SimpleUploadedFile(name, content), save=False)
    made.save(force_insert=True)
    return made


def read_files(subject, by, files, **parameters):
    uploads = [upload(subject, by, name, content) for name, content in files.items()]
    return run_here("file_import", subject, by, uploads=[str(u.pk) for u in uploads], **parameters)


def pdf(password=""):
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    if password:
        writer.encrypt(password)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def warc():
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
    body = b"<html><body><p>Anna Keller of Meridian spoke about the sale of two carriers to a buyer.</p></body></html>"
    record = writer.create_warc_record(
        "https://site.example/a", "response", payload=io.BytesIO(body), length=len(body), http_headers=headers
    )
    writer.write_record(record)
    return out.getvalue()


def test_files_of_every_kind_become_documents(subject, analyst):
    page = b"<html><head><title>T</title></head><body><p>Anna Keller of Meridian spoke about the sale of two carriers.</p></body></html>"
    job = read_files(
        subject, analyst,
        {
            "a.html": page, "b.txt": "Grüße".encode("cp1252"), "c.json": b'{"a": 1}', "d.pdf": pdf(), "e.warc.gz": warc(),
            "f.zip": zipped({"x/one.txt": "one", "../../evil.txt": "two", "__MACOSX/no.txt": "", "bad.exe": "MZ"}),
        },
    )  # fmt: skip
    kinds = sorted(Document.objects.filter(job=job).values_list("content_type", flat=True))
    assert kinds == ["application/json", "application/pdf", "text/html", "text/html", "text/plain", "text/plain", "text/plain"]
    assert Document.objects.get(url="https://site.example/a").text.startswith("Anna Keller")
    assert (job.result_data["documents"], job.result_data["failed"]) == (7, 1)
    assert "bad.exe" in job.items.get(outcome="failed").key
    assert not list(Path("/").glob("evil.txt"))


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(subject, analyst):
    bomb = zipped({"bomb.txt": b"0" * 60_000_000})
    job = read_files(
        subject, analyst,
        {"ok.txt": b"fine", "secret.pdf": pdf("x"), "broken.pdf": b"%PDF-", "broken.zip": b"PK\x03\x04", "bomb.zip": bomb, "a.docx": b"PK", "nul.txt": b"a\x00b"},
    )  # fmt: skip
    reasons = {key.partition("#")[0]: reason for key, reason in job.items.filter(outcome="failed").values_list("key", "reason")}
    assert set(reasons) == {"secret.pdf", "broken.pdf", "broken.zip", "bomb.zip", "a.docx"}
    assert reasons["secret.pdf"] == "The PDF is protected by a password"
    assert "more than" in reasons["bomb.zip"]
    assert job.result_data["documents"] == 2
    with pytest.raises(AllItemsFailed):
        read_files(subject, analyst, {"broken.pdf": b"%PDF-"})


def test_rows_of_a_table_become_records_that_can_be_compared(subject, analyst):
    rows = ["given;surname;born;city", *(f"Given{n * 7 % 89};Sur{n};19{n % 80 + 10}-0{n % 9 + 1}-1{n % 9};Town{n % 11}" for n in range(80))]
    rows.append("Given35;Sr5;1915-06-15;Town5")
    job = read_files(subject, analyst, {"people.csv": "\n".join(rows).encode()}, tables=True)
    assert (job.result_data["records"], job.result_data["documents"]) == (81, 1)
    record = Entity.objects.get(name="Given35, Sur5, 1915-06-15")
    assert record.properties == {"given": "Given35", "surname": "Sur5", "born": "1915-06-15", "city": "Town5"}
    detect(subject, analyst)
    best = DuplicatePair.objects.filter(step="records").order_by("-score").first()
    assert record.pk in (best.left, best.right)


def test_a_very_long_text_is_kept_and_read(subject, analyst):
    text = ("Anna Keller wrote to a@b.org on 3 June 2023. " * 45_000).encode()
    job = read_files(subject, analyst, {"long.txt": text})
    document = Document.objects.get(job=job)
    assert len(document.text) == len(text) - 1
    result = run_here("timeline_assembly", subject, analyst).result_data
    assert (result["events"], result["failed"]) == (1, 0)


def test_the_result_of_each_type_is_one_line(subject, analyst):
    add_document(subject, TEXT)
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection", "data_export", "pdf_generation"):
        job = run_here(job_type, subject, analyst)
        line = registry.get(job_type).summary(job.result_data)
        assert line
        assert "\n" not in line
        assert json.dumps(job.result_data)
