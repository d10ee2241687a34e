"""What an analyst sees in a real browser while real workers run real jobs."""

import os
import re
import signal

import psutil
import pytest
from playwright.sync_api import expect

from jobs import failures, live
from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import ENDED, Status
from jobs.tests.e2e.conftest import Viewer
from jobs.tests.fixtures import reload, status_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def people(analyst, other):
    """Before the stack, which signs them in."""


@pytest.fixture
def gated(analyst, gate):
    return JobManager().create_job("sample_steps", parameters={"total": 10, "gate": str(gate)}, created_by=analyst, name="Ten steps")


def mark_reload(page):
    """A page that is loaded again loses this."""
    page.evaluate("window.firstView = true")


def was_not_reloaded(page):
    return page.evaluate("window.firstView === true")


def fail(analyst, message, jobs=1):
    """The fingerprint that they have in common."""
    for _ in range(jobs):
        job = JobManager().create_job("sample_steps", created_by=analyst)
        JobManager().start([job.pk], worker_id="w", host="h")
        JobManager().mark_failed(job.pk, message, attempt=1, kind="transient")
    return reload(job).failure


def bar(page):
    return float(page.locator("[data-bar]").evaluate("bar => bar.value"))


def test_job_progress_ui_updates(sign_in, gated, gate, analyst):
    """The bar moves on a page that is never loaded again, run by a cluster in another process."""
    page = sign_in()
    page.goto(gated.get_absolute_url())
    mark_reload(page)
    expect(page.locator("[data-live]")).to_have_text("Live")
    expect(page.locator(".page-head .badge")).to_have_text("Running")
    seen = [bar(page)]
    for step in (2, 5, 9):
        gate.open_to(step)
        expect(page.locator("[data-field=done]")).to_have_text(f"{step} of 10")
        expect(page.locator("[data-log]")).to_contain_text(f"Line of step {step}")
        seen.append(bar(page))
    assert seen == [0.0, 20.0, 50.0, 90.0]
    expect(page.locator("[data-field=memory]")).to_contain_text("MB")
    gate.open_to(10)
    expect(page.locator(".toast")).to_contain_text("Ten steps: 10 steps")  # first, for it goes by itself
    expect(page.locator(".page-head .badge")).to_have_text("Completed")
    expect(page.locator("#r-result")).to_contain_text("10 steps")
    expect(page.locator("[data-unread]")).to_have_text("1")
    assert bar(page) == 100.0
    assert was_not_reloaded(page)
    expect(page.locator("[data-log] li")).to_have_count(reload(gated).log_seq)
    numbers = page.locator("[data-log] li > span:first-child").all_inner_texts()
    assert [int(n) for n in numbers] == list(range(1, reload(gated).log_seq + 1))


def test_job_cancellation_workflow(sign_in, gated):
    page = sign_in()
    page.goto(gated.get_absolute_url())
    expect(page.locator(".page-head .badge")).to_have_text("Running")
    page.click("text=Cancel this job")
    expect(page.locator(".page-head .badge")).to_have_text("Cancelled")
    expect(page.locator("#r-now")).to_contain_text("Cancelled by ortega")
    expect(page.locator("text=Cancel this job")).to_have_count(0)
    expect(page.locator("[data-log]")).to_contain_text("ortega asked to cancel")
    assert status_of(gated) == Status.CANCELLED


def test_job_history_and_logs(sign_in, analyst, gate):
    """A failed job explains itself: reason, ways on, attempts, log by level, traceback."""
    gate.open_to(2)
    parameters = {"total": 3, "gate": str(gate), "fail_at": 2, "error": "transient"}
    job = JobManager().create_job("sample_steps", parameters=parameters, created_by=analyst, max_retries=1)
    wait_for(lambda: status_of(job) in ENDED, "both tries")
    page = sign_in()
    page.goto("/jobs/?state=failed")
    page.click(f"tr[data-job='{job.pk}'] a")
    expect(page.locator(".trouble h2")).to_have_text("ConnectionError: Step 2 went wrong")
    expect(page.locator(".trouble")).to_contain_text("Retry now")
    attempts = page.locator("section", has=page.locator("h2:text-is('Attempts')")).locator("tbody tr")
    expect(attempts).to_have_count(2)
    page.click("summary:has-text('Show')")
    expect(page.locator("pre")).to_contain_text("ConnectionError")
    page.click("a.chip:has-text('Errors')")
    expect(page.locator("a.chip.on")).to_contain_text("Errors")
    assert all("ERROR" in text for text in page.locator("[data-log] li").all_inner_texts())
    page.click("a.chip:has-text('All')")
    expect(page.locator("a.chip.on")).to_contain_text("All")
    page.click("a.way:has-text('Look at the log')")
    target = page.locator("[data-log] li:target")
    expect(target).to_contain_text("Failed: ConnectionError")
    with page.expect_download() as download:
        page.click("text=Download log")
    text = download.value.path().read_text()
    assert len(text.splitlines()) == reload(job).log_seq
    page.click("text=Retry now")
    wait_for(lambda: reload(job).attempt == 3, "the try that was asked for")


