"""Items and checkpoints: what is done once stays done, and people see what became of each."""

import csv
import io

import pytest
from django.db import transaction
from django.test import Client
from rest_framework.authtoken.models import Token

from jobs import items
from jobs.errors import JobCancelled, JobPaused, Kind
from jobs.manager import JobManager
from jobs.models import JobCheckpoint, JobItem
from jobs.tests.fixtures import create, reload
from jobs.tracker import ChildOutlet, ProgressTracker, SharedPage

Outcome = JobItem.Outcome


@pytest.fixture
def items_job(analyst):
    """A running job with one item of each outcome."""
    job = create("sample_items", created_by=analyst, parameters={"total": 10})
    JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    items.record(job.pk, 1, "a", Outcome.OK)
    items.record(job.pk, 1, "=b()", Outcome.FAILED, Kind.TRANSIENT, "No answer")
    items.record(job.pk, 1, "c", Outcome.SKIPPED, "", "Seen before")
    items.record(job.pk, 1, "d", Outcome.FAILED, Kind.PERMANENT, "Not found")
    return reload(job)


def test_each_item_has_one_outcome_and_what_is_done_stays_done(items_job):
    items.record(items_job.pk, 1, "=b()", Outcome.OK)
    items.record(items_job.pk, 1, "a", Outcome.FAILED, Kind.UNKNOWN, "too late")
    assert dict(items_job.items.values_list("key", "outcome")) == {"a": "ok", "=b()": "ok", "c": "skipped", "d": "failed"}
    assert items.counts(items_job.pk) == {"ok": 2, "failed": 1, "skipped": 1}


def test_a_later_attempt_looks_again_only_at_what_may_pass(items_job):
    assert items.settled(items_job.pk) == {"a": "ok", "c": "skipped", "d": "failed"}


def test_a_late_worker_writes_no_item(items_job):
    JobManager().put_back(items_job.pk, "a drain", attempt=1)
    assert items.record(items_job.pk, 1, "late", Outcome.OK) is False
    with pytest.raises(JobCancelled), transaction.atomic():
        items.done(items_job.pk, 1, "late")
    with pytest.raises(JobCancelled):
        items.keep_checkpoint(items_job.pk, 1, "at", 3)
    assert not items_job.items.filter(key="late").exists()


def test_a_handler_keeps_what_it_needs_for_its_next_attempt(items_job):
    tracker = ProgressTracker(items_job.pk, 10)
    assert tracker.restored("at", "nothing") == "nothing"
    for value in ({"page": 3}, [1, 2], None, "ü"):
        tracker.checkpoint("at", value)
        assert ProgressTracker(items_job.pk).restored("at") == value
    assert JobCheckpoint.objects.count() == 1


def test_an_output_and_its_mark_are_there_together_or_not_at_all(items_job):
    tracker = ProgressTracker(items_job.pk, 10)
    with pytest.raises(RuntimeError), transaction.atomic():
        tracker.done("e")
        raise RuntimeError
    assert not items_job.items.filter(key="e").exists()


@pytest.mark.parametrize("key", ["", "x" * 3000, "a\x00b", "\ud800", 7])
def test_a_key_that_cannot_be_kept_is_refused_in_words(items_job, key):
    with pytest.raises((ValueError, TypeError)):
        ProgressTracker(items_job.pk).done(key)
    assert items_job.items.count() == 4


@pytest.mark.django_db(transaction=True)
def test_a_pause_is_raised_at_a_checkpoint_after_its_transaction(items_job):
    """What the transaction holds is kept; a type without checkpoints is not disturbed."""
    page = SharedPage()
    page.ask_to_pause(True)
    tracker = ProgressTracker(items_job.pk, 10, attempt=1, outlet=ChildOutlet(page, -1, resumable=True))
    with pytest.raises(JobPaused), transaction.atomic():
        tracker.done("e")
    assert items_job.items.get(key="e").outcome == Outcome.OK
    with pytest.raises(JobPaused):
        tracker.update_step("next")
    page.ask_to_pause(False)
    tracker.update_step("goes on")
    page.ask_to_pause(True)
    ProgressTracker(items_job.pk, 10, outlet=ChildOutlet(page, -1)).update_step("keeps none")
    page.ask_to_cancel()
    page.ask_to_pause(True)
    with pytest.raises(JobCancelled):
        tracker.update_step("a cancel is stronger")


def test_the_page_filters_items_and_gives_them_as_csv(items_job, analyst, client):
    client.force_login(analyst)
    where = f"/jobs/{items_job.pk}/items/"
    text = client.get(where).content.decode()
    for shown in ("No answer", "Not found", "Seen before", "All", "Failed"):
        assert shown in text
    failed = client.get(f"{where}?outcome=failed").content.decode()
    assert "Not found" in failed
    assert "Seen before" not in failed
    assert "No item" in client.get(f"{where}?q=nothing-like-it").content.decode()
    response = client.get(f"/jobs/{items_job.pk}/items.csv?outcome=failed&q=ans")
    rows = list(csv.reader(io.StringIO(b"".join(response.streaming_content).decode())))
    assert rows[0] == ["item", "outcome", "kind", "reason", "attempt", "at"]
    assert [row[:5] for row in rows[1:]] == [["'=b()", "failed", "transient", "No answer", "1"]]


def test_the_api_gives_items_by_outcome_and_text(items_job, analyst):
    api = Client(headers={"authorization": f"Token {Token.objects.create(user=analyst).key}"})
    where = f"/api/jobs/{items_job.pk}/items"
    assert api.get(where).json()["count"] == 4
    [row] = api.get(f"{where}?outcome=failed&q=found").json()["results"]
    assert (row["key"], row["kind"], row["reason"]) == ("d", "permanent", "Not found")
    assert api.get(f"{where}?outcome=wild").status_code == 400
    assert api.get(f"/api/jobs/{items_job.pk}").json()["items"] == {"ok": 1, "failed": 2, "skipped": 1}


def test_a_job_with_failed_items_says_so_everywhere(items_job, analyst, client):
    JobManager().update_progress(items_job.pk, 50, "x", attempt=1, problem_count=37, total_steps=1000, completed_steps=1000)
    JobManager().mark_completed(items_job.pk, {}, attempt=1)
    client.force_login(analyst)
    for path in (f"/jobs/{items_job.pk}/", "/jobs/"):
        assert "37 of 1,000 failed" in client.get(path).content.decode(), path
    assert "37 of 1,000 failed" in client.get(f"/api/jobs/{items_job.pk}", headers={"accept": "application/json"}).json()["state"]
