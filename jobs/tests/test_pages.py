"""The pages as the server draws them; the browser's part is in e2e/."""

import re
from datetime import timedelta

import lxml.html
import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from jobs.manager import JobManager
from jobs.models import Job, JobAttempt, JobLog, Notification, WorkerProcess
from jobs.presentation import badge, chart, live_fields, sentence
from jobs.states import Level, Priority, Status
from jobs.tests.fixtures import reload


@pytest.fixture
def page(client, analyst):
    client.force_login(analyst)
    return client


def text_of(response):
    return response.content.decode()


def test_an_empty_dashboard_says_what_will_be_here(page):
    text = text_of(page.get("/"))
    assert "Start the first job" in text
    assert "No worker is running" in text


def test_workers_of_several_machines_stand_by_machine(page, job):
    for name, host in (("atlas-1", "atlas"), ("birch-1", "birch"), ("atlas-2", "atlas")):
        WorkerProcess.objects.create(name=name, queue_name="default", host=host, pid=1, cluster="0" * 32)
    assert re.findall(r">((?:atlas|birch)[-0-9]*)</", text_of(page.get("/"))) == ["atlas", "atlas-1", "atlas-2", "birch", "birch-1"]
    WorkerProcess.objects.filter(host="birch").delete()
    assert ">atlas</" not in text_of(page.get("/")), "of one machine there is nothing to tell apart"


def test_the_dashboard_and_the_page_name_a_queue_without_workers(page, job):
    for path in ("/", job.get_absolute_url()):
        text = text_of(page.get(path))
        assert "No worker serves the queue “default”" in text
        assert "manage.py jobcluster --queue default" in text
    WorkerProcess.objects.create(name="a-1", queue_name="default", host="a", pid=1, cluster=job.pk)
    assert "No worker serves" not in text_of(page.get("/"))


@pytest.mark.parametrize(("query", "shown"), [
    ("state=waiting", True), ("state=running", False), ("type=sample_steps", False), ("priority=NORMAL", True),
    ("priority=HIGH", False), ("by=ortega", True), ("q=SAMPLE", True), ("q=nothing", False), ("since=1h", True),
])  # fmt: skip
def test_filters_of_the_list(page, job, query, shown):
    text = text_of(page.get(f"/jobs/?{query}"))
    assert (f'data-job="{job.pk}"' in text) is (shown or query.startswith("type"))


@pytest.mark.parametrize("query", ["state=odd", "type=odd", "subject=odd", "since=odd", "sort=password", "created_after=odd"])
def test_a_filter_that_makes_no_sense_is_named_and_left_out(page, job, query):
    text = text_of(page.get(f"/jobs/?{query}"))
    assert "makes no sense and was left out" in text
    assert f'data-job="{job.pk}"' in text


def test_no_match_is_not_the_same_as_no_job(page, job):
    assert "No job matches these filters" in text_of(page.get("/jobs/?q=nothing"))
    Job.objects.all().delete()
    assert "Start the first job" in text_of(page.get("/jobs/"))


def test_a_form_keeps_what_was_typed_and_names_each_wrong_address(page):
    typed = "not a url\nhttp://10.0.0.1/\nftp://x.example/\nhttps://user:pw@example.org/"
    response = page.post("/jobs/new/web_scraping/", {"urls": typed, "delay_s": "x", "hosts_at_once": "8", "priority": "10"})
    text = text_of(response)
    assert response.status_code == 422
    assert "Line 1, not a url: This is not a web address" in text
    assert "Line 2, http://10.0.0.1/: 10.0.0.1 is a private" in text
    assert "Line 3, ftp://x.example/: Only http:// and https://" in text
    assert "Line 4" in text
    assert "http://10.0.0.1/\nftp" in text
    assert "Enter a number" in text
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        ("", "at least one web address"),
        ("\n".join(["https://1.1.1.1/"] * 10_001), "10,001"),
        ("https://nosuch.invalid/", "cannot be found in the DNS"),
    ],
)
def test_forms_say_what_is_wrong(page, urls, why):
    response = page.post("/jobs/new/web_scraping/", {"urls": urls, "delay_s": "1", "hosts_at_once": "8", "priority": "10"})
    assert why in text_of(response)
    assert not Job.objects.exists()


