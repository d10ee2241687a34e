"""The job type, run by a real cluster against the sample site."""

import hashlib
import os
import signal
from contextlib import closing

import pytest
from django.contrib.auth.models import User
from warcio.archiveiterator import ArchiveIterator

from jobs.errors import Kind
from jobs.manager import JobManager
from jobs.models import Artifact, Job
from jobs.states import ENDED, Level, Status
from jobs.tests.fixtures import child_of, reload, status_of, wait_for
from osint import sample_site
from osint.fetching import FetchError
from osint.job_types.web_scraping import read_sitemap, summarise
from osint.models import Document, Subject

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def scrape(site, start_cluster, analyst):
    """Starts a scrape; the cluster is started after the site, whose address it must allow."""
    start_cluster(lease_s=10.0, lease_giveup_s=8.0)  # its documents are long, and so are its writes

    def start(wait=True, **parameters):
        job = JobManager().create_job("web_scraping", parameters={"delay_s": 0, **parameters}, created_by=analyst)
        if wait:
            wait_for(lambda: status_of(job) in ENDED, "the scrape to end")
        return reload(job)

    return start


def test_a_site_map_becomes_documents_with_evidence(site, scrape):
    job = scrape(sitemap=f"{site}/sitemap.xml")
    assert job.status == Status.COMPLETED, job.error_message
    assert (job.total_steps, job.completed_steps, job.problem_count) == (46, 46, 2)
    result = job.result_data
    assert (result["documents"], result["failed"], result["reasons"]) == (44, 2, {"403 Forbidden": 1, "404 Not Found": 1})
    assert result["private_allowed"] == [site.removeprefix("http://")]
    assert job.logs.filter(level=Level.WARNING, message__contains="FETCH_ALLOW_PRIVATE").exists()
    assert {f["url"].removeprefix(site) for f in result["failures"]} == set(sample_site.REFUSALS)
    assert job.logs.filter(level=Level.ERROR).count() == 2

    document = job.documents.get(url=f"{site}/press/2023-06-15")
    assert (document.http_status, document.title, document.author, document.published) == (
        200, "Change in the board of directors", "Press office", "2023-06-15",
    )  # fmt: skip
    assert (document.language, document.charset, document.content_type) == ("en", "utf-8", "text/html")
    assert "David Hughes leaves the board on 31 July 2023" in document.text
    assert f"{site}/people/david-hughes" in document.links
    body = sample_site.render(sample_site.PAGES["/press/2023-06-15"]).encode()
    assert document.sha256 == hashlib.sha256(body).hexdigest()

    artifact = job.artifacts.get()
    assert document.warc == artifact
    data = artifact.file.open("rb").read()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact.size, artifact.sha256)
    with artifact.file.open("rb") as stream:
        bodies = {
            r.rec_headers.get_header("WARC-Target-URI"): r.content_stream().read()
            for r in ArchiveIterator(stream)
            if r.rec_type == "response"
        }
    assert bodies[document.url] == body


def test_the_same_address_twice_is_fetched_once(site, scrape):
    job = scrape(urls=[f"{site}/about", f"{site}/about#team", f"{site}/contact"])
    assert (job.total_steps, job.result_data["documents"], Document.objects.count()) == (2, 2, 2)


def test_a_scrape_of_which_nothing_could_be_read_has_failed(site, scrape):
    job = scrape(urls=[f"{site}/nothing", f"{site}/investors/login"])
    assert (job.status, job.error_kind) == (Status.FAILED, Kind.PERMANENT)
    assert "None of the 2 pages could be read" in job.error_message


@pytest.mark.parametrize("path", ["/nothing.xml", "/about"])
def test_a_site_map_that_is_none_fails_in_words(site, scrape, path):
    job = scrape(sitemap=f"{site}{path}")
    assert job.status == Status.FAILED
    assert "The site map could not be read" in job.error_message


def test_a_killed_scrape_goes_on_where_it_was(site, scrape):
    """SIGKILL in the middle: the second attempt fetches the rest, none twice, and the evidence of both is kept."""
    job = scrape(wait=False, sitemap=f"{site}/sitemap.xml", delay_s=0.1)
    wait_for(lambda: Document.objects.filter(job=job).count() >= 10, "ten documents")
    os.kill(child_of(job), signal.SIGKILL)
    wait_for(lambda: status_of(job) in ENDED, "the end")
    row: Job = reload(job)
    assert (row.status, row.attempt, row.result_data["documents"]) == (Status.COMPLETED, 2, 44)
    assert Document.objects.filter(job=job).count() == 44
    first = Document.objects.filter(job=job, attempt=1)
    assert 10 <= first.count() < 44
    assert not Document.objects.filter(job=job, warc=None).exists()
    assert sorted(Artifact.objects.values_list("name", flat=True)) == ["evidence-1.warc.gz", "evidence-2.warc.gz"]


def test_a_scrape_of_a_thousand_pages_killed_at_six_hundred(site, scrape):
    """The second attempt fetches about the other four hundred; a thousand documents in the end, none twice."""
    urls = [f"{site}{path}?copy={n}" for n in range(24) for path in sample_site.PAGES][:1000]
    job = scrape(wait=False, urls=urls)
    wait_for(lambda: Document.objects.filter(job=job).count() >= 600, "six hundred documents", deadline_s=90)
    os.kill(child_of(job), signal.SIGKILL)
    wait_for(lambda: status_of(job) in ENDED, "the end", deadline_s=90)
    row = reload(job)
    assert (row.status, row.attempt, row.result_data["documents"], row.completed_steps) == (Status.COMPLETED, 2, 1000, 1000)
    assert Document.objects.filter(job=job).values("url").distinct().count() == Document.objects.filter(job=job).count() == 1000
    first = Document.objects.filter(job=job, attempt=1).count()
    assert 600 <= first < 900
    assert row.items.filter(outcome="ok", attempt=2).count() == 1000 - first
    assert not Document.objects.filter(job=job, warc=None).exists()


def test_documents_belong_to_the_subject_and_its_members_see_them(site, scrape, analyst, client):
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    job = JobManager().create_job("web_scraping", parameters={"urls": [f"{site}/about"]}, created_by=analyst, subject_id=subject.pk)
    wait_for(lambda: status_of(job) in ENDED, "the end")
    document = subject.documents.get()
    member, stranger = User.objects.create_user("member"), User.objects.create_user("stranger")
    subject.members.add(member)
    pages = (job.get_absolute_url(), document.get_absolute_url(), subject.get_absolute_url(), document.warc.get_absolute_url())
    for user, status in ((member, 200), (stranger, 404)):
        client.force_login(user)
        for page in pages:
            with closing(client.get(page)) as response:
                assert response.status_code == status, page


def test_site_maps_are_read_without_following_entities():
    assert read_sitemap(b"<sitemapindex><sitemap><loc> https://a.example/s.xml </loc></sitemap></sitemapindex>") == (
        True,
        ["https://a.example/s.xml"],
    )
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>'
    assert read_sitemap(bomb)[1] == []
    for wrong in (b"", b"<html/>", b"<urlset>"):
        with pytest.raises(FetchError):
            read_sitemap(wrong)


def test_the_summary_counts_in_words():
    assert summarise({"documents": 1, "failed": 0}) == "1 page stored"
    assert summarise({"documents": 1200, "failed": 7}) == "1,200 pages stored, 7 could not be read"
