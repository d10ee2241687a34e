"""Failures that are alike are one trouble: for pages, notifications and what can be done about them."""

import re
from importlib import import_module

import pytest
import time_machine
from django.apps import apps
from django.conf import settings

from jobs import failures, items
from jobs.failures import mark_of
from jobs.manager import JobManager
from jobs.models import FailureGroup, Job, Notification
from jobs.states import Status
from jobs.tests.fixtures import reload

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("one", "other"), [
    ("Not finished in 60 s", "Not finished in 31.5 s"),
    ("No answer from https://example.org/a?b=1", "No answer from https://example.org/other"),
    ("“Report of May” is gone", "“Report of June” is gone"),
    ("Job 01a214d4-1962-729e-ba35-bb83a8e65700 vanished", "Job 77a214d4-1962-729e-ba35-bb83a8e657ff vanished"),
    ("No object deadbeef0123", "No object 0123deadbeef"),
    ("1,204 of 3,000 pages", "7 of 9 pages"),
])  # fmt: skip
def test_what_varies_makes_no_difference(one, other):
    assert mark_of("transient", one).fingerprint == mark_of("transient", other).fingerprint


@pytest.mark.parametrize("other", [
    {"kind": "permanent"}, {"key": "https://example.net/a"}, {"message": "Refused"},
    {"traceback": 'Traceback (most recent call last):\n  File "/usr/lib/x.py", line 1, in f\n    g()\nOSError: Not finished\n'},
])  # fmt: skip
def test_kind_host_message_and_exception_make_a_difference(other):
    base = {"kind": "transient", "message": "Not finished", "key": "https://example.org/a"}
    marks = [mark_of(d.pop("kind"), d.pop("message"), **d) for d in (dict(base), base | other)]
    assert marks[0].fingerprint != marks[1].fingerprint


def test_a_word_that_looks_like_hexadecimal_stays():
    assert mark_of("unknown", "The defaced facade").text == "The defaced facade"


def test_the_place_is_the_topmost_frame_of_our_own_code():
    traceback = (
        "Traceback (most recent call last):\n"
        f'  File "{settings.BASE_DIR}/jobs/child.py", line 90, in outcome_of\n    kind.handler()\n'
        f'  File "{settings.BASE_DIR}/osint/job_types/x.py", line 7, in read\n    parse()\n'
        f'  File "{settings.BASE_DIR}/.venv/lib/python3.12/site-packages/lib/y.py", line 3, in parse\n    int("a")\n'
        "lib.errors.ParseError: no number\nNote: a second line\n"
    )
    mark = mark_of("unknown", "no number", traceback=traceback)
    assert (mark.place, mark.exception) == ("osint/job_types/x.py in read", "ParseError")


def failed_job(user, message="example.org does not answer in 30 s", kind="transient"):
    job = JobManager().create_job("sample_steps", created_by=user)
    JobManager().start([job.pk], worker_id="w", host="h")
    JobManager().mark_failed(job.pk, message, attempt=1, kind=kind)
    return job


def job_with_failed_items(user, *keys, reason="Not finished in 60 s"):
    job = JobManager().create_job("sample_items", parameters={"total": 10}, created_by=user)
    JobManager().start([job.pk], worker_id="w", host="h")
    JobManager().record_items(job.pk, [(key, "failed", "transient", reason) for key in keys], attempt=1)
    JobManager().mark_completed(job.pk, {}, attempt=1)
    return job


def test_a_trouble_counts_what_its_viewer_may_see(analyst, other):
    for seconds in (30, 31):
        failed_job(analyst, f"example.org does not answer in {seconds} s")
    failed_job(other, "example.org does not answer in 9 s")
    job_with_failed_items(analyst, "https://example.net/1", "https://example.net/2", "https://example.com/1")
    mine = {str(t.group): (t.jobs, t.items, t.item_jobs) for t in failures.troubles(Job.objects.visible_to(analyst))}
    assert mine == {
        "example.org does not answer in … s": (2, 0, 0),
        "example.net: Not finished in … s": (0, 2, 1),
        "example.com: Not finished in … s": (0, 1, 1),
    }
    assert [t.jobs for t in failures.troubles(Job.objects.visible_to(other))] == [1]
    assert FailureGroup.objects.count() == 3