def test_a_good_form_starts_a_job(page, analyst):
    urls = "https://1.1.1.1/a\nhttps://1.1.1.1/a#x\nhttps://1.1.1.1/b"
    response = page.post("/jobs/new/web_scraping/", {"urls": urls, "delay_s": "1", "hosts_at_once": "8", "priority": "10"})
    job = Job.objects.get()
    assert response.headers["Location"] == job.get_absolute_url()
    assert job.parameters["urls"] == ["https://1.1.1.1/a", "https://1.1.1.1/b"]
    assert (job.name, job.total_steps, job.created_by) == ("Scrape 2 pages of 1.1.1.1", 2, analyst)


def test_run_again_with_changes_brings_the_parameters(page, analyst):
    job = JobManager().create_job("web_scraping", parameters={"urls": ["https://1.1.1.1/here"]}, created_by=analyst)
    assert "https://1.1.1.1/here" in text_of(page.get(f"/jobs/new/web_scraping/?from={job.pk}"))
    for odd in ("x", str(job.pk)[:-1] + "0"):
        assert page.get(f"/jobs/new/web_scraping/?from={odd}").status_code == 200
    assert page.get("/jobs/new/no_such_type/").status_code == 404


def test_a_stale_page_is_told_that_the_job_has_ended(page, running_job):
    JobManager().mark_completed(running_job.pk, {}, attempt=1)
    text = text_of(page.post(f"/jobs/{running_job.pk}/cancel/", follow=True))
    assert "has already ended (completed). Nothing was changed." in text
    text = text_of(page.post(f"/jobs/{running_job.pk}/retry/", follow=True))
    assert "Only a failed job can be retried" in text


@pytest.mark.parametrize(("path", "leads_to"), [
    ("/jobs/{}/cancel/", "/jobs/{}/"), ("/jobs/{}/retry/", "/jobs/{}/"), ("/jobs/bulk/", "/jobs/"), ("/jobs/views/7/delete/", "/jobs/"),
    ("/failures/0123456789abcdef/acknowledge/", "/failures/0123456789abcdef/"), ("/sign-out/", "/"),
])  # fmt: skip
def test_the_address_of_a_button_does_nothing_and_leads_to_its_page(page, job, path, leads_to):
    answer = page.get(path.format(job.pk))
    assert (answer.status_code, answer["Location"]) == (302, leads_to.format(job.pk))
    assert "Nothing was changed" in text_of(page.get("/"))
    assert reload(job).status == Status.PENDING
    assert page.get("/api/jobs/bulk").status_code == 405


def test_what_a_job_says_is_shown_as_text(page, analyst):
    """Hostile names, steps, lines and errors run nowhere."""
    evil = "<script>alert(1)</script>"
    job = JobManager().create_job("sample_steps", name=evil, created_by=analyst)
    JobManager().start([job.pk], worker_id="a", host="a")
    JobManager().update_progress(job.pk, 1, evil, attempt=1)
    JobManager().append_logs(job.pk, [{"level": Level.ERROR, "message": evil}], attempt=1)
    JobManager().mark_failed(job.pk, evil, evil, attempt=1)
    for path in ("/", "/jobs/", job.get_absolute_url(), "/notifications/"):
        response = page.get(path)
        assert evil not in text_of(response)
        assert "&lt;script&gt;" in text_of(response)
        assert "'unsafe-inline'" not in response["Content-Security-Policy"]


