"""Pages for everybody: without barriers (axe-core, WCAG 2.2 AA), by the keyboard alone, on a narrow screen."""

import re

import pytest
from django.test import RequestFactory
from django.views.defaults import server_error
from playwright.sync_api import expect

from jobs.manager import JobManager
from jobs.models import Artifact, Job, SavedView, WorkerProcess
from jobs.states import Priority, Status
from jobs.tests.e2e.conftest import barriers
from jobs.tests.fixtures import reload, status_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def people(analyst, other):
    """Before the stack, which signs them in."""


@pytest.fixture
def stack(start_stack):
    """Nothing works here: the jobs stay as they were made."""
    return start_stack(workers=False, worker_gone_s=3600.0)  # workers are rows that nobody refreshes


def make(user, name, **options):
    return JobManager().create_job("sample_items", parameters={"total": 10}, created_by=user, name=name, **options)


def start(job):
    JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    return job


@pytest.fixture
def jobs(analyst, tmp_path):
    """One in each state that pages show."""
    found = {
        name: make(analyst, f"Job that is {name}") for name in ("waiting", "held", "running", "stalled", "failed", "completed", "cancelled")
    }
    JobManager().hold([found["held"].pk], "Waits for memory: 1.1 GB needed, 0.6 free")
    group = JobManager().create_group("Two of them", created_by=analyst)
    make(analyst, "The later one", group=group, depends_on=[found["waiting"].pk])
    Job.objects.filter(pk=found["waiting"].pk).update(group=group)
    found["waiting"].group_id = group.pk
    table = tmp_path / "rows.csv"
    table.write_text("name,count\nAda,3\n")
    Artifact.keep(found["waiting"], table, "rows.csv", "text/csv")
    for name in ("running", "stalled", "failed", "completed"):
        start(found[name])
    JobManager().append_logs(found["running"].pk, [{"level": level, "message": "A line"} for level in (10, 20, 30, 40)], attempt=1)
    JobManager().update_progress(found["running"].pk, 40, "Item 4", attempt=1, completed_steps=4, problem_count=1)
    JobManager().mark_stalled(reload(found["stalled"]), 180)
    items = [("https://example.org/1", "failed", "transient", "Not finished in 60 s")]
    JobManager().record_items(found["completed"].pk, items, attempt=1)
    JobManager().mark_completed(found["completed"].pk, {"summary": "9 items"}, attempt=1)
    JobManager().mark_failed(
        found["failed"].pk, "No answer in 30 s", 'Traceback\n  File "/x.py", line 1, in f\nOSError: x', attempt=1, kind="transient"
    )
    JobManager().cancel_job(found["cancelled"].pk, by=analyst)
    SavedView.objects.create(user=analyst, name="My failures", query="state=failed")
    return found


def pages_of(jobs):
    failure = reload(jobs["failed"]).failure
    return [
        "/", "/slow/", "/jobs/", "/jobs/?state=failed&sort=-ended", "/jobs/?q=nothing+matches", "/failures/", f"/failures/{failure}/",
        f"/jobs/?failure={failure}&ended=24h&by=nobody&columns=type&columns=worker",
        "/notifications/", "/notifications/mail/", "/jobs/new/", "/jobs/nowhere/",
        f"/jobs/{jobs['completed'].pk}/items/", f"/artifacts/{Artifact.objects.get().pk}/preview/", f"/groups/{jobs['waiting'].group_id}/",
        *(job.get_absolute_url() for job in jobs.values()),
    ]  # fmt: skip