def test_a_job_is_paused_and_resumed_from_its_page(sign_in, analyst, gate):
    """It stops at its checkpoint, says so, and goes on where it was: nothing is done twice."""
    gate.open_to(3)
    job = JobManager().create_job("sample_items", parameters={"total": 6, "gate": str(gate)}, created_by=analyst)
    page = sign_in()
    page.goto(job.get_absolute_url())
    mark_reload(page)
    expect(page.locator("[data-field=done]")).to_have_text("3 of 6")
    page.click("button:has-text('Pause')")
    expect(page.locator(".page-head .badge")).to_have_text("Paused")
    expect(page.locator("#r-now")).to_contain_text("Paused by ortega")
    gate.open_to(99)
    page.click("button:has-text('Resume')")
    expect(page.locator(".page-head .badge")).to_have_text("Completed")
    assert reload(job).result_data["here"] == ["item 4", "item 5", "item 6"]


def test_only_what_failed_is_retried_from_the_items_tab(sign_in, analyst):
    fails = {"item 2": "permanent", "item 5": "transient"}
    job = JobManager().create_job("sample_items", parameters={"total": 6, "fails": fails}, created_by=analyst, name="Six items")
    wait_for(lambda: status_of(job) in ENDED, "the end")
    page = sign_in()
    page.goto(job.get_absolute_url())
    expect(page.locator(".page-head .badge")).to_have_text("Completed, 2 of 6 failed")
    page.click("nav a:has-text('Items')")
    page.click("a.chip:has-text('Failed')")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody")).to_contain_text("item 5 is broken")
    with page.expect_download() as download:
        page.click("text=CSV")
    assert len(download.value.path().read_text().splitlines()) == 3
    page.click("button:has-text('Retry the 2 items')")
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}/$"))
    new = Job.objects.exclude(pk=job.pk).get()
    assert new.parameters["only"] == ["item 2", "item 5"]
    expect(page.locator("main")).to_contain_text("Six items")


def test_many_jobs_are_cancelled_at_once(sign_in, analyst, gate):
    """The number is shown before, the outcome of each after."""
    jobs = [JobManager().create_job("sample_steps", parameters={"gate": str(gate)}, created_by=analyst, name=f"Job {n}") for n in range(4)]
    page = sign_in()
    page.goto("/jobs/")
    for job in jobs[:3]:
        page.check(f"tr[data-job='{job.pk}'] input[type=checkbox]")
    expect(page.locator("[data-chosen]")).to_contain_text("3")
    page.click("button[value=cancel]")
    expect(page.locator("h1")).to_contain_text("3 jobs")
    assert {status_of(job) for job in jobs} <= {Status.PENDING, Status.RUNNING}
    page.click("main button:has-text('Cancel')")
    expect(page.locator("main")).to_contain_text("3")
    wait_for(lambda: all(status_of(job) == Status.CANCELLED for job in jobs[:3]), "all three to be cancelled")
    assert status_of(jobs[3]) != Status.CANCELLED


def test_two_browsers_on_one_job_move_together(sign_in, gated, gate):
    one, two = sign_in(), sign_in()
    for page in (one, two):
        page.goto(gated.get_absolute_url())
        expect(page.locator("[data-live]")).to_have_text("Live")
    for step in (3, 7):
        gate.open_to(step)
        for page in (one, two):
            expect(page.locator("[data-field=done]")).to_have_text(f"{step} of 10")
    gate.open_to(10)
    for page in (one, two):
        expect(page.locator(".page-head .badge")).to_have_text("Completed")