@time_machine.travel("2026-11-26T14:20:00Z", tick=False)
def test_the_trend_counts_failures_by_the_hour_in_the_scope_of_its_viewer(analyst, other, django_assert_num_queries):
    early, before_last = failed_job(analyst), failed_job(analyst)
    failed_job(analyst), failed_job(analyst), failed_job(other)
    Job.objects.filter(pk=early.pk).update(completed_at="2026-11-24T15:00:00Z")  # the first hour that is shown
    Job.objects.filter(pk=before_last.pk).update(completed_at="2026-11-26T13:59:59Z")
    of_items = job_with_failed_items(analyst, "https://example.net/1", "https://example.net/2")
    failures_of = {str(group): group.pk for group in FailureGroup.objects.all()}
    of_host = failures_of["example.net: Not finished in … s"]
    visible = Job.objects.visible_to(analyst)
    with django_assert_num_queries(2):
        trends = failures.trends(visible, failures_of.values())
    assert trends[of_host] == [0] * 47 + [2]
    assert trends[reload(early).failure] == [1] + [0] * 45 + [1, 2]
    JobManager().retry_items(of_items.pk, by=analyst)
    assert failures.trends(Job.objects.all(), [of_host])[of_host] == [0] * 48, "what was taken up counts no more"


def test_what_a_later_job_took_up_is_no_trouble(analyst):
    job = job_with_failed_items(analyst, "https://example.net/1")
    JobManager().retry_items(job.pk, by=analyst)
    failed = failed_job(analyst)
    JobManager().retry_job(failed.pk, by=analyst)
    assert failures.troubles(Job.objects.all()) == []


def test_an_item_that_worked_in_a_later_attempt_has_no_failure(running_job):
    items.record_many(running_job.pk, 1, [("https://example.org/", "failed", "transient", "Not finished")])
    assert running_job.items.get().failure
    items.done(running_job.pk, 1, "https://example.org/")
    assert running_job.items.get().failure == ""


def test_an_acknowledged_trouble_comes_back_with_the_next_failure(client, analyst, other):
    job = failed_job(analyst)
    job.refresh_from_db()
    client.force_login(analyst)
    assert "1 kind of failure needs you" in client.get("/").content.decode()
    client.post(f"/failures/{job.failure}/acknowledge/", {"note": "The host moves house until Monday"})
    group = FailureGroup.objects.get()
    assert (group.acknowledged_by, group.note) == ("ortega", "The host moves house until Monday")
    assert "needs you" not in client.get("/").content.decode()
    assert "moves house" in client.get(f"/failures/{job.failure}/").content.decode()
    failed_job(analyst)
    assert "1 kind of failure needs you" in client.get("/").content.decode()
    assert "it has come back since" in client.get(f"/failures/{job.failure}/").content.decode()


def test_who_acknowledges_on_the_dashboard_stays_there(client, analyst):
    job = reload(failed_job(analyst))
    client.force_login(analyst)
    url = f"/failures/{job.failure}/acknowledge/"
    assert f'action="{url}"' in client.get("/").content.decode()
    assert client.post(url, {"note": "Known", "back": "dashboard"}).url == "/"
    page = client.get("/").content.decode()
    assert "needs you" not in page
    assert client.post(url, dict(re.findall(r'name="(again|back)" value="(\w+)"', page))).url == "/", "undo comes back, too"
    assert "1 kind of failure needs you" in client.get("/").content.decode()
    assert client.post(url, {"back": "//example.org/"}).url == f"/failures/{job.failure}/"


def test_an_acknowledgement_can_be_taken_back(client, analyst):
    job = failed_job(analyst)
    job.refresh_from_db()
    client.force_login(analyst)
    client.post(f"/failures/{job.failure}/acknowledge/", {})
    client.post(f"/failures/{job.failure}/acknowledge/", {"again": "1"})
    assert "1 kind of failure needs you" in client.get("/").content.decode()


@pytest.mark.parametrize(("method", "tail"), [("get", ""), ("post", "acknowledge/"), ("post", "retry-items/")])
def test_a_failure_outside_the_scope_is_not_there(client, analyst, other, method, tail):
    job = failed_job(other)
    job.refresh_from_db()
    client.force_login(analyst)
    assert getattr(client, method)(f"/failures/{job.failure}/{tail}").status_code == 404
    assert FailureGroup.objects.get().acknowledged_at is None


def test_failed_items_of_several_jobs_are_taken_up_together(client, analyst):
    jobs = [job_with_failed_items(analyst, f"https://example.net/{n}") for n in range(3)]
    failure = jobs[0].items.get().failure
    client.force_login(analyst)
    client.post(f"/failures/{failure}/retry-items/")
    assert set(Job.objects.filter(status=Status.PENDING).values_list("continues_id", flat=True)) == {job.pk for job in jobs}
    assert "No failure needs you" in client.get("/failures/").content.decode()