def test_pages_have_no_inline_style_or_script(page, running_job):
    for path in ("/", "/jobs/", running_job.get_absolute_url(), "/jobs/new/web_scraping/", "/subjects/", "/notifications/"):
        text = text_of(page.get(path))
        assert " style=" not in text
        assert "<style" not in text
        assert len(re.findall(r"<script", text)) == len(re.findall(r'<script (?:type="module" )?src="/(?:static/|words\.js")', text))


def test_the_page_of_a_failed_job_says_why_and_offers_ways_on(page, running_job):
    JobManager().append_logs(running_job.pk, [{"level": Level.INFO, "message": "x"}], attempt=1)
    JobManager().mark_failed(running_job.pk, "The host did not answer", "Traceback: here", attempt=1, advice="Check the host.")
    text = text_of(page.get(running_job.get_absolute_url()))
    for part in ("The host did not answer", "Check the host.", "Retry now", "Traceback: here", "#L4"):
        assert part in text


def test_the_whole_log_can_be_downloaded(page, running_job):
    JobManager().append_logs(running_job.pk, [{"level": 20, "message": f"line {n}"} for n in range(700)], attempt=1)
    response = page.get(f"/jobs/{running_job.pk}/log/")
    body = b"".join(response.streaming_content).decode()
    assert len(body.splitlines()) == 702
    assert response["Content-Disposition"].startswith("attachment")
    shown = text_of(page.get(running_job.get_absolute_url()))
    assert "Download all 702" in shown


def test_the_number_of_queries_does_not_grow_with_the_rows(page, analyst, django_assert_max_num_queries):
    for _ in range(40):
        JobManager().create_job("sample_steps", created_by=analyst)
    for path, most in (("/", 30), ("/jobs/", 22)):
        with django_assert_max_num_queries(most):
            page.get(path)


def test_times_are_shown_in_the_zone_of_the_viewer(page, job):
    Job.objects.filter(pk=job.pk).update(created_at="2026-01-15T12:00:00Z")
    page.cookies["tz"] = "Asia/Singapore"
    assert "2026-01-15 20:00:00 +08" in text_of(page.get(job.get_absolute_url()))
    page.cookies["tz"] = "No/Where"
    assert "2026-01-15 12:00:00 UTC" in text_of(page.get(job.get_absolute_url()))


def test_notifications_are_read(page, running_job):
    JobManager().mark_completed(running_job.pk, {"summary": "4 steps"}, attempt=1)
    assert "4 steps" in text_of(page.get("/notifications/"))
    page.post("/notifications/")
    assert not Notification.objects.filter(read_at=None).exists()


