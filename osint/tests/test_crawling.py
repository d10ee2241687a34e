"""Crawls, second runs, walls, failing hosts, and politeness that jobs share."""

import asyncio
import re
import threading
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from jobs import registry
from jobs.errors import Kind, TransientError
from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import Status
from jobs.tests.fixtures import reload
from osint.fetching import Fetcher
from osint.models import Document, HostTurn
from osint.politeness import reserve
from osint.tests.fixtures import page, quiet_tracker, run_here

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def scrape(subject, by, base, *paths, **parameters):
    return run_here("web_scraping", subject, by, urls=[base + path for path in paths], delay_s=0, **parameters)


def stored(job):
    return {url.split("/", 3)[3] for url in Document.objects.filter(job=job).values_list("url", flat=True)}


def test_links_are_followed_so_far_and_no_further(pages, subject, analyst):
    pages.pages |= {
        "/a": page("A", links=["/b", "/c", "/c#top", "https://elsewhere.example/x", "mailto:x@y.example"]),
        "/b": page("B", links=["/a", "/d"]), "/c": page("C"), "/d": page("D", links=["/e"]), "/e": page("E"),
    }  # fmt: skip
    assert stored(scrape(subject, analyst, pages.base, "/a", depth=1)) == {"a", "b", "c"}
    assert stored(scrape(subject, analyst, pages.base, "/a", depth=2, recheck=False)) == {"a", "b", "c", "d"}
    few = scrape(subject, analyst, pages.base, "/a", depth=5, pages_max=2, recheck=False)
    assert stored(few) == {"a", "b"}
    assert few.logs.filter(message__contains="more pages than the 2").exists()


def test_hosts_that_are_named_are_followed_and_others_not(pages, subject, analyst, settings):
    host = pages.base.removeprefix("http://")
    pages.pages |= {"/a": page("A", links=["/b", "http://other.example/x"]), "/b": page("B")}
    assert stored(scrape(subject, analyst, pages.base, "/a", depth=1, hosts="elsewhere.example")) == {"a"}
    assert stored(scrape(subject, analyst, pages.base, "/a", depth=1, hosts=host, recheck=False)) == {"a", "b"}


def test_site_maps_and_feeds_are_found(pages, subject, analyst):
    base = pages.base
    feed = '<rss version="2.0"><channel><item><link>{0}/news</link></item></channel></rss>'
    pages.pages |= {
        "/robots.txt": (200, {"Content-Type": "text/plain"}, f"User-agent: *\nSitemap: {base}/map.xml\n"),
        "/map.xml": (200, {"Content-Type": "application/xml"}, f"<urlset><url><loc>{base}/mapped</loc></url></urlset>"),
        "/feed": (200, {"Content-Type": "application/rss+xml"}, feed.format(base)),
        "/a": page("A", head='<link rel="alternate" type="application/rss+xml" href="/feed">'), "/mapped": page("Mapped"), "/news": page("News"),
    }  # fmt: skip
    assert stored(scrape(subject, analyst, base, "/a", discover=True)) == {"a", "mapped", "news"}


def test_the_same_page_under_two_addresses_is_kept_once(pages, subject, analyst):
    head = '<link rel="canonical" href="/a">'
    pages.pages |= {"/a": page("A", head=head), "/a?ref=mail": page("A", head=head)}
    job = scrape(subject, analyst, pages.base, "/a", "/a?ref=mail")
    assert Document.objects.filter(job=job).count() == 1
    assert job.items.get(outcome="skipped").reason.startswith("The same page as")


def test_a_second_run_asks_for_changes_and_keeps_the_difference(pages, subject, analyst):
    pages.pages |= {
        "/same": (*page("Same")[:1], {"ETag": '"1"'}, page("Same")[2]),
        "/new": (*page("New", "The share capital is 100,000 CHF.")[:1], {"ETag": '"1"'}, page("New", "The share capital is 100,000 CHF.")[2]),
    }  # fmt: skip
    scrape(subject, analyst, pages.base, "/same", "/new")
    pages.pages["/same"] = lambda handler: (304, {}, b"") if handler.headers["If-None-Match"] == '"1"' else (500, {}, b"")
    pages.pages["/new"] = (200, {"ETag": '"2"'}, page("New", "The share capital is 250,000 CHF.")[2])
    second = scrape(subject, analyst, pages.base, "/same", "/new")
    result = second.result_data
    assert (result["documents"], result["unchanged"], result["changed"], result["failed"]) == (1, 1, 1, 0)
    now = Document.objects.get(job=second)
    assert now.previous.is_current is False
    assert "-The share capital is 100,000 CHF." in now.diff
    assert "+The share capital is 250,000 CHF." in now.diff
    assert subject.documents.filter(is_current=True).count() == 2


WALLS = {
    "challenge": (
        403,
        {},
        "<title>Just a moment...</title><script src='/cdn-cgi/challenge-platform/x.js'></script><p>Checking your browser</p>",
    ),
    "login": (200, {}, "<title>Sign in</title><form><input type=password name=p></form>"),
    "consent": (
        200,
        {},
        "<title>Before you continue to Example</title><p>Before you continue to Example: we use cookies.</p><form><button>Accept all</button></form>",
    ),
    "javascript": (
        200,
        {},
        "<title>App</title><noscript>You need to enable JavaScript to run this app.</noscript><div id=root></div><script src=a.js></script>",
    ),
    "empty": (200, {}, "<title></title><body></body>"),
}


