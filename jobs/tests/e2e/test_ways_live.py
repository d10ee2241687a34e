"""Every way on from a job that did not end well, taken in a browser, with real workers."""

import re

import pytest
from playwright.sync_api import expect

from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import ENDED, Status
from jobs.tests.e2e.conftest import Viewer
from jobs.tests.fixtures import reload, status_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def people(analyst):
    """Before the stack, which signs them in."""


@pytest.fixture
def make(analyst, gate):
    def make(job_type="sample_until_open", name="Gated work", parameters=None, **options):
        parameters = {"gate": str(gate)} | (parameters or {})
        return JobManager().create_job(job_type, parameters=parameters, created_by=analyst, name=name, **options)

    return make


def badge_says(page, text):
    expect(page.locator(".page-head .badge")).to_have_text(text)


def failed(job):
    wait_for(lambda: status_of(job) == Status.FAILED, "the failure")
    return job


def test_retry_now(sign_in, make, gate):
    job = failed(make())
    page = sign_in()
    page.goto(job.get_absolute_url())
    expect(page.locator("#error-text")).to_have_text("The gate is closed")
    gate.open_to(1)
    page.click("button:has-text('Retry now')")
    badge_says(page, "Completed")
    expect(page.locator("#r-result")).to_contain_text("The gate was open")
    expect(page.locator("#r-history")).to_contain_text("Retry asked for by ortega")


def test_continue_with_a_higher_limit(sign_in, make, gate):
    job = failed(make(parameters={"waits": True}, time_limit_s=1))
    page = sign_in()
    page.goto(job.get_absolute_url())
    expect(page.locator("#error-text")).to_contain_text("Ran longer than the 1 s it may")
    gate.open_to(1)
    page.click("button:has-text('Continue with 2 s of time')")
    badge_says(page, "Completed")
    assert reload(job).time_limit_s == 2


def test_try_now_and_give_up(start_stack, browser, make, gate):
    stack = start_stack(retry_delays_s=[600, 600, 600, 600])
    jobs = [make(parameters={"kind": "transient"}, name=name) for name in ("First", "Second")]
    wait_for(lambda: all(reload(job).error_kind for job in jobs), "both to wait for their next try")
    viewer = Viewer(browser, stack.base, "ortega")
    page = viewer.page
    page.goto(jobs[0].get_absolute_url())
    expect(page.locator(".page-head .badge")).to_contain_text("Retries in")
    expect(page.locator("#r-trouble")).to_contain_text("The next try starts")
    gate.open_to(1)
    page.click("button:has-text('Try now')")
    badge_says(page, "Completed")
    page.goto(jobs[1].get_absolute_url())
    page.click("button:has-text('Give up')")
    badge_says(page, "Cancelled")
    assert reload(jobs[1]).cancel_reason == "given up after a failed try"
    viewer.close()


def test_continue_what_was_cancelled(sign_in, analyst, gate):
    gate.open_to(2)
    job = JobManager().create_job("sample_items", parameters={"total": 5, "gate": str(gate)}, created_by=analyst, name="Five items")
    page = sign_in()
    page.goto(job.get_absolute_url())
    expect(page.locator("[data-field=done]")).to_have_text("2 of 5")
    page.click("button:has-text('Cancel this job')")
    badge_says(page, "Cancelled")
    gate.open_to(99)
    page.click("button:has-text('Continue')")
    badge_says(page, "Completed")
    expect(page.locator("main")).to_contain_text("Goes on from Five items")
    new = Job.objects.exclude(pk=job.pk).get()
    assert new.result_data["here"] == ["item 3", "item 4", "item 5"]


def test_a_group_is_taken_up_from_the_job_that_failed(sign_in, make, analyst, gate):
    manager = JobManager()
    group = manager.create_group("Both of them", created_by=analyst)
    first = make(name="The first", group=group)
    second = make(name="The second", group=group, depends_on=[first.pk])
    wait_for(lambda: status_of(second) in ENDED, "both ends")
    page = sign_in()
    page.goto(first.get_absolute_url())
    expect(page.locator(".graph a")).to_have_count(2)
    gate.open_to(1)
    page.click("button:has-text('Take up all that did not complete')")
    badge_says(page, "Completed")
    expect(page.locator("h1")).to_have_text("Both of them")
    expect(page.locator(".graph a.completed")).to_have_count(2)


