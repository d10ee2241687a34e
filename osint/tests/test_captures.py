"""Several captures of one address, jobs that are continued, and hostile items: nothing good is lost to something bad."""

import gzip
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from jobs.manager import JobManager
from jobs.models import Job
from osint.capture import Page, read_page
from osint.dates import find_dates
from osint.fetching import Fetched, Hop
from osint.indicators import find_indicators
from osint.models import Document, DuplicatePair, Entity, TimelineEvent
from osint.storing import store_document
from osint.tests.fixtures import add_document, page, quiet_tracker, run_here
from osint.tests.test_job_types import read_files

pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://site.example/a"
NOW = timezone.now()


def capture(subject, by, minutes, **read):
    job = JobManager().create_job("sample_steps", parameters={"total": 1}, created_by=by, subject_id=subject.pk)
    fields = {"final_url": URL, "http_status": 200, "headers": [], "size": 1, "sha256": "", "fetched_at": NOW + timedelta(minutes=minutes)}
    with transaction.atomic():
        return store_document(job, URL, Page("text/html", **read), fields), job


def current(subject):
    return [d.text for d in subject.documents.filter(is_current=True)]


def test_a_page_that_stands_in_the_way_never_replaces_one_that_was_read(subject, analyst):
    capture(subject, analyst, 0, text="good")
    wall, _ = capture(subject, analyst, 1, problem="challenge")
    assert (current(subject), wall.diff, wall.previous) == (["good"], "", None)
    better, _ = capture(subject, analyst, 2, text="better")
    assert current(subject) == ["better"]
    assert better.previous.text == "good"


def test_some_capture_is_always_the_current_one(subject, analyst):
    _, blocked = capture(subject, analyst, 0, problem="login")
    assert current(subject) == [""]
    capture(subject, analyst, 1, text="good")
    # the first job is tried again, and reads it later
    fields = {"final_url": URL, "http_status": 200, "headers": [], "size": 1, "sha256": "", "fetched_at": NOW + timedelta(minutes=2)}
    with transaction.atomic():
        store_document(blocked, URL, Page("text/html", text="newest"), fields)
    assert current(subject) == ["newest"]


@pytest.mark.integration
def test_a_second_crawl_follows_the_links_of_pages_that_did_not_change(pages, subject, analyst):
    head = page("A", links=["/b"])
    pages.pages |= {"/a": (200, {"ETag": '"1"'}, head[2]), "/b": page("B", links=["/c"]), "/c": page("C")}
    first = run_here("web_scraping", subject, analyst, urls=[f"{pages.base}/a"], delay_s=0, depth=2)
    assert first.result_data["documents"] == 3
    pages.pages["/a"] = (304, {}, b"")
    second = run_here("web_scraping", subject, analyst, urls=[f"{pages.base}/a"], delay_s=0, depth=2)
    assert (second.result_data["documents"], second.result_data["unchanged"]) == (2, 1)


@pytest.mark.integration
def test_a_cancelled_crawl_goes_on_from_the_links_that_it_had(pages, subject, analyst):
    pages.pages |= {"/a": page("A", links=["/b"]), "/b": page("B")}
    job = run_here("web_scraping", subject, analyst, urls=[f"{pages.base}/a"], delay_s=0, depth=0)
    Job.objects.filter(pk=job.pk).update(status="CANCELLED", parameters={**job.parameters, "depth": 1, "recheck": False})
    goes_on = JobManager().continue_job(job.pk, by=analyst)
    JobManager().start([goes_on.pk], worker_id="atlas-1", host="atlas")
    goes_on.refresh_from_db()
    from jobs import registry

    with quiet_tracker(goes_on) as tracker:
        result = registry.get("web_scraping").handler(tracker, goes_on.parameters)
    assert (result["documents"], result["inherited"]) == (1, 1)


@pytest.mark.integration
def test_a_wrong_canonical_address_costs_no_page(pages, subject, analyst):
    head = '<link rel="canonical" href="/1">'
    pages.pages |= {f"/{n}": page(f"Page {n}", f"Number {n} says something of its own.", head=head) for n in range(1, 5)}
    job = run_here("web_scraping", subject, analyst, urls=[f"{pages.base}/{n}" for n in range(1, 5)], delay_s=0)
    assert job.result_data["documents"] == 4


def test_a_continued_export_writes_all_its_files(subject, analyst):
    job = run_here("data_export", subject, analyst, formats=["csv", "jsonl"])
    Job.objects.filter(pk=job.pk).update(status="CANCELLED")
    goes_on = JobManager().continue_job(job.pk, by=analyst)
    JobManager().start([goes_on.pk], worker_id="atlas-1", host="atlas")
    goes_on.refresh_from_db()
    from jobs import registry

    with quiet_tracker(goes_on) as tracker:
        result = registry.get("data_export").handler(tracker, goes_on.parameters)
    assert len(result["files"]) == 8