class TestLog:
    @pytest.fixture
    def logged(self, running_job):
        lines = [{"level": Level.WARNING if n % 100 == 0 else Level.INFO, "message": f"Fetched /page-{n} 100%_done"} for n in range(1, 801)]
        JobManager().append_logs(running_job.pk, lines, attempt=1)
        return running_job

    def shown(self, page, job, query):
        text = text_of(page.get(f"{job.get_absolute_url()}?{query}"))
        return [int(n) for n in re.findall(r'<li id="L(\d+)"', text)], text

    def test_the_last_lines(self, page, logged):
        numbers, text = self.shown(page, logged, "")
        assert (numbers[-1], len(numbers)) == (reload(logged).log_seq, 300)
        assert "The last 300 lines" in text

    def test_a_text_within_a_level(self, page, logged):
        numbers, text = self.shown(page, logged, "find=PAGE-70")
        assert len(numbers) == 11
        assert "11 lines with “PAGE-70”" in text
        assert len(self.shown(page, logged, "find=page-70&level=warning")[0]) == 1

    @pytest.mark.parametrize("find", ["%25_", "%5C", "%00", "<b>", "zzz"])
    def test_a_text_is_a_text(self, page, logged, find):
        numbers, text = self.shown(page, logged, f"find={find}")
        assert (len(numbers) == 300) == (find in ("%25_", "%00"))
        assert "<b>" not in text

    def test_the_lines_around_one(self, page, logged):
        numbers, text = self.shown(page, logged, "line=200")
        assert (numbers[0], numbers[-1]) == (51, 350)
        assert "The lines around line 200" in text

    def asked(self, page, job, query):
        answer = page.get(f"{job.get_absolute_url()}lines/?{query}").json()
        return [line[0] for line in answer["lines"]], answer["more"]

    def test_the_lines_next_to_those_that_are_shown(self, page, logged):
        last = reload(logged).log_seq
        assert self.asked(page, logged, "before=401") == (list(range(101, 401)), True)
        assert self.asked(page, logged, "before=301") == (list(range(1, 301)), False)
        assert self.asked(page, logged, "after=0") == (list(range(1, 301)), True)
        assert self.asked(page, logged, f"after={last - 2}") == ([last - 1, last], False)
        assert self.asked(page, logged, "") == (list(range(last - 299, last + 1)), True)

    def test_the_next_lines_keep_to_the_filters(self, page, logged):
        assert self.asked(page, logged, "after=0&level=30&find=page-70") == self.asked(page, logged, "before=9999&level=30&find=page-70")
        assert len(self.asked(page, logged, "after=0&level=30&find=page-70")[0]) == 1

    @pytest.mark.parametrize("query", ["before=x", "after=-1", "level=loud", "before=99999999999999"])
    def test_lines_that_cannot_be(self, page, logged, query):
        answer = page.get(f"{logged.get_absolute_url()}lines/?{query}")
        assert answer.status_code == 400
        assert list(answer.json()["errors"]) == [query.partition("=")[0]]

    def test_lines_of_another_persons_job(self, client, other, logged):
        client.force_login(other)
        assert client.get(f"{logged.get_absolute_url()}lines/").status_code == 404

    @pytest.mark.parametrize("query", ["line=x", "line=-1", "line=99999999999999999999", "line=٣", "level=loud"])
    def test_what_makes_no_sense_is_left_out(self, page, logged, query):
        assert page.get(f"{logged.get_absolute_url()}?{query}").status_code == 200


def test_the_page_of_a_job_that_was_cancelled_before_it_ran(page, job, analyst):
    JobManager().cancel_job(job.pk, by=analyst)
    text = text_of(page.get(job.get_absolute_url()))
    assert "Cancelled by ortega" in text
    for never_measured in ("Peak memory", "Speed", "Worker</dt>", "Polite waiting"):
        assert never_measured not in text
    assert "Queued" in text


def test_a_job_that_was_cancelled_while_it_waited_for_its_next_try_did_not_run_until_then(page, analyst, running_job):
    JobManager().mark_failed(running_job.pk, "No answer", attempt=1, retry_at=timezone.now() + timedelta(hours=1))
    JobAttempt.objects.update(started_at=timezone.now() - timedelta(hours=2), ended_at=timezone.now() - timedelta(hours=1))
    Job.objects.update(started_at=timezone.now() - timedelta(hours=2))
    JobManager().cancel_job(running_job.pk, by=analyst)
    facts = re.search(r'<dl class="facts">.*?</dl>', text_of(page.get(running_job.get_absolute_url())), re.DOTALL)[0]
    assert "Ran" not in facts
    assert "atlas-1" in facts, "the worker of its attempt is known"
    assert "2 h" not in text_of(page.get("/jobs/"))


def test_what_an_ended_job_used_is_not_written_over_by_what_it_uses_now(page, running_job):
    JobManager().mark_completed(running_job.pk, {}, attempt=1, memory_peak_mb=160.0, cpu_seconds=3.0)
    facts = re.search(r'<dl class="facts">.*?</dl>', text_of(page.get(running_job.get_absolute_url())), re.DOTALL)[0]
    assert "160 MB" in facts
    assert set(re.findall(r'data-field="(\w+)"', facts)) <= {"elapsed", "done"}, "job.js writes into the others while the job runs"