def test_the_failed_jobs_are_retried_after_a_question(client, analyst):
    jobs = [failed_job(analyst) for _ in range(2)]
    failed_job(analyst, "Another thing")
    jobs[0].refresh_from_db()
    client.force_login(analyst)
    said = {"query": f"failure={jobs[0].failure}&state=failed", "everything": "1", "action": "retry"}
    assert "Retry 2 jobs?" in client.post("/jobs/bulk/", said).content.decode()
    client.post("/jobs/bulk/", {**said, "confirmed": "1"})
    assert set(Job.objects.filter(status=Status.PENDING)) == set(jobs)


def test_one_unread_notification_tells_of_all_jobs_that_failed_alike(client, analyst, other):
    for _ in range(3):
        failed_job(analyst)
    failed_job(other)
    [row] = Notification.objects.filter(user=analyst)
    assert (row.count, row.text) == (3, "3 jobs failed in the same way: example.org does not answer in 30 s")
    assert row.get_absolute_url() == f"/failures/{row.failure}/"
    client.force_login(analyst)
    client.post("/notifications/")
    failed_job(analyst)
    assert Notification.objects.filter(user=analyst).count() == 2


def test_a_link_to_what_was_taken_up_since_is_a_page(client, analyst, other):
    jobs = [failed_job(analyst) for _ in range(2)]
    [told] = Notification.objects.filter(user=analyst)
    for job in jobs:
        JobManager().retry_job(job.pk, by=analyst)
        JobManager().start([job.pk], worker_id="w", host="h")
    client.force_login(analyst)
    assert "Nothing of it needs anybody" in client.get(told.get_absolute_url()).content.decode()
    client.force_login(other)
    assert client.get(told.get_absolute_url()).status_code == 404


def test_the_one_job_that_needs_people_is_shown_not_one_that_was_taken_up(client, analyst):
    first, second = failed_job(analyst), failed_job(analyst)
    Job.objects.filter(pk=JobManager().create_job("sample_steps", created_by=analyst).pk).update(continues_id=second.pk)
    client.force_login(analyst)
    assert f'class="name" href="{first.get_absolute_url()}"' in client.get("/").content.decode()
    first.refresh_from_db()
    said = {"query": f"open_failure={first.failure}", "everything": "1", "action": "retry"}
    assert "Retry 1 job?" in client.post("/jobs/bulk/", said).content.decode()


def test_items_of_jobs_that_did_not_complete_are_no_trouble_of_their_own(analyst):
    for end in ("cancel", "run"):
        job = JobManager().create_job("sample_items", parameters={"total": 10}, created_by=analyst)
        JobManager().start([job.pk], worker_id="w", host="h")
        JobManager().record_items(job.pk, [(end, "failed", "transient", "No answer")], attempt=1)
        if end == "cancel":
            JobManager().cancel_job(job.pk, by=analyst)
            JobManager().mark_cancelled(job.pk, attempt=1)
    assert failures.troubles(Job.objects.all()) == []


def test_two_kinds_of_failure_in_one_job_are_told_apart(client, analyst):
    job = JobManager().create_job("sample_items", parameters={"total": 10}, created_by=analyst)
    JobManager().start([job.pk], worker_id="w", host="h")
    rows = [("a", "failed", "transient", "No answer"), ("b", "failed", "input", "Not readable")]
    JobManager().record_items(job.pk, rows, attempt=1)
    JobManager().mark_completed(job.pk, {"done": 8, "failed": 2}, attempt=1)
    client.force_login(analyst)
    sentences = re.findall(r'<span class="sentence" title="([^"]*)">', client.get("/").content.decode())
    assert {"No answer", "Not readable"} <= set(sentences)


def test_what_failed_before_there_were_fingerprints_gets_one(analyst):
    job = failed_job(analyst)
    job.refresh_from_db()
    fingerprint = job.failure
    Job.objects.update(failure="")
    FailureGroup.objects.all().delete()
    import_module("jobs.migrations.0006_search").mark_what_failed(apps)
    job.refresh_from_db()
    assert job.failure == fingerprint
    assert [t.jobs for t in failures.troubles(Job.objects.all())] == [1]


def test_the_queries_of_the_pages_do_not_grow_with_the_failures(client, analyst, django_assert_max_num_queries):
    client.force_login(analyst)
    for n in range(12):
        failed_job(analyst, f"Trouble {'abcdefghijkl'[n]}")
        job_with_failed_items(analyst, f"https://host{n}.example/")
    with django_assert_max_num_queries(12):
        client.get("/failures/")