def test_walls_are_stored_and_not_called_success(pages, subject, analyst):
    pages.pages |= {f"/{name}": answer for name, answer in WALLS.items()} | {
        "/good": page("Good", "A captcha is a challenge; please verify you are human.")
    }
    job = scrape(subject, analyst, pages.base, "/good", *(f"/{name}" for name in WALLS))
    found = {d.url.rpartition("/")[2]: d.problem for d in Document.objects.filter(job=job)}
    assert found == {"good": "", **{name: name for name in WALLS}}
    assert (job.result_data["documents"], job.result_data["blocked"], job.problem_count) == (1, 5, 5)
    assert job.items.filter(outcome="ok").count() == 1
    assert job.items.filter(outcome="failed", reason__startswith="Blocked").count() == 3


def test_after_five_failures_in_a_row_the_rest_of_a_host_waits(pages, subject, analyst):
    pages.pages |= {f"/{n}": (503, {}, b"later") for n in range(30)}
    pages.pages["/good"] = page("Good")
    urls = [f"{pages.base}/good", *(f"{pages.base}/{n}" for n in range(30))]
    job = JobManager().create_job("web_scraping", parameters={"urls": urls, "delay_s": 0}, created_by=analyst, subject_id=subject.pk)
    JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    job = reload(job)
    with pytest.raises(TransientError, match="failed 5 times in a row"), quiet_tracker(job) as tracker:
        registry.get("web_scraping").handler(tracker, job.parameters)
    asked = {path for path, _ in pages.asked} - {"/robots.txt", "/good"}
    assert 5 <= len(asked) <= 15  # some are on their way, and the good page begins the count anew
    assert job.items.filter(kind=Kind.TRANSIENT, reason__startswith="Not asked for").count() == 30 - len(asked)
    # the last try ends with what there is
    Job.objects.filter(pk=job.pk).update(retry_count=job.max_retries)
    with quiet_tracker(job) as tracker:
        result = registry.get("web_scraping").handler(tracker, job.parameters)
    assert (result["documents"], result["failed"]) == (1, 30)


def test_other_types_are_stored_and_read_as_far_as_they_can_be(pages, subject, analyst):
    pages.pages |= {
        "/data": (200, {"Content-Type": "application/json"}, '{"name": "Anna Keller", "n": [1, 2]}'),
        "/text": (200, {"Content-Type": "text/plain; charset=utf-8"}, "Grüße aus Zürich"),
        "/image": (200, {"Content-Type": "image/png"}, b"\x89PNG\r\n"),
        "/broken.pdf": (200, {"Content-Type": "application/pdf"}, b"%PDF-1.4 nothing"),
    }  # fmt: skip
    job = scrape(subject, analyst, pages.base, "/data", "/text", "/image", "/broken.pdf")
    texts = {d.url.rpartition("/")[2]: d.text for d in Document.objects.filter(job=job)}
    assert texts["data"].splitlines()[1] == ' "name": "Anna Keller",'
    assert (texts["text"], texts["image"], texts["broken.pdf"]) == ("Grüße aus Zürich", "", "")
    assert "PDF" in job.items.get(outcome="failed").reason


def test_politeness_is_shared_by_all_jobs():
    """Ten takers at once, each with a connection of its own: their turns are a delay apart."""
    origin = ("https", "site.example", 443)
    waits: list[float] = []
    lock = threading.Lock()

    def take():
        wait = reserve(origin, 0.5)
        with lock:
            waits.append(time.time() + wait)
        connection.close()

    threads = [threading.Thread(target=take) for _ in range(10)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    waits.sort()
    assert all(later - sooner > 0.25 for sooner, later in zip(waits, waits[1:], strict=False))
    HostTurn.objects.update(next_at=(timezone.now() + timedelta(days=3)).timestamp())
    assert reserve(origin, 0.5) == 0.0, "a clock that was wrong holds nobody up"


def test_two_fetchers_wait_for_each_other(pages):
    pages.pages["/a"] = page("A")
    turns = []

    async def shared(origin, delay):
        turns.append(origin)
        return 0.0

    async def both():
        async with Fetcher(delay_s=0.3, reserve=shared) as one, Fetcher(delay_s=0.3, reserve=shared) as other:
            await asyncio.gather(one.fetch(f"{pages.base}/a"), other.fetch(f"{pages.base}/a"))

    asyncio.run(both())
    assert len(turns) == 2


def test_a_defanged_list_counts_what_is_good_twice_and_refused(client, analyst):
    client.force_login(analyst)
    text = "https://nosuch.invalid/\nhxxps://1[.]1[.]1[.]1/a\nhttps://1.1.1.1/a\nftp://1.1.1.1/x\nhttp://127.0.0.1/\nnonsense"
    found = client.post("/scrape/check/", {"urls": text}).json()
    assert (found["good"], found["duplicates"], found["refused"]) == (1, 1, 4)
    assert found["problems"][1].startswith("Line 4, ftp://1.1.1.1/x: Only http")
    start = {"urls": text, "delay_s": 1, "hosts_at_once": 8, "priority": 10}
    refused = client.post("/jobs/new/web_scraping/", start)
    assert refused.status_code == 422
    assert re.findall(r"<li>Line (\d)", refused.content.decode()) == ["1", "4", "5", "6"]
    assert client.post("/jobs/new/web_scraping/", {**start, "skip_refused": "on"}).status_code == 302
    assert Job.objects.get().parameters["urls"] == ["https://1.1.1.1/a"]
    assert Job.objects.get().status == Status.PENDING