BREAK_SOCKETS = """
  const Real = WebSocket;
  window.sockets = [];
  window.WebSocket = class extends Real {
    constructor(...a) { super(...a); window.sockets.push(this); if (window.broken) this.close(); }
  };
  window.breakSockets = () => { window.broken = true; window.sockets.forEach((s) => s.close()); };
"""


def test_without_its_socket_the_page_says_so_and_still_updates(sign_in, gated, gate):
    page = sign_in()
    page.add_init_script(BREAK_SOCKETS)
    page.goto(gated.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    mark_reload(page)
    page.evaluate("window.breakSockets()")
    expect(page.locator("[data-live]")).to_have_text("Not live, trying again")
    gate.open_to(4)
    expect(page.locator("[data-field=done]")).to_have_text("4 of 10")
    expect(page.locator("[data-log]")).to_contain_text("Line of step 4")
    page.evaluate("window.broken = false")
    expect(page.locator("[data-live]")).to_have_text("Live")
    gate.open_to(6)
    expect(page.locator("[data-field=done]")).to_have_text("6 of 10")
    assert was_not_reloaded(page)


def test_a_page_whose_script_was_lost_on_the_way_is_not_called_live(sign_in, gated):
    """As when the web process ends between a page and its scripts: nothing on it would ever move."""
    page = sign_in()
    page.route("**/js/job*.js", lambda route: route.abort())
    page.goto(gated.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Not live: load the page again")
    page.unroute("**/js/job*.js")
    page.reload()
    expect(page.locator("[data-live]")).to_have_text("Live")


def test_a_restart_of_the_web_process_is_survived_without_a_reload(start_stack, start_cluster, browser, gated, gate):
    """Web and workers apart: the job goes on while the web is away, and the page catches up."""
    stack = start_stack(workers=False)
    start_cluster()
    viewer = Viewer(browser, stack.base, "ortega")
    page = viewer.page
    page.goto(gated.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    mark_reload(page)
    os.killpg(stack.process.pid, signal.SIGKILL)
    stack.process.wait()
    expect(page.locator("[data-live]")).to_contain_text("Not live, trying again")
    gate.open_to(5)
    wait_for(lambda: reload(gated).completed_steps == 5, "the job to go on")
    stack.start()
    expect(page.locator("[data-live]")).to_have_text("Live")
    expect(page.locator("[data-field=done]")).to_have_text("5 of 10")
    expect(page.locator("[data-log]")).to_contain_text("Line of step 5")
    gate.open_to(8)
    expect(page.locator("[data-field=done]")).to_have_text("8 of 10")
    assert was_not_reloaded(page)
    viewer.close()


def test_a_server_that_hangs_is_not_called_live_and_values_get_their_age(start_stack, browser, gated):
    """Its socket stays open: nothing tells the browser that nobody is there any more."""
    stack = start_stack(workers=False)
    viewer = Viewer(browser, stack.base, "ortega")
    page = viewer.page
    page.goto(gated.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    mark_reload(page)
    os.killpg(stack.process.pid, signal.SIGSTOP)
    try:
        expect(page.locator("[data-live]")).to_have_text(re.compile(r"Not live, trying again · \d+ s old"), timeout=30_000)
    finally:
        os.killpg(stack.process.pid, signal.SIGCONT)
    expect(page.locator("[data-live]")).to_have_text("Live", timeout=30_000)
    assert was_not_reloaded(page)
    viewer.close()


def test_a_killed_child_is_seen_on_the_page(sign_in, gated, stack):
    page = sign_in()
    page.goto(gated.get_absolute_url())
    pid = wait_for(lambda: gated.attempts.values_list("process__pid", flat=True).first(), "the child")
    mark_reload(page)
    psutil.Process(pid).kill()
    expect(page.locator("[data-log]")).to_contain_text("SIGKILL")
    assert was_not_reloaded(page)


def test_with_the_web_alone_the_page_says_how_to_start_workers(start_stack, browser, gated):
    stack = start_stack(workers=False)
    viewer = Viewer(browser, stack.base, "ortega")
    for path in ("/", gated.get_absolute_url()):
        viewer.page.goto(path)
        expect(viewer.page.locator("[role=alert]")).to_contain_text("manage.py jobcluster --queue default")
    viewer.close()


def test_workers_that_stop_are_noticed_while_one_looks(start_stack, start_cluster, browser, analyst):
    stack = start_stack(workers=False)
    cluster = start_cluster()
    viewer = Viewer(browser, stack.base, "ortega")
    expect(viewer.page.locator("[data-live]")).to_have_text("Live")
    expect(viewer.page.locator("[role=alert]")).to_have_count(0)
    cluster.kill()
    JobManager().create_job("sample_steps", created_by=analyst)
    expect(viewer.page.locator("[role=alert]")).to_contain_text("No worker serves the queue")
    viewer.close()


def test_the_list_moves_in_place_and_new_jobs_wait_behind_a_button(sign_in, gated, gate, analyst):
    page = sign_in()
    page.goto("/jobs/")
    row = page.locator(f"tr[data-job='{gated.pk}']")
    expect(row.locator(".badge")).to_have_text("Running")
    mark_reload(page)
    gate.open_to(6)
    expect(row.locator(".sentence")).to_contain_text("6 of 10 steps")
    JobManager().create_job("sample_steps", created_by=analyst, name="A later one")
    expect(page.locator("[data-new-rows]")).to_have_text("1 more job")
    gate.open_to(10)
    expect(row.locator(".badge")).to_have_text("Completed")
    assert was_not_reloaded(page)
    page.click("[data-new-rows]")
    expect(page.locator("tbody")).to_contain_text("A later one")


def test_a_row_whose_message_was_lost_is_drawn_again(start_stack, browser, running_job, monkeypatch):
    """Nobody says that the job has ended; the list shows it all the same, and what was chosen stays chosen."""
    viewer = Viewer(browser, start_stack(workers=False).base, "ortega")
    page = viewer.page
    page.goto("/jobs/")
    expect(page.locator("[data-live]")).to_have_text("Live")
    page.get_by_label(f"Choose {running_job.name}").check()
    monkeypatch.setattr(live, "publish", lambda *_, **__: False)
    assert JobManager().mark_completed(running_job.pk, {"summary": "All of it"}, attempt=1)
    expect(page.locator("[data-rows] .badge")).to_have_text("Completed")
    expect(page.locator("[data-rows]")).to_contain_text("All of it")
    expect(page.get_by_label(f"Choose {running_job.name}")).to_be_checked()
    viewer.close()


@pytest.fixture
def look(start_stack, browser):
    """Opens a page of a stack without workers: what happens to its jobs, the test does itself."""
    viewers = []

    def open_page(path, before=lambda page: None, **options):
        viewers.append(Viewer(browser, start_stack(workers=False).base, "ortega"))
        page = viewers[-1].page
        before(page)
        page.goto(path, **options)
        return page

    yield open_page
    for viewer in viewers:
        viewer.close()


def test_a_list_shows_what_comes_to_belong_there_and_what_belongs_there_no_more(look, running_job, analyst, monkeypatch):
    """The job was there before the page was, and nobody says what becomes of it."""
    other = JobManager().create_job("sample_steps", created_by=analyst)
    page = look("/jobs/?state=running")
    expect(page.locator("[data-live]")).to_have_text("Live")
    monkeypatch.setattr(live, "publish", lambda *_, **__: False)
    JobManager().mark_completed(running_job.pk, {"summary": "All of it"}, attempt=1)
    JobManager().start([other.pk], worker_id="w", host="h")
    expect(page.locator("[data-rows] .badge")).to_have_text("Completed")
    expect(page.locator("[data-new-rows]")).to_have_text("1 more job")


def test_a_redraw_that_fails_is_made_again_and_until_then_the_page_is_not_live(look, running_job):
    page = look(running_job.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    page.route(f"**{running_job.get_absolute_url()}", lambda route: route.abort())
    JobManager().mark_completed(running_job.pk, {}, attempt=1)
    expect(page.locator("[data-live]")).to_contain_text("Not live, trying again")
    expect(page.locator(".page-head .badge")).to_have_text("Running")
    page.unroute_all()
    expect(page.locator(".page-head .badge")).to_have_text("Completed")
    expect(page.locator("[data-live]")).to_have_text("Live")


HOLD_RESUME = """
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    send(text) { if (text.includes('"resume"')) window.resume = () => super.send(text); else super.send(text); }
  };
"""


def test_lines_written_between_the_page_and_its_socket_are_not_jumped_over(look, running_job):
    """Its script comes late, and what that asks for still later, as on a slow line."""
    scripts = []

    def slow_line(page):
        page.add_init_script(HOLD_RESUME)
        page.route("**/js/page*.js", lambda route: scripts.append(route))  # Playwright marks what it is given

    def say(text):
        JobManager().append_logs(running_job.pk, [{"level": 20, "message": text}], attempt=1)

    page = look(running_job.get_absolute_url(), slow_line, wait_until="commit")
    expect(page.locator("[data-log]")).to_contain_text("Started on atlas-1")
    say("After the page")
    scripts[0].continue_()
    expect(page.locator("[data-live]")).to_have_text("Live")
    say("After the socket")
    expect(page.locator("[data-log]")).to_contain_text("After the socket")
    page.evaluate("window.resume()")
    say("The last one")
    expect(page.locator("[data-log]")).to_contain_text("The last one")
    lines = page.locator("[data-log] li[data-seq]").evaluate_all("lines => lines.map((line) => Number(line.dataset.seq))")
    assert lines == list(range(1, reload(running_job).log_seq + 1))


def test_what_somebody_types_stays_when_its_part_of_the_page_is_drawn_again(look, analyst, other):
    failure = fail(analyst, "example.org does not answer")
    page = look("/")
    page.locator("summary").first.click()
    note = page.get_by_label("Note for all who have this failure")
    note.fill("Known, the host moves")
    fail(analyst, "No disk")
    expect(page.locator("#r-main")).to_contain_text("No disk")
    expect(note.last).to_be_focused()
    expect(note.last).to_have_value("Known, the host moves")
    expect(page.locator("details[open]")).to_have_count(1)
    # its place is gone: the text stays, and what stands around it is not called live
    failures.acknowledge(failure, "Known", by=other)
    fail(analyst, "No memory")
    expect(page.locator("[data-live]")).to_contain_text("Not live")
    expect(note.last).to_have_value("Known, the host moves")
    note.last.fill("")
    page.locator("h1").click()
    expect(page.locator("#r-main")).to_contain_text("No memory")
    expect(page.locator("[data-live]")).to_have_text("Live")


def test_the_focus_stays_on_its_button_among_those_that_look_alike(look, analyst):
    """Two kinds of failure with two jobs each; a third one pushes them down."""
    wanted = fail(analyst, "example.org does not answer", 2)
    fail(analyst, "No disk", 2)
    page = look("/")
    button = page.locator(f"form:has(input[value='open_failure={wanted}']) button")
    button.focus()
    fail(analyst, "No memory")
    expect(page.locator("#r-main")).to_contain_text("No memory")
    expect(button).to_be_focused()


def test_who_is_signed_out_elsewhere_keeps_what_was_typed(look):
    sockets = []

    def between(socket):
        socket.connect_to_server()
        sockets.append(socket)

    page = look("/jobs/?q=harbour", lambda page: page.route_web_socket(re.compile("/ws/jobs"), between))
    expect(page.locator("[data-live]")).to_have_text("Live")
    page.get_by_label("Text", exact=True).fill("harbour of Rotterdam")
    mark_reload(page)
    sockets[-1].close(code=4401)
    expect(page.locator("[data-live]")).to_have_text("Not live: load the page again")
    expect(page.get_by_label("Text", exact=True)).to_have_value("harbour of Rotterdam")
    assert was_not_reloaded(page)


def test_the_bell_counts_what_came_while_there_was_no_socket(look, running_job, monkeypatch):
    page = look("/jobs/", lambda page: page.add_init_script(BREAK_SOCKETS))
    expect(page.locator("[data-live]")).to_have_text("Live")
    page.evaluate("window.breakSockets()")
    monkeypatch.setattr(live, "publish", lambda *_, **__: False)
    JobManager().mark_failed(running_job.pk, "example.org does not answer", attempt=1, kind="transient")
    page.evaluate("window.broken = false")
    expect(page.locator("[data-unread]")).to_have_text("1")


def test_the_dashboard_moves(sign_in, gated, gate):
    page = sign_in()
    row = page.locator(f"[data-rows] tr[data-job='{gated.pk}']")
    mark_reload(page)
    gate.open_to(4)
    expect(row.locator(".sentence")).to_contain_text("4 of 10 steps")
    expect(page.locator("h1")).to_contain_text("1 job runs")
    gate.open_to(10)
    expect(page.locator("h1")).to_contain_text("No job runs")
    expect(page.locator("#r-main")).to_contain_text("Ended lately")
    assert was_not_reloaded(page)


def test_another_analyst_sees_nothing_of_it(sign_in, gated):
    page = sign_in("sato")
    response = page.goto(gated.get_absolute_url())
    assert response.status == 404
    page.goto("/jobs/")
    expect(page.locator("tr[data-job]")).to_have_count(0)


def test_a_hostile_log_line_runs_nowhere(sign_in, analyst, gated, gate):
    page = sign_in()
    page.goto(gated.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    evil = "<img src=x onerror='window.evil = 1'><script>window.evil = 1</script>"
    JobManager().append_logs(gated.pk, [{"level": 40, "message": evil}])
    expect(page.locator("[data-log]")).to_contain_text("onerror")
    page.reload()
    expect(page.locator("[data-log]")).to_contain_text("onerror")
    assert page.evaluate("window.evil") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_scrolls_sideways_at_360_px(sign_in, gated, scheme):
    page = sign_in(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 780})
    for path in ("/", "/jobs/", gated.get_absolute_url(), "/jobs/new/web_scraping/", "/subjects/", "/notifications/"):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{path} is {wide} px wide"


def test_a_job_is_started_and_cancelled_with_the_keyboard_alone(sign_in, analyst):
    page = sign_in()
    page.goto("/jobs/new/web_scraping/")
    page.focus("#id_urls")
    page.keyboard.type("https://1.1.1.1/")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Start this job":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}/$"))
    assert Job.objects.get(created_by=analyst).name == "Scrape 1 page of 1.1.1.1"


def test_times_are_those_of_the_viewers_zone(sign_in, gated):
    page = sign_in(timezone_id="Asia/Singapore")
    page.goto(gated.get_absolute_url())
    exact = page.locator("[data-ago]").first.get_attribute("title")
    assert exact.endswith("+08"), exact


def test_a_log_of_a_hundred_thousand_lines(sign_in, gated, gate):
    """The page holds a part of it, and every line can be come to by scrolling; lines that are written meanwhile move nothing."""
    wait_for(lambda: reload(gated).current_step == "Step 1", "the first step")
    lines = [{"level": 20, "message": f"Line number {n}"} for n in range(1000)]
    for _ in range(100):
        JobManager().append_logs(gated.pk, lines)
    page = sign_in()
    page.goto(gated.get_absolute_url())
    expect(page.locator("[data-live]")).to_have_text("Live")
    log = page.locator("[data-log]")
    first_shown = "Number(document.querySelector('[data-log] li').dataset.seq)"
    last_shown = "Number(document.querySelector('[data-log] li:last-child').dataset.seq)"

    def scroll(pixels, condition):
        wait_for(lambda: page.evaluate(f"document.querySelector('[data-log]').scrollTop += {pixels}, {condition}"), condition)

    wait_for(lambda: page.evaluate(last_shown) == reload(gated).log_seq, "the newest line")
    last = reload(gated).log_seq
    log.focus()
    page.keyboard.press("Home")
    scroll(0, f"{first_shown} === 1")
    scroll(4000, f"{last_shown} >= 2400")
    numbers = [int(n) for n in log.locator("li > span:first-child").all_inner_texts()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) <= 600
    assert numbers[0] > 1
    assert page.locator("[data-follow]").get_attribute("aria-pressed") == "false"
    gate.open_to(1)
    expect(page.locator("[data-log-count]")).not_to_have_text(f"{last:,}")
    assert page.evaluate(last_shown) < last
    scroll(-4000, f"{first_shown} === 1")
    page.locator("[data-follow]").click()
    expect(log.locator("li").last).to_contain_text("Line of step 1")
    gate.open_to(2)
    expect(log.locator("li").last).to_contain_text("Line of step 2")
    assert page.locator("[data-follow]").get_attribute("aria-pressed") == "true"
