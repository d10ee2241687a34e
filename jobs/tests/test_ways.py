"""What people can do with a job that failed, waits, runs or was cancelled: by page and API, one and many."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from rest_framework.authtoken.models import Token

from jobs import conf, items
from jobs.errors import InvalidParameters, Kind, TransientError
from jobs.manager import JobManager, Wish
from jobs.models import Job, JobItem
from jobs.recovery import ErrorRecoveryService
from jobs.states import Priority, Status
from jobs.tests.fixtures import create, reload, status_of
from jobs.ways import ways_out


def begun(analyst, job_type="sample_items", **options):
    job = create(job_type, created_by=analyst, **options)
    JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    return reload(job)


def failed(analyst, kind=Kind.UNKNOWN, message="It broke", **options):
    job = begun(analyst, **options)
    JobManager().mark_failed(job.pk, message, attempt=1, kind=kind)
    return reload(job)


@pytest.fixture
def api(analyst):
    client = Client(headers={"authorization": f"Token {Token.objects.create(user=analyst).key}"})
    return lambda path, body=None: client.post(f"/api/jobs/{path}", body or {}, content_type="application/json")


class TestRetry:
    def test_what_is_done_is_kept_and_what_failed_is_taken_up(self, analyst):
        job = begun(analyst)
        items.record(job.pk, 1, "a", "ok")
        items.record(job.pk, 1, "b", "failed", Kind.PERMANENT, "x")
        JobManager().mark_failed(job.pk, "It broke", attempt=1)
        JobManager().retry_job(job.pk, by=analyst)
        assert items.settled(job.pk) == {"a": "ok"}

    def test_other_parameters_begin_from_the_start(self, analyst):
        job = begun(analyst)
        items.record(job.pk, 1, "a", "ok")
        items.keep_checkpoint(job.pk, 1, "at", 1)
        JobManager().mark_failed(job.pk, "It broke", attempt=1)
        row = JobManager().retry_job(job.pk, by=analyst, parameters={"total": 3})
        assert (row.parameters["total"], row.total_steps, items.settled(job.pk), row.completed_steps) == (3, 3, {}, 0)
        assert items.checkpoint_of(job.pk, "at") is None
        assert row.logs.last().message == "Retry asked for by ortega, with other parameters"

    def test_wrong_parameters_change_nothing(self, analyst):
        job = failed(analyst)
        with pytest.raises(InvalidParameters):
            JobManager().retry_job(job.pk, parameters={"total": "many"})
        assert reload(job).revision == job.revision

    @pytest.mark.parametrize(
        "limits",
        [{"memory_limit_mb": 1}, {"memory_limit_mb": -5}, {"memory_limit_mb": 10**9}, {"time_limit_s": 0}, {"cpu_limit_s": 10**12}],
    )
    def test_limits_that_make_no_sense_are_named(self, analyst, api, limits):
        job = failed(analyst)
        with pytest.raises(InvalidParameters, match="Must be a whole number from"):
            JobManager().retry_job(job.pk, **limits)
        response = api(f"{job.pk}/retry", limits)
        assert response.status_code == 400
        assert next(iter(limits)) in response.content.decode()
        assert api("", {"job_type": "sample_steps", **limits}).status_code == 400
        assert Job.objects.get() == job
        assert reload(job).revision == job.revision

    def test_a_limit_above_that_of_the_type_takes_a_right(self, analyst, api):
        job = failed(analyst, job_type="sample_eater")
        response = api(f"{job.pk}/retry", {"memory_limit_mb": 4096})
        assert response.status_code == 409
        assert "up to 2,048 MB" in response.json()["detail"]
        analyst.user_permissions.add(Permission.objects.get(codename="raise_limits"))
        assert api(f"{job.pk}/retry", {"memory_limit_mb": 4096}).status_code == 200
        assert reload(job).memory_limit_mb == 4096

    def test_a_new_job_cannot_pass_its_limits_either(self, analyst, api):
        response = api("", {"job_type": "sample_eater", "memory_limit_mb": 4096})
        assert response.status_code in (400, 409)
        assert not Job.objects.exists()


class TestOnlyWhatFailed:
    def test_a_new_job_for_just_those_items(self, analyst, api):
        job = begun(analyst, parameters={"total": 3})
        items.record(job.pk, 1, "item 1", "ok")
        for key in ("item 2", "item 3"):
            items.record(job.pk, 1, key, "failed", Kind.TRANSIENT, "No answer")
        assert api(f"{job.pk}/retry_items").status_code == 409  # it runs
        JobManager().mark_completed(job.pk, {}, attempt=1)
        response = api(f"{job.pk}/retry_items")
        assert response.status_code == 201
        new = Job.objects.exclude(pk=job.pk).get()
        assert response["Location"] == f"/api/jobs/{new.pk}"
        assert (new.parameters["only"], new.continues_id, new.total_steps) == (["item 2", "item 3"], job.pk, 2)
        assert status_of(job) == Status.COMPLETED

    def test_without_a_failed_item_there_is_nothing_to_retry(self, analyst, api):
        job = begun(analyst)
        JobManager().mark_completed(job.pk, {}, attempt=1)
        assert "No item of this job failed" in api(f"{job.pk}/retry_items").json()["detail"]
        assert Job.objects.count() == 1


class TestContinue:
    def test_a_cancelled_job_is_taken_on_from_what_it_had_done(self, analyst, api):
        job = begun(analyst)
        items.record(job.pk, 1, "item 1", "ok")
        items.record(job.pk, 1, "item 2", "failed", Kind.TRANSIENT, "No answer")
        items.keep_checkpoint(job.pk, 1, "at", 2)
        assert api(f"{job.pk}/continue").status_code == 409
        JobManager().cancel_job(job.pk)
        JobManager().mark_cancelled(job.pk, attempt=1)
        assert api(f"{job.pk}/continue").status_code == 201
        new = Job.objects.exclude(pk=job.pk).get()
        assert new.continues_id == job.pk
        assert items.settled(new.pk) == {"item 1": "skipped"}
        assert items.checkpoint_of(new.pk, "at") == 2
        assert status_of(job) == Status.CANCELLED


class TestRunNow:
    def test_the_next_try_is_brought_forward(self, analyst, api):
        job = begun(analyst)
        ErrorRecoveryService().handle_job_failure(job, TransientError("away"))
        assert reload(job).run_after > timezone.now()
        assert api(f"{job.pk}/run_now").status_code == 200
        assert reload(job).run_after <= timezone.now()
        assert api(f"{job.pk}/run_now").status_code == 409


class TestPause:
    def test_a_waiting_job_is_held_until_it_is_resumed(self, analyst, api):
        job = create("sample_items", created_by=analyst)
        assert api(f"{job.pk}/pause", {"reason": "lunch"}).status_code == 200
        row = reload(job)
        assert (row.status, row.hold_reason) == (Status.PENDING, "Paused by ortega: lunch")
        assert JobManager().start([job.pk], worker_id="atlas-1", host="atlas") is None
        assert JobManager().hold([job.pk], "Waits for memory") == 0
        assert api(f"{job.pk}/pause").status_code == 409
        assert api(f"{job.pk}/resume").status_code == 200
        assert api(f"{job.pk}/resume").status_code == 409
        assert JobManager().start([job.pk], worker_id="atlas-1", host="atlas") is not None

    def test_a_running_one_is_asked_and_stays_paused(self, analyst):
        manager, job = JobManager(), begun(analyst)
        assert manager.wish(job.pk, attempt=1) is Wish.NONE
        assert manager.pause_job(job.pk, by=analyst) is True
        assert manager.pause_job(job.pk, by=analyst) is False
        assert manager.heartbeat(job.pk, attempt=1) is Wish.PAUSE
        assert manager.mark_paused(job.pk, attempt=1) is True
        row = reload(job)
        assert (row.status, row.hold_reason, row.retry_count) == (Status.PENDING, "Paused by ortega", 0)
        assert row.attempts.get().outcome == "paused"

    def test_a_pause_that_is_taken_back_in_time(self, analyst):
        manager, job = JobManager(), begun(analyst)
        manager.pause_job(job.pk, by=analyst)
        assert manager.resume_job(job.pk, by=analyst) is True
        assert manager.wish(job.pk, attempt=1) is Wish.NONE

    def test_what_made_way_goes_on_by_itself_unless_a_person_paused_it(self, analyst):
        manager, urgent = JobManager(), create(name="Now!", priority=Priority.URGENT)
        for by, hold in ((None, ""), (analyst, "Paused by ortega")):
            job = begun(analyst)
            manager.make_way(job.pk, urgent)
            if by:
                assert manager.pause_job(job.pk, by=by) is True
            manager.mark_paused(job.pk, attempt=1)
            assert reload(job).hold_reason == hold

    def test_a_type_that_keeps_no_checkpoints_says_so(self, analyst, api):
        job = begun(analyst, "sample_steps")
        response = api(f"{job.pk}/pause")
        assert response.status_code == 409
        assert "keeps no checkpoints" in response.json()["detail"]

    def test_a_cancel_is_stronger_than_a_pause(self, analyst):
        manager, job = JobManager(), begun(analyst)
        manager.pause_job(job.pk, by=analyst)
        assert manager.cancel_job(job.pk, by=analyst) is True
        assert manager.wish(job.pk, attempt=1) is Wish.CANCEL
        assert manager.mark_paused(job.pk, attempt=1) is False
        assert manager.mark_cancelled(job.pk, attempt=1) is True
        assert reload(job).pause_requested_at is None


class TestWays:
    """The likeliest first, and each is accepted where it is offered."""

    def keys(self, job, user):
        return [way.key for way in ways_out(job, user)]

    def test_by_the_kind_of_error(self, analyst):
        for kind in (Kind.TRANSIENT, Kind.UNKNOWN, Kind.LOST):
            assert self.keys(failed(analyst, kind), analyst)[0] == "retry", kind
        assert self.keys(scrape_that_failed(analyst), analyst)[0] == "other_parameters"

    def test_over_a_limit_twice_as_much_is_offered_to_whom_it_may_be_given(self, analyst):
        job = failed(analyst, Kind.LIMIT, "Needed more memory than the 64 MB it may use", job_type="sample_eater")
        [way, *_] = ways_out(job, analyst)
        assert (way.key, way.values, way.label) == ("raise_limit", {"memory_limit_mb": 128}, "Continue with 128 MB of memory")
        Job.objects.filter(pk=job.pk).update(memory_limit_mb=2048)
        assert "raise_limit" not in self.keys(reload(job), analyst)
        analyst.user_permissions.add(Permission.objects.get(codename="raise_limits"))
        assert self.keys(reload(job), User.objects.get(pk=analyst.pk))[0] == "raise_limit"

    def test_a_job_between_two_tries_can_be_tried_now_or_given_up(self, analyst):
        job = begun(analyst)
        ErrorRecoveryService().handle_job_failure(job, TransientError("away"))
        assert self.keys(reload(job), analyst) == ["run_now", "give_up"]

    def test_a_cancelled_one_can_be_continued_and_a_running_one_needs_nothing(self, analyst):
        job = begun(analyst)
        assert self.keys(job, analyst) == []
        JobManager().cancel_job(job.pk)
        JobManager().mark_cancelled(job.pk, attempt=1)
        assert self.keys(reload(job), analyst) == ["continue"]


def between_tries(analyst):
    job = begun(analyst)
    ErrorRecoveryService().handle_job_failure(job, TransientError("away"))
    return reload(job)


def half_done(analyst):
    job = begun(analyst)
    items.record(job.pk, 1, "item 1", "ok")
    items.record(job.pk, 1, "item 2", "failed", Kind.TRANSIENT, "No answer")
    JobManager().update_progress(job.pk, 50, "x", attempt=1, problem_count=1)
    JobManager().mark_completed(job.pk, {}, attempt=1)
    return reload(job)


def cancelled(analyst):
    job = begun(analyst)
    JobManager().cancel_job(job.pk)
    JobManager().mark_cancelled(job.pk, attempt=1)
    return reload(job)


def paused(analyst):
    job = create("sample_items", created_by=analyst)
    JobManager().pause_job(job.pk, by=analyst)
    return reload(job)


def scrape_that_failed(analyst):
    return failed(analyst, Kind.PERMANENT, "No such page", job_type="web_scraping", parameters={"urls": ["https://1.1.1.1/"]})


OFFERED = {
    failed: {"retry"},
    lambda analyst: failed(analyst, Kind.LIMIT, "Ran longer than the 5 s it may", time_limit_s=5): {"raise_limit"},
    lambda analyst: failed(analyst, Kind.LIMIT, "Needed more memory", job_type="sample_eater"): {"raise_limit"},
    scrape_that_failed: {"other_parameters", "retry"},
    between_tries: {"run_now", "give_up"},
    half_done: {"retry_items"},
    cancelled: {"continue"},
    paused: {"resume"},
}


@pytest.mark.parametrize("make", OFFERED)
def test_every_way_that_is_offered_is_accepted(make, analyst, client):
    client.force_login(analyst)
    analyst = User.objects.get(pk=analyst.pk)
    ways = {way.key for way in ways_out(make(analyst), analyst)}
    assert ways == OFFERED[make]
    for key in ways:
        job = make(analyst)
        [way] = [way for way in ways_out(job, analyst) if way.key == key]
        assert way.label in client.get(job.get_absolute_url()).content.decode()
        if way.method == "POST":
            response = client.post(way.url, way.values, follow=True)
            [said] = [str(message) for message in response.context["messages"]]
            assert "Nothing was changed" not in said, way
        else:
            assert client.get(way.url).status_code == 200


class TestBulk:
    @pytest.fixture
    def page(self, analyst):
        client = Client()
        client.force_login(analyst)
        return client

    def test_the_count_is_shown_before_and_the_outcome_of_each_after(self, analyst, page):
        waiting, done = create(created_by=analyst, name="Waits"), begun(analyst, name="Is done")
        JobManager().mark_completed(done.pk, {}, attempt=1)
        chosen = {"action": "cancel", "job": [str(waiting.pk), str(done.pk)]}
        before = page.post("/jobs/bulk/", chosen).content.decode()
        assert "2 jobs" in before
        assert status_of(waiting) == Status.PENDING
        after = page.post("/jobs/bulk/", {**chosen, "confirmed": "1", "reason": "wrong site"}).content.decode()
        assert (status_of(waiting), reload(waiting).cancel_reason) == (Status.CANCELLED, "wrong site")
        assert "Had ended already: completed" in after

    def test_all_that_a_filter_matches(self, analyst, other, page):
        mine = [failed(analyst, job_type="sample_steps") for _ in range(3)]
        theirs, running = failed(other), begun(analyst)
        page.post("/jobs/bulk/", {"action": "retry", "everything": "1", "query": "state=failed", "confirmed": "1"})
        assert {status_of(job) for job in mine} == {Status.PENDING}
        assert (status_of(theirs), status_of(running)) == (Status.FAILED, Status.RUNNING)

    @pytest.mark.parametrize(
        "sent, says",
        [
            ({"action": "delete"}, "not known"),
            ({"action": "cancel"}, "No job was chosen"),
            ({"action": "cancel", "job": ["x"]}, "no proper id"),
            ({"action": "cancel", "everything": "1", "query": "state=failed"}, "No job matches"),
            ({"action": "cancel", "everything": "1", "query": "state=wild"}, ""),
        ],
    )
    def test_what_makes_no_sense_changes_nothing(self, analyst, page, sent, says):
        job = create(created_by=analyst)
        response = page.post("/jobs/bulk/", {**sent, "confirmed": "1"}, follow=True)
        [message] = [str(m) for m in response.context["messages"]]
        assert says in message
        assert message.endswith("Nothing was changed.")
        assert status_of(job) == Status.PENDING

    def test_by_the_api(self, analyst, other, api):
        jobs, theirs = [create(created_by=analyst) for _ in range(3)], create(created_by=other)
        body = {"action": "cancel", "filter": {"state": "waiting"}, "dry_run": True}
        assert api("bulk", body).json()["matched"] == 3
        assert {status_of(job) for job in jobs} == {Status.PENDING}
        answer = api("bulk", {**body, "dry_run": False}).json()
        assert (answer["matched"], answer["done"], len(answer["outcomes"])) == (3, 3, 3)
        assert status_of(theirs) == Status.PENDING
        assert api("bulk", body).status_code == 409
        assert api("bulk", {"action": "cancel", "filter": {"state": "wild"}}).status_code == 400
        assert api("bulk", {"action": "cancel", "filter": {"colour": "red"}}).status_code == 400
        assert api("bulk", {"action": "cancel"}).status_code == 400
        assert api("bulk", {"action": "cancel", "ids": [str(theirs.pk)]}).status_code == 409
        assert status_of(theirs) == Status.PENDING

    @pytest.mark.parametrize("total", [2, 3])
    def test_by_the_api_with_words_that_more_jobs_have_than_are_found(self, analyst, api, monkeypatch, total):
        monkeypatch.setattr("jobs.search.HITS_MAX", 2)
        for _ in range(total):
            create(created_by=analyst)
        answer = api("bulk", {"action": "cancel", "filter": {"q": "sample"}, "dry_run": True}).json()
        assert (answer["matched"], answer["more"]) == (2, total == 3)

    def test_no_more_than_a_stated_number(self, analyst, page, monkeypatch):
        monkeypatch.setitem(conf.DEFAULTS, "bulk_max", 2)
        for _ in range(3):
            create(created_by=analyst)
        page.post("/jobs/bulk/", {"action": "cancel", "everything": "1", "query": "", "confirmed": "1"})
        assert Job.objects.filter(status=Status.CANCELLED).count() == 2


def test_keep_protects_and_says_so(analyst, api):
    job = begun(analyst)
    assert api(f"{job.pk}/keep", {"keep": True}).status_code == 200
    assert api(f"{job.pk}/keep", {"keep": True}).status_code == 409
    assert reload(job).keep is True
    assert api(f"{job.pk}/keep", {"keep": False}).status_code == 200


def test_item_marks_are_no_business_of_a_waiting_job(analyst):
    job = create("sample_items", created_by=analyst)
    assert items.record(job.pk, 0, "a", JobItem.Outcome.OK) is False