@pytest.mark.parametrize("look", [
    {"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 780}}, {"forced_colors": "active"},
], ids=str)  # fmt: skip
def test_axe_finds_no_barrier_and_nothing_is_wider_than_the_screen(browser, stack, jobs, look):
    context = browser.new_context(base_url=stack.base, bypass_csp=True, **({"viewport": {"width": 1280, "height": 860}} | look))
    page = context.new_page()
    page.goto("/sign-in/")
    found = barriers(page, "/sign-in/")
    page.fill("#id_username", "ortega")
    page.fill("#id_password", "pw")
    page.click("button:has-text('Sign in')")
    page.wait_for_url(f"{stack.base}/")
    for path in pages_of(jobs):
        page.goto(path)
        found += barriers(page, path)
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if width > 0:
            found.append(f"{path} is {width} px wider than the screen")
    fault = server_error(RequestFactory().get("/")).content.decode()
    page.route("**/a-fault/", lambda route: route.fulfill(status=500, content_type="text/html", body=fault))
    page.goto("/a-fault/")
    found += barriers(page, "fault")
    page.goto("/jobs/")
    page.locator(".who [name=csrfmiddlewaretoken]").evaluate("field => { field.value = 'x'.repeat(64); }")
    page.click("button:has-text('Sign out')")
    expect(page.locator("h1")).to_have_text("This page was out of date")
    found += barriers(page, "out of date")
    context.close()
    assert found == []


def here(page):
    return page.evaluate("document.activeElement.closest('tr')?.dataset.job ?? document.activeElement.id")


def test_the_keyboard_leads_everywhere(sign_in, jobs):
    page = sign_in()
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url("**/jobs/")
    page.keyboard.press("/")
    assert here(page) == "search"
    page.keyboard.type("gj?n")  # a field takes what is typed
    expect(page.locator("#search")).to_have_value("gj?n")
    page.keyboard.press("Escape")
    page.locator("#search").blur()
    rows = [row.get_attribute("data-job") for row in page.locator("tr[data-job]").all()]
    for key, row in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
        page.keyboard.press(key)
        assert here(page) == rows[row]
    page.keyboard.press("x")
    expect(page.locator("[data-chosen]")).to_have_text("1 job chosen")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/{rows[0]}/")
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_url(f"{page.url.split('/jobs')[0]}/")
    page.keyboard.press("n")
    page.wait_for_url("**/jobs/new/**")


def test_the_help_shows_the_keys_and_can_switch_them_off(sign_in, jobs):
    page = sign_in()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("Next error in the log")
    dialog.get_by_label("Single keys are on").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("n")
    page.goto("/jobs/")
    page.keyboard.press("j")
    assert here(page) == ""
    page.keyboard.press("?")
    dialog.get_by_label("Single keys are on").check()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert here(page) != ""


def test_the_place_in_line_stays_when_the_page_is_live(sign_in, jobs):
    job = jobs["waiting"]
    WorkerProcess.objects.create(name="w-1", queue_name="default", host="h", pid=1, cluster="0" * 32)
    page = sign_in()
    page.goto(job.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    Job.objects.filter(pk=job.pk).update(total_steps=20)
    JobManager().note(job.pk, "Something was said")
    expect(page.locator("[data-field=done]")).to_have_text("0 of 20")  # so the page has painted what came
    expect(page.locator(".says")).to_have_text("Waiting for a free worker · next in line")


def test_a_link_to_a_line_leads_to_it_however_old_it_is(sign_in, jobs):
    job = jobs["running"]
    JobManager().append_logs(job.pk, [{"level": 20, "message": f"Line of item {n}"} for n in range(700)], attempt=1)
    page = sign_in()
    page.goto(f"{job.get_absolute_url()}#L20")
    expect(page.locator("#L20")).to_be_in_viewport()
    JobManager().note(job.pk, "Something was said")
    expect(page.locator("[data-log-count]")).to_have_text(f"{reload(job).log_seq}")
    expect(page.locator("[data-log]")).not_to_contain_text("Something was said")  # it is not the next line
    page.get_by_label("Find in this log").fill("item 69")
    page.keyboard.press("Enter")
    expect(page.locator("[data-log] li")).to_have_count(11)
    JobManager().note(job.pk, "About item 69")
    expect(page.locator("[data-log] li")).to_have_count(12)


def test_keys_of_a_jobs_page(sign_in, jobs):
    page = sign_in()
    page.goto(jobs["running"].get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    JobManager().append_logs(jobs["running"].pk, [{"level": 30, "message": "One more warning"}], attempt=1)
    JobManager().note(jobs["running"].pk, "Something was said")
    expect(page.locator("#r-levels")).to_contain_text("Warnings 3")  # it was drawn anew, beside the button that follows
    page.keyboard.press("e")
    expect(page.locator(".log li[data-here]")).to_have_class(re.compile("error"))
    follow = page.locator("[data-follow]")
    before = follow.get_attribute("aria-pressed")
    page.keyboard.press("f")
    expect(follow).not_to_have_attribute("aria-pressed", before)
    page.keyboard.press("c")
    wait_for(lambda: reload(jobs["running"]).cancel_requested_at, "the cancel")
    page.goto(jobs["failed"].get_absolute_url())
    page.keyboard.press("r")
    wait_for(lambda: status_of(jobs["failed"]) == Status.PENDING, "the retry")


def test_priority_of_several_jobs_and_a_saved_view(sign_in, jobs):
    page = sign_in()
    page.goto("/jobs/")
    page.click("a.chip:has-text('Waiting')")
    page.click("summary:has-text('Save this view')")
    page.fill("[name=name]", "What waits")
    page.click("button:has-text('Save')")
    expect(page.get_by_role("navigation", name="Saved views")).to_contain_text("What waits")
    page.get_by_label(f"Choose {jobs['waiting'].name}").check()
    page.click("button:has-text('Priority…')")
    page.select_option("#priority", label="High")
    page.click("button:has-text('Change the priority of 1 job')")
    expect(page.locator("h1")).to_have_text("1 job has the new priority")
    assert reload(jobs["waiting"]).priority == Priority.HIGH


def test_a_kind_of_failure_is_acknowledged_from_the_dashboard(sign_in, jobs):
    page = sign_in()
    expect(page.locator("h1")).to_contain_text("2 kinds of failure need you")
    row = page.locator("tr[data-row]").first
    row.locator("summary").click()
    row.get_by_label("Note for all who have this failure").fill("Known, the host moves")
    row.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("h1")).to_contain_text("1 kind of failure needs you")
    assert page.url.endswith("/")
    page.click("button:has-text('Undo')")
    expect(page.locator("h1")).to_contain_text("2 kinds of failure need you")


def test_a_wide_screen_is_used_in_full_by_who_wants_that(sign_in, jobs):
    page = sign_in()
    page.set_viewport_size({"width": 2560, "height": 1200})

    def width():
        return page.locator("main").evaluate("main => main.clientWidth")

    assert width() == 1240
    page.click("button:has-text('Full width')")
    assert width() == 2560
    page.goto("/jobs/")
    assert width() == 2560, "it is remembered"
    page.click("button:has-text('Full width')")
    assert width() == 1240