def test_a_decision_holds_for_the_next_capture(subject, analyst):
    text = " ".join(f"word{n} of the story" for n in range(100))
    one, _ = capture(subject, analyst, 0, text=text)
    other = add_document(subject, text.replace("word50", "another"))
    run_here("duplicate_detection", subject, analyst)
    DuplicatePair.objects.update(decision="different", decided_by=analyst, decided_at=timezone.now())
    again, _ = capture(subject, analyst, 5, text=text)
    result = run_here("duplicate_detection", subject, analyst).result_data
    pair = DuplicatePair.objects.get()
    assert ({pair.left, pair.right}, pair.decision) == ({again.pk, other.pk}, "different")
    assert (result["groups"], result["rejected"]) == (0, 1)
    assert one.pk != again.pk


def test_an_entity_that_comes_again_is_the_same(subject, analyst):
    document = add_document(subject, "Write to a@b.org.")
    run_here("entity_extraction", subject, analyst)
    before = Entity.objects.get(type="email").pk
    Document.objects.filter(pk=document.pk).update(text="Nothing.", extracted_by="")
    run_here("entity_extraction", subject, analyst)
    assert not Entity.objects.filter(type="email").exists()
    Document.objects.filter(pk=document.pk).update(text="Write to a@b.org.", extracted_by="")
    run_here("entity_extraction", subject, analyst)
    assert Entity.objects.get(type="email").pk == before


def test_sentences_of_one_pattern_about_others_are_other_events(subject, analyst):
    add_document(
        subject,
        "The minister met the president of France on 4 June 2023 for talks. The minister met the president of Russia on 4 June 2023 for talks.",
    )
    add_document(subject, "Login at 2023-06-05T09:15 from the office in town. Login at 2023-06-05T17:40 from the office in town.")
    run_here("timeline_assembly", subject, analyst)
    assert TimelineEvent.objects.count() == 4


@pytest.mark.parametrize("text", ["3 Auguſt 1720", "12 Aprıl 2020", "ſix days ago", "İ May 2020"])
def test_letters_that_only_look_the_same(text):
    find_dates(text, reference=NOW.date())


def test_a_list_of_phone_numbers_one_a_line():
    numbers = [f"044 668 18 0{n}" for n in range(6)]
    assert len(find_indicators("\n".join(numbers), "CH")) == 6


def test_a_page_with_the_script_of_a_wall_is_no_wall():
    text = "".join(f"<p>Sentence number {n} of an ordinary article about the sale of two carriers.</p>" for n in range(12))
    html = f"<html><body><article>{text}</article><script src='/cdn-cgi/challenge-platform/scripts/jsd/main.js'></script></body></html>"
    assert read_page(fetched("text/html", html.encode())).problem == ""
    assert (
        read_page(fetched("text/html", b"<p>We asked: would you accept all cookies? They said no, in a long interview.</p>")).problem == ""
    )


def fetched(kind, content):
    hop = Hop(URL, 200, "OK", "HTTP/1.1", [], [("content-type", kind)], content, datetime.now(UTC), 0.1)
    return Fetched(URL, [hop], content)


@pytest.mark.parametrize(
    "kind", ["text/html; charset=undefined", "text/html; charset=\x00", "text/plain; charset=rot13", "application/pdf"]
)
def test_odd_types_are_read_or_said_to_be_unreadable(kind):
    read_page(fetched(kind, b"<p>x</p>" * 100))


def test_hostile_files_are_one_failure_each(subject, analyst):
    from osint.tests.test_job_types import warc, zipped

    broken = bytearray(zipped({"a.txt": "x" * 1000, "b.txt": "fine"}))
    at = broken.find(b"a.txt") + 10
    broken[at : at + 4] = b"\xff\xff\xff\xff"
    files = {
        "broken.zip": bytes(broken), "long.zip": zipped({"ж" * 1200 + ".txt": "x"}), "bad.warc": b"WARC/1.0\r\nWARC-Type: response\r\n\r\n",
        "in.zip": zipped({"c.warc.gz": warc()}), "x.txt.gz": gzip.compress(b"text"),
    }  # fmt: skip
    job = read_files(subject, analyst, files)
    texts = set(Document.objects.filter(job=job).values_list("text", flat=True))
    assert {"fine", "x"} <= texts
    assert any(text.startswith("Anna Keller") for text in texts)
    reasons = {key.partition("#")[0]: reason for key, reason in job.items.filter(outcome="failed").values_list("key", "reason")}
    assert "x.txt.gz" in reasons
    assert "broken.zip" in reasons


def test_what_a_web_archive_says_of_its_time_counts(subject, analyst):
    import io

    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    for day, status, text in ((1, "200 OK", "Old"), (3, "200 OK", "New"), (2, "200 OK", "Between"), (4, "302 Found", "")):
        body = f"<html><body><p>{text}: Anna Keller of Meridian spoke about the sale of two carriers to a buyer.</p></body></html>".encode()
        record = writer.create_warc_record(
            URL, "response", payload=io.BytesIO(body), length=len(body), warc_headers_dict={"WARC-Date": f"2015-06-0{day}T10:00:00Z"},
            http_headers=StatusAndHeaders(status, [("Content-Type", "text/html")], protocol="HTTP/1.1"),
        )  # fmt: skip
        writer.write_record(record)
    read_files(subject, analyst, {"a.warc.gz": out.getvalue()})
    document = Document.objects.get()
    assert (document.fetched_at.isoformat(), document.text[:3]) == ("2015-06-03T10:00:00+00:00", "New")
