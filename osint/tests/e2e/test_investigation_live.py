"""An analyst investigates a subject in the browser, from the first address to the report."""

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from jobs.manager import JobManager
from jobs.models import Job
from jobs.tests.e2e.conftest import Viewer, barriers
from osint.models import DuplicatePair, Entity, Subject
from osint.tests.fixtures import add_document, run_here

pytestmark = pytest.mark.e2e


@pytest.fixture
def analyst(transactional_db):
    return User.objects.create_user("ortega", password="pw")


@pytest.fixture
def stack(start_stack):
    """Nothing works here: what a test runs itself is taken by nobody else."""
    return start_stack(workers=False)


def test_from_the_first_address_to_the_report(site, analyst, start_stack, browser):
    stack = start_stack()  # after the site, whose address it must allow
    viewer = Viewer(browser, stack.base, "ortega")
    page = viewer.page
    page.goto("/subjects/")
    page.fill("#id_name", "Meridian Holdings")
    page.click("button:has-text('Create the subject')")
    expect(page.locator(".empty").first).to_contain_text("Nothing was captured about Meridian Holdings yet")
    page.click(".page-head >> text=Investigate")
    # defanged, once twice, and one that cannot be fetched: counted before the start
    host = site.removeprefix("http://")
    page.fill("#id_urls", f"hxxp://{host}/press\nhttp://{host}/people\nhttp://{host}/press\nftp://x.example/")
    expect(page.locator(".counts")).to_contain_text("2 addresses can be fetched · 1 repetition left out · 1 refused")
    page.check("#id_skip_refused")
    page.click("summary:has-text('Links')")
    page.fill("#id_depth", "1")
    page.fill("#id_delay_s", "0")
    page.click("button:has-text('Start the investigation')")
    expect(page.locator("h1")).to_have_text("Investigate Meridian Holdings")
    expect(page.locator("tr[data-job]")).to_have_count(6)
    # live, to its end
    expect(page.locator(".toast a[href^='/groups/']")).to_contain_text("Investigate Meridian Holdings", timeout=90_000)
    expect(page.locator(".page-head .badge")).to_have_text("Completed")
    expect(page.locator("#r-now .facts dd").first).to_have_text("6 of 6 jobs")
    page.click("text=Look at the subject")
    page.click(".tabs >> text=Timeline")
    bars = page.locator(".timeline rect")
    before = bars.first.bounding_box()["width"]
    page.click("[data-zoom='2']")
    assert bars.first.bounding_box()["width"] >= before
    expect(page.locator("[data-timeline-says]")).to_contain_text("in view")
    page.locator(".timeline").focus()
    page.keyboard.press("0")
    page.click(".tabs >> text=Entities")
    page.click("a:has-text('Anna Keller')")
    expect(page.locator("mark").first).to_have_text("Anna Keller")
    page.fill("#in-subject", "board of dir")
    page.keyboard.press("Enter")
    expect(page.locator(".contexts mark").first).to_be_visible()
    page.click(".tabs >> text=Files")
    page.click("a:has-text('report.pdf')")
    expect(page.locator("iframe.preview")).to_be_visible()
    with page.expect_download() as download:
        page.click("a:has-text('Download')")
    assert download.value.suggested_filename == "report.pdf"
    viewer.close()


def test_pairs_are_reviewed_one_by_one(analyst, stack, sign_in):
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    text = " ".join(f"word{n} of the story" for n in range(100))
    for version in (text, text.replace("word50", "another"), text.replace("word60", "different")):
        add_document(subject, version)
    run_here("duplicate_detection", subject, analyst)
    page = sign_in()
    page.goto(f"/subjects/{subject.pk}/duplicates/")
    expect(page.locator(".pair")).to_have_count(3)
    page.locator(".pair").first.locator("button:has-text('Not the same')").click()
    expect(page.locator(".pair")).to_have_count(2)
    expect(page.locator(".notice.success")).to_contain_text("They are kept apart")
    page.click(".chip:has-text('Not the same')")
    page.click("button:has-text('Take back')")
    expect(page.locator(".chip:has-text('To review')")).to_have_text(re.compile("To review 3"))
    assert set(DuplicatePair.objects.values_list("decision", flat=True)) == {""}


def test_a_narrow_screen_scrolls_only_downwards(analyst, stack, browser):
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    add_document(
        subject,
        "Anna Keller met Jan Lindqvist on 3 June 2023. Write to a.very.long.address.indeed@a-host-with-a-long-name.example.org",
        title="A" * 90,
    )
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection"):
        run_here(job_type, subject, analyst)
    viewer = Viewer(browser, stack.base, "ortega")
    viewer.page.set_viewport_size({"width": 360, "height": 800})
    document = subject.documents.get()
    tabs = ("", "documents/", "entities/", "timeline/", "duplicates/", "files/", "investigate/", "upload/")
    for address in (*(f"/subjects/{subject.pk}/{tab}" for tab in tabs), document.get_absolute_url()):
        viewer.page.goto(address)
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= 360, address
    viewer.close()


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"}], ids=str)
def test_axe_finds_no_barrier_on_the_pages_of_a_subject(analyst, stack, sign_in, look):
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    text = " ".join(f"word{n} of the story" for n in range(100))
    for version in (f"Anna Keller met Jan Lindqvist on 3 June 2023. {text}", text, text.replace("word50", "another")):
        add_document(subject, version)
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection"):
        run_here(job_type, subject, analyst)
    page = sign_in(bypass_csp=True, **look)
    tabs = ("", "documents/", "entities/", "timeline/", "duplicates/", "files/", "search/?q=story", "investigate/", "upload/")
    pages = ["/subjects/", *(f"/subjects/{subject.pk}/{tab}" for tab in tabs)]
    pages += [subject.documents.first().get_absolute_url(), Entity.objects.filter(subject=subject).first().get_absolute_url()]
    found = []
    for path in pages:
        page.goto(path)
        found += barriers(page, path)
    assert found == []


def test_other_parameters_and_the_same_again_with_changes(site, analyst, stack, sign_in):
    """The form is filled in with what the job had; the old run stays."""
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    manager = JobManager()
    ends = {}
    for name in ("failed", "completed"):
        parameters = {"urls": [f"{site}/", f"{site}/{name}"], "delay_s": 2.5}
        ends[name] = manager.create_job("web_scraping", parameters=parameters, created_by=analyst, subject_id=subject.pk)
        assert manager.start([ends[name].pk], worker_id="atlas-1", host="atlas")
    manager.mark_failed(ends["failed"].pk, "None of the 2 pages could be read", kind="permanent", attempt=1)
    manager.mark_completed(ends["completed"].pk, {"documents": 2, "failed": 0, "bytes": 1}, attempt=1)
    page = sign_in()
    for name, button in (
        ("failed", "a:has-text('Start again with other parameters')"),
        ("completed", "a:has-text('Run again with changes')"),
    ):
        page.goto(ends[name].get_absolute_url())
        page.click(button)
        expect(page.locator("[name=urls]")).to_have_value(f"{site}/\n{site}/{name}")
        expect(page.locator("[name=delay_s]")).to_have_value("2.5")
        page.fill("[name=urls]", f"{site}/press/2018-05-04")
        page.click("button:has-text('Start this job')")
        page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}/$"))
        new = Job.objects.order_by("-created_at").first()
        assert new.parameters["urls"] == [f"{site}/press/2018-05-04"]
        assert new.parameters["delay_s"] == 2.5
        assert Job.objects.get(pk=ends[name].pk).status == name.upper()