def test_the_page_of_a_waiting_job_shows_no_fact_that_is_not_known(page, job):
    for total in (4, None):
        Job.objects.update(total_steps=total)
        facts = re.search(r'<dl class="facts">.*?</dl>', text_of(page.get(job.get_absolute_url())), re.DOTALL)[0]
        assert ("0 of 4" in facts) == (total is not None)
        assert "–" not in facts


def test_a_notification_leads_to_the_line_that_matters(page, analyst, running_job):
    manager = JobManager()
    manager.append_logs(running_job.pk, [{"level": Level.INFO, "message": f"Line {n}"} for n in range(3)], attempt=1)
    manager.mark_stalled(running_job, 190)
    stalled = Notification.objects.get()
    assert stalled.get_absolute_url() == f"{running_job.get_absolute_url()}?line=warning"
    assert page.get(stalled.get_absolute_url())["Location"] == f"{running_job.get_absolute_url()}#L6"
    manager.mark_failed(running_job.pk, "The anchor is lost", attempt=1)
    failed = Notification.objects.get(status=Status.FAILED)
    assert page.get(failed.get_absolute_url())["Location"] == f"{running_job.get_absolute_url()}#L7"
    assert JobLog.objects.get(job=running_job, seq=7).message == "Failed: The anchor is lost"


def test_what_is_looked_at_is_read(page, analyst, other, running_job, django_capture_on_commit_callbacks, monkeypatch):
    JobManager().mark_failed(running_job.pk, "No answer", attempt=1)
    Notification.objects.create(user=other, job=running_job, attempt=1, status=Status.FAILED, text="Theirs")
    unread = Notification.objects.filter(read_at=None)
    page.get(running_job.get_absolute_url(), headers={"x-regions": "1"})
    assert unread.count() == 2, "a page in the background draws itself again, too"
    told = []
    monkeypatch.setattr("jobs.live.publish", lambda group, message, **_: told.append((group, message)))
    with django_capture_on_commit_callbacks(execute=True):
        page.get(running_job.get_absolute_url())
    assert [row.user for row in unread] == [other]
    assert told == [(f"user.{analyst.pk}", {"type": "notification.read", "unread": 0})]


def test_run_again_with_changes_begins_with_all_that_was_chosen(page, analyst):
    job = JobManager().create_job("sample_steps", parameters={"total": 4}, created_by=analyst, priority=Priority.HIGH)
    fields = lxml.html.fromstring(text_of(page.get(f"/jobs/new/sample_steps/?from={job.pk}")))
    assert fields.xpath("//select[@name='priority']/option[@selected]/@value") == [str(int(Priority.HIGH))]
    assert fields.xpath("//input[@name='total']/@value") == ["4"]


def test_a_level_and_an_outcome_that_there_are_not_are_named(page, running_job):
    assert "There is no level “loud”" in text_of(page.get(f"{running_job.get_absolute_url()}?level=loud"))
    assert "There is no outcome “odd”" in text_of(page.get(f"{running_job.get_absolute_url()}items/?outcome=odd"))


class TestPagesOfErrors:
    """They are the product's own, in its look, and name the way on."""

    def test_a_form_from_before_the_viewer_signed_in_again(self, analyst, job):
        client = Client(enforce_csrf_checks=True)
        client.force_login(analyst)
        answer = client.post(f"{job.get_absolute_url()}cancel/")
        assert answer.status_code == 403
        assert "This page was out of date" in text_of(answer)
        assert reload(job).status == Status.PENDING

    @pytest.mark.parametrize(("language", "says"), [("en", "This page could not be made"), ("de", "Diese Seite konnte nicht")])
    def test_a_fault_of_the_server(self, page, monkeypatch, language, says):
        def broken(*arguments):
            raise RuntimeError("boom")

        monkeypatch.setattr("jobs.failures.troubles", broken)
        page.raise_request_exception = False
        answer = page.get("/", headers={"accept-language": language})
        assert answer.status_code == 500
        assert says in text_of(answer)
        assert f'<html lang="{language}">' in text_of(answer)
        assert "boom" not in text_of(answer)

    def test_a_fault_of_the_database(self, page, monkeypatch):
        def gone(*arguments, **options):
            raise OperationalError("the database is gone")

        page.raise_request_exception = False
        with monkeypatch.context() as patch:
            patch.setattr("django.db.backends.utils.CursorWrapper.execute", gone)
            answer = page.get("/")
        assert answer.status_code == 500
        assert "Jobs do not depend on this page" in text_of(answer)

    def test_a_host_that_is_not_ours(self, page):
        answer = page.get("/", headers={"host": "evil.example"})
        assert answer.status_code == 400
        assert "This request was not understood" in text_of(answer)


