"""Jobs that depend on jobs, and groups of them."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs import archive
from jobs.errors import InvalidParameters, Kind, NotAllowed
from jobs.manager import JobManager, current_jobs
from jobs.models import Job, JobGroup, Notification
from jobs.notifications import JobNotificationService
from jobs.presentation import group_state
from jobs.states import Status
from jobs.tests.fixtures import reload, status_of
from jobs.ways import ways_out

pytestmark = pytest.mark.django_db


def make(by, **options):
    return JobManager().create_job("sample_steps", parameters={"total": 4}, created_by=by, **options)


def start(job):
    return JobManager().start([job.pk], worker_id="atlas-1", host="atlas")


def complete(job):
    assert start(job), job.hold_reason
    assert JobManager().mark_completed(job.pk, {"steps": 4})


def fail(job):
    assert start(job)
    assert JobManager().mark_failed(job.pk, "No answer", kind=Kind.PERMANENT)


@pytest.fixture
def chain(analyst):
    """Scrape → read → (compare, date) → report, as one group."""
    group = JobManager().create_group("Investigate", created_by=analyst)
    scrape = make(analyst, name="Scrape", group=group)
    read = make(analyst, name="Read", group=group, depends_on=[scrape.pk])
    compare = make(analyst, name="Compare", group=group, depends_on=[read.pk])
    date = make(analyst, name="Date", group=group, depends_on=[read.pk], run_if_failed=True)
    report = make(analyst, name="Report", group=group, depends_on=[compare.pk, date.pk])
    return group, (scrape, read, compare, date, report)


def test_a_job_is_held_until_all_that_it_needs_are_complete(chain):
    _, (scrape, read, compare, date, report) = chain
    assert (report.hold_reason, report.blocked_by) == ("Waits for “Compare” and 1 more", 2)
    assert start(read) is None
    complete(scrape)
    complete(read)
    complete(date)
    assert (reload(report).hold_reason, reload(report).blocked_by) == ("Waits for “Compare”", 1)
    complete(compare)
    assert (reload(report).hold_reason, reload(report).blocked_by) == ("", 0)
    complete(report)


def test_the_tick_does_not_release_what_waits_for_others(chain):
    report = chain[1][-1]
    JobManager().hold([report.pk], "")
    assert reload(report).hold_reason == "Waits for “Compare” and 1 more"


def test_a_failure_for_good_cancels_what_needs_it_with_the_reason(chain):
    group, (scrape, read, compare, date, report) = chain
    fail(scrape)
    assert [status_of(job) for job in (read, compare, report)] == [Status.CANCELLED] * 3
    assert reload(read).cancel_reason == "“Scrape”, which it depends on, failed"
    assert reload(compare).cancel_reason == "“Read”, which it depends on, was cancelled"
    # the one that may run anyway is due
    assert (status_of(date), reload(date).hold_reason) == (Status.PENDING, "")
    complete(date)
    group.refresh_from_db()
    assert group.completed_at is not None


def test_a_try_that_is_tried_again_holds_on(chain):
    _, (scrape, read, *_) = chain
    start(scrape)
    JobManager().mark_failed(scrape.pk, "No answer", kind=Kind.TRANSIENT, retry_at=timezone.now())
    assert (status_of(read), reload(read).blocked_by) == (Status.PENDING, 1)


def test_paused_and_resumed_it_still_waits(chain, analyst):
    _, (scrape, read, *_) = chain
    assert JobManager().pause_job(read.pk, by=analyst)
    assert JobManager().resume_job(read.pk, by=analyst)
    assert reload(read).hold_reason == "Waits for “Scrape”"
    JobManager().pause_job(read.pk, by=analyst)
    complete(scrape)
    assert (reload(read).blocked_by, reload(read).hold_reason) == (0, "Paused by ortega")
    JobManager().resume_job(read.pk, by=analyst)
    complete(read)


def test_what_has_ended_badly_cannot_be_needed(analyst):
    failed = make(analyst, name="Lost")
    fail(failed)
    with pytest.raises(InvalidParameters, match="“Lost” is failed, so it will never be complete"):
        make(analyst, depends_on=[failed.pk])
    assert make(analyst, depends_on=[failed.pk], run_if_failed=True).hold_reason == ""
    done = make(analyst)
    complete(done)
    assert make(analyst, depends_on=[done.pk]).blocked_by == 0


def test_a_group_tells_once_at_its_end(chain, analyst):
    group, jobs = chain
    for job in jobs:
        complete(job)
    row = Notification.objects.get(user=analyst)
    assert (row.group, row.status, row.mail_due_at) == (group, Status.COMPLETED, None)
    assert row.text.startswith("Investigate: ")
    assert row.get_absolute_url() == f"/groups/{group.pk}/"


def test_a_failed_group_tells_once_and_by_mail(chain, analyst, mailoutbox):
    group, (scrape, _, _, date, _) = chain
    fail(scrape)
    complete(date)
    row = Notification.objects.get(user=analyst)
    assert (row.group, row.status) == (group, Status.FAILED)
    assert row.text == "Investigate: 1 of 5 jobs done · Scrape: No answer"
    assert JobNotificationService().send_due_mail() == 1
    assert mailoutbox[0].subject == "Failed: Investigate"
    assert "Scrape: No answer" in mailoutbox[0].body


def test_progress_of_a_group_is_the_mean_of_its_jobs(chain):
    group, (scrape, read, *_) = chain
    complete(scrape)
    start(read)
    JobManager().update_progress(read.pk, 50.0, "Reading")
    state = group_state(group)
    assert (state.percent, state.badge.label) == (30.0, "Running")
    assert state.sentence.startswith("1 of 5 jobs done · Read: Reading")


def test_cancel_acts_on_the_whole_group(chain, analyst):
    group, jobs = chain
    complete(jobs[0])
    start(jobs[1])
    assert JobManager().cancel_group(group, by=analyst) == 4
    assert [status_of(job) for job in jobs[2:]] == [Status.CANCELLED] * 3
    assert reload(jobs[1]).cancel_requested_at is not None
    assert JobManager().mark_cancelled(jobs[1].pk, attempt=1)
    group.refresh_from_db()
    assert group.completed_at is not None
    assert not Notification.objects.exists()


def test_retry_takes_up_what_failed_and_what_was_cancelled_for_it(chain, analyst):
    group, (scrape, read, _compare, date, report) = chain
    fail(scrape)
    with pytest.raises(NotAllowed, match="not over yet"):
        JobManager().retry_group(group, by=analyst)
    complete(date)
    taken_up = JobManager().retry_group(group, by=analyst)
    assert [job.name for job in taken_up] == ["Scrape", "Read", "Compare", "Date", "Report"]
    current = list(current_jobs(group))
    assert (len(current), group.jobs.count()) == (5, 9)
    assert scrape in current
    assert date not in current, "it was complete, but made without what is taken up"
    assert read not in current
    assert report not in current
    group.refresh_from_db()
    assert group.completed_at is None
    while waiting := [job for job in current_jobs(group) if job.status == Status.PENDING]:
        complete(next(job for job in waiting if not job.hold_reason))
    group.refresh_from_db()
    assert group.completed_at is not None
    assert group_state(group).badge.label == "Completed"
    assert Notification.objects.filter(group=group, status=Status.COMPLETED).count() == 1
    with pytest.raises(NotAllowed, match="None of its jobs"):
        JobManager().retry_group(group, by=analyst)


def test_pages_and_api_of_a_group(chain, client, analyst, other):
    group, (scrape, *_) = chain
    client.force_login(analyst)
    page = client.get(group.get_absolute_url()).content.decode()
    assert "Cancel all of it" in page
    assert "Waits for “Scrape”" in page
    detail = client.get(scrape.get_absolute_url()).content.decode()
    assert f'href="{group.get_absolute_url()}"' in detail
    found = client.get(f"/api/groups/{group.pk}").json()
    assert (found["state"], len(found["jobs"]), found["progress_percent"]) == ("Waiting", 5, 0.0)
    client.force_login(other)
    for address in (group.get_absolute_url(), f"/api/groups/{group.pk}", "/api/groups/no-id"):
        assert client.get(address).status_code == 404, address
    assert client.post(reverse("group-cancel", args=[group.pk])).status_code == 404
    assert client.post(f"/api/groups/{group.pk}/cancel").status_code == 404
    client.force_login(analyst)
    assert client.post(f"/api/groups/{group.pk}/retry").status_code == 409
    assert client.post(reverse("group-cancel", args=[group.pk]), follow=True).status_code == 200
    assert client.post(f"/api/groups/{group.pk}/cancel", {}, content_type="application/json").status_code == 409
    assert client.post(reverse("group-retry", args=[group.pk]), follow=True).status_code == 200
    assert JobGroup.objects.get(pk=group.pk).completed_at is None


def test_a_job_over_the_api_may_depend_only_on_what_one_sees(client, analyst, other):
    theirs, mine = make(other), make(analyst)
    client.force_login(analyst)

    def post(**body):
        return client.post("/api/jobs", {"job_type": "sample_steps", "parameters": {"total": 1}, **body}, content_type="application/json")

    wrong = post(depends_on=[str(theirs.pk)])
    assert (wrong.status_code, "There is no job" in str(wrong.json()["errors"]["depends_on"])) == (400, True)
    good = post(depends_on=[str(mine.pk)])
    assert good.status_code == 201, good.content
    assert good.json()["depends_on"] == [str(mine.pk)]
    assert good.json()["state"] == "Held"
    assert Job.objects.get(pk=good.json()["id"]).blocked_by == 1
    fail(mine)
    late = post(depends_on=[str(mine.pk)])
    assert (late.status_code, "depends_on" in late.json()["errors"]) == (400, True)


def test_dependencies_survive_the_archive(chain):
    group, jobs = chain
    for job in jobs:
        complete(job)
    assert archive.clean_up({Status.COMPLETED: 0}, now=timezone.now() + timedelta(days=1)).jobs == 5
    assert not Job.objects.exists()
    archive.restore([job.pk for job in jobs])
    report = Job.objects.get(pk=jobs[-1].pk)
    assert report.group == group
    assert {d.needs_id for d in report.dependencies.all()} == {jobs[2].pk, jobs[3].pk}


def test_a_single_retry_in_a_group_is_told_of(chain, analyst):
    group, (scrape, _, _, date, _) = chain
    fail(scrape)
    complete(date)
    assert [way.key for way in ways_out(reload(scrape), analyst)][:2] == ["retry_group", "retry"]
    JobManager().retry_job(scrape.pk, by=analyst)
    complete(scrape)
    assert group_state(group).badge.label == "Cancelled", "the others stay cancelled"
    assert Notification.objects.filter(status=Status.COMPLETED, group=group).count() == 1