def test_several_are_retried_at_once(sign_in, make, gate):
    jobs = [make(name=f"Job {n}") for n in range(3)]
    for job in jobs:
        failed(job)
    page = sign_in()
    page.goto("/jobs/?state=failed")
    for job in jobs[:2]:
        page.check(f"tr[data-job='{job.pk}'] input[type=checkbox]")
    gate.open_to(1)
    page.click("button[value=retry]")
    expect(page.locator("h1")).to_have_text("Retry 2 jobs?")
    page.click("main button:has-text('Retry 2 jobs')")
    expect(page.locator("h1")).to_have_text("2 jobs are in the queue again")
    wait_for(lambda: all(status_of(job) == Status.COMPLETED for job in jobs[:2]), "both to complete")
    assert status_of(jobs[2]) == Status.FAILED


def test_a_stale_tab_is_told_that_it_is_too_late(sign_in, make, gate):
    """The button that it still shows changes nothing, and says why."""
    job = make(parameters={"waits": True})
    page = sign_in()
    page.goto(job.get_absolute_url())
    token = page.locator("[name=csrfmiddlewaretoken]").first.input_value()
    gate.open_to(1)
    badge_says(page, "Completed")
    answer = page.request.post(
        f"{job.get_absolute_url()}cancel/",
        form={"csrfmiddlewaretoken": token},
        headers={"Referer": page.url, "Origin": page.url.rpartition("/jobs")[0]},
    )
    assert "This job has already ended (completed). Nothing was changed." in answer.text()


def test_from_the_bell_to_the_line_that_matters(sign_in, make, gate):
    page = sign_in()
    page.goto("/jobs/")
    expect(page.locator("[data-live]")).to_have_text("Live")
    job = make()
    expect(page.locator(".toast")).to_contain_text("Gated work: The gate is closed")
    expect(page.locator("[data-unread]")).to_have_text("1")
    other_tab = page.context.new_page()
    other_tab.goto("/subjects/")
    expect(other_tab.locator("[data-live]")).to_have_text("Live")
    expect(other_tab.locator("[data-unread]")).to_have_text("1")
    page.click(".bell")
    page.click("a:has-text('Gated work')")
    page.wait_for_url(re.compile(f"{job.pk}/#L"))
    expect(page.locator("li:target")).to_contain_text("Failed: The gate is closed")
    for tab in (page, other_tab):
        expect(tab.locator("[data-unread]")).to_be_hidden()


def test_a_day_in_german(sign_in, make, gate, analyst):
    """Start to end: what the page shows, what moves on it, and what it answers."""
    page = sign_in(locale="de-DE")
    expect(page.locator("h1")).to_contain_text("Kein Job läuft")
    job = JobManager().create_job("sample_items", parameters={"total": 4, "gate": str(gate)}, created_by=analyst, name="Vier Elemente")
    page.goto(job.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    badge_says(page, "Läuft")
    gate.open_to(2)
    expect(page.locator("[data-field=done]")).to_have_text("2 von 4")
    expect(page.locator("[data-field=sentence]")).to_contain_text("2 von 4 Elemente")
    expect(page.locator("[data-log]")).to_contain_text(re.compile("Begonnen auf .*, Versuch 1"))
    page.click("button:has-text('Pausieren')")
    badge_says(page, "Pausiert")
    page.click("button:has-text('Fortsetzen')")
    badge_says(page, "Läuft")
    page.click("button:has-text('Diesen Job abbrechen')")
    badge_says(page, "Abgebrochen")
    expect(page.locator("[data-log]")).to_contain_text("Abgebrochen von ortega")
    page.goto("/jobs/?state=cancelled")
    expect(page.locator("[data-rows]")).to_contain_text("Abgebrochen von ortega")
    gate.open_to(0)
    failed(make(name="Zweite Arbeit"))
    page.goto("/")
    expect(page.locator("h1")).to_contain_text("1 Fehlerart braucht Sie")
    page.click("footer button:has-text('English')")
    expect(page.locator("h1")).to_contain_text("1 kind of failure needs you")


def test_a_preview_of_a_file_and_the_chart_of_weeks(sign_in, make, gate, tmp_path):
    from jobs.models import Artifact

    job = make()
    path = tmp_path / "rows.csv"
    path.write_text("name,count\nAda,3\n")
    Artifact.keep(job, path, "rows.csv", "text/csv")
    gate.open_to(1)
    failed(job) if status_of(job) == Status.FAILED else wait_for(lambda: status_of(job) in ENDED, "the end")
    page = sign_in()
    page.click("[data-range='28d']")
    expect(page.locator("[data-says]")).to_contain_text(re.compile(r"^[01] completed, [01] failed \((0|100) %\)$"))
    expect(page.locator("[data-plot] canvas")).to_be_visible()
    page.goto(f"/artifacts/{Artifact.objects.get().pk}/preview/")
    expect(page.locator("td").first).to_have_text("Ada")
    with page.expect_download() as download:
        page.click("a:has-text('Download')")
    assert download.value.suggested_filename == "rows.csv"