class TestWords:
    """The badge and the sentence of each state."""

    def test_each_state(self, running_job):
        now = timezone.now()
        job = running_job
        assert (badge(job).label, sentence(job)) == ("Running", "Started · 0 of 4 steps")
        job.current_step, job.completed_steps, job.problem_count, job.estimated_duration = "Fetching /a", 2, 1, 200
        assert sentence(job, job.started_at) == "Fetching /a · 2 of 4 steps · about 3 min left · 1 problem"
        later = job.progress_at + timedelta(minutes=3)
        assert badge(job, later).label == "Running"
        job.stalled_at = later
        assert badge(job, later).label == "Running, stalled"
        assert "no progress for 3 min 00 s, not using CPU" in sentence(job, later)
        job.stalled_at = None
        job.cancel_requested_at = now
        assert badge(job).label == "Cancelling"

    def test_waiting_states(self, job):
        now = timezone.now()
        assert (badge(job).label, sentence(job)) == ("Waiting", "Waiting for a free worker")
        assert "No worker serves" in sentence(job, unserved=True)
        job.error_kind, job.error_message, job.retry_count = "transient", "No answer", 1
        job.run_after = now + timedelta(seconds=252)
        assert badge(job, now).label == "Retries in 4 min 12 s"
        assert sentence(job, now) == "Try 1 of 5 failed: No answer"
        job.hold_reason = "Waits for memory"
        assert (badge(job).label, sentence(job)) == ("Held", "Waits for memory")

    def test_ends(self, running_job):
        JobManager().mark_completed(running_job.pk, {"summary": "4 steps"}, attempt=1)
        job = reload(running_job)
        job.problem_count = 7
        assert (badge(job).label, sentence(job)) == ("Completed, 7 of 4 failed", "4 steps")

    def test_a_total_that_is_not_known_has_no_bar(self, running_job):
        running_job.total_steps = None
        assert live_fields(running_job)["percent"] is None

    def test_durations_are_never_negative(self, running_job):
        running_job.started_at = timezone.now() + timedelta(hours=1)
        running_job.estimated_duration = 1
        fields = live_fields(running_job)
        assert (fields["elapsed"], fields["left"]) == (0.0, 1.0)


def test_a_chart_needs_two_values():
    assert chart([[0.0, 1.0, 2.0]], 512) == {}
    drawn = chart([[0.0, 100.0, 10.0], [1.0, 300.0, 90.0]], 512)
    assert drawn["limit_y"] == 4
    assert drawn["peak"] == "300 MB"
    assert drawn["memory"].split()[0].startswith("0.0,")
    assert chart([[0.0, 1.0, 10.0], [1.0, 2.0, 90.0]], 512)["limit_y"] is None


def test_attempts_are_history(page, running_job):
    JobManager().mark_failed(running_job.pk, "first reason", attempt=1, retry_at=timezone.now())
    JobManager().start([running_job.pk], worker_id="atlas-2", host="atlas")
    text = text_of(page.get(running_job.get_absolute_url()))
    assert "first reason" in text
    assert JobAttempt.objects.filter(job=running_job).count() == 2
    assert reload(running_job).status == Status.RUNNING
