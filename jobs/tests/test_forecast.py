"""When a waiting job is likely to start, and when a running one is stalled."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.forecast import place_of, usual
from jobs.manager import JobManager
from jobs.models import Job, Notification, WorkerProcess
from jobs.notifications import JobNotificationService
from jobs.presentation import is_slower, sentence
from jobs.states import Priority, Status
from jobs.tests.fixtures import Gate, reload, status_of, wait_for

pytestmark = pytest.mark.django_db


def history(seconds, count=3, steps=4):
    """Completed jobs that took so long."""
    now = timezone.now()
    for _ in range(count):
        job = JobManager().create_job("sample_steps", parameters={"total": steps})
        Job.objects.filter(pk=job.pk).update(  # the history of a machine, not a transition
            status=Status.COMPLETED, started_at=now - timedelta(seconds=seconds), completed_at=now, completed_steps=steps
        )


def workers(count, queue="default"):
    for n in range(count):
        WorkerProcess.objects.create(name=f"w-{n}", queue_name=queue, host="h", pid=n + 1, cluster="0" * 32)


def waiting(count=1, **options):
    return [JobManager().create_job("sample_steps", parameters={"total": 4}, **options) for _ in range(count)]


def test_a_step_takes_what_it_took_before():
    assert usual("sample_steps") is None
    history(40, count=2)
    assert usual("sample_steps") is None
    history(80, count=3)
    found = usual("sample_steps")
    assert (found.job_s, found.step_s) == (80, 20)
    [job] = waiting()
    assert found.of(job) == 80


def test_without_history_or_workers_no_time_is_invented():
    jobs = waiting(2)
    assert (place_of(jobs[1]).number, place_of(jobs[1]).of, place_of(jobs[1]).starts_in_s) == (2, 2, None)
    history(60)
    assert place_of(jobs[1]).starts_in_s is None
    workers(1)
    assert place_of(jobs[1]).starts_in_s == pytest.approx(60)


def test_the_jobs_before_are_shared_out_among_the_workers():
    history(60)
    workers(2)
    jobs = waiting(5)
    assert [round(place_of(job).starts_in_s) for job in jobs] == [0, 0, 60, 60, 120]
    urgent = waiting(priority=Priority.URGENT)[0]
    assert place_of(urgent).number == 1
    assert place_of(jobs[0]).number == 2


def test_what_is_left_of_running_jobs_counts():
    history(60)
    workers(1)
    first, second = waiting(2)
    JobManager().start([first.pk], worker_id="w-0", host="h")
    now = timezone.now() + timedelta(seconds=20)
    assert place_of(second, now).starts_in_s == pytest.approx(40, abs=1)
    JobManager().update_progress(first.pk, 50, attempt=1, estimated_duration=200.0)
    assert place_of(second, now).starts_in_s == pytest.approx(180, abs=1)


@pytest.mark.parametrize("change", [{"hold_reason": "Waits for memory"}, {"status": Status.RUNNING}, {"run_after": None}])
def test_only_a_job_that_waits_for_a_worker_has_a_place(job, change):
    for name, value in change.items():
        setattr(job, name, value or timezone.now() + timedelta(minutes=1))
    assert place_of(job) is None


def test_the_page_says_it(client, analyst):
    history(90)
    workers(1)
    jobs = waiting(3, created_by=analyst)
    client.force_login(analyst)
    assert "next in line, starts at once" in client.get(jobs[0].get_absolute_url()).content.decode()
    assert "3 of 3 in line, likely to start in about 3 min" in client.get(jobs[2].get_absolute_url()).content.decode()


def test_a_running_job_says_that_it_is_slower_than_usual(running_job):
    history(40)  # a step takes ten seconds
    running_job.completed_steps, running_job.total_steps = 5, 40
    for seconds, says in ((60, False), (74, False), (76, True)):
        now = running_job.started_at + timedelta(seconds=seconds)
        assert sentence(running_job, now).endswith("slower than usual") is says
    running_job.completed_steps = 4
    assert not is_slower(running_job, running_job.started_at + timedelta(seconds=1000)), "four steps say too little"


def test_nothing_is_said_where_nothing_is_known(running_job):
    running_job.completed_steps = 5
    assert not is_slower(running_job, running_job.started_at + timedelta(seconds=1000))


def test_warnings_are_marked_in_the_chart(client, analyst, running_job):
    running_job.attempts.update(samples=[[0, 50, 10], [10, 60, 20], [20, 55, 10]])
    lines = [{"level": level, "message": text, "timestamp": running_job.started_at + timedelta(seconds=at)}
             for level, text, at in ((30, "Half way", 10), (20, "All is well", 12), (40, "Long after", 500))]  # fmt: skip
    JobManager().append_logs(running_job.pk, lines, attempt=1)
    client.force_login(analyst)
    text = client.get(running_job.get_absolute_url()).content.decode()
    marks = re.findall(r'<title>([^<]*)</title><line class="event" x1="([\d.]+)"', text)
    assert marks == [("Half way", "153.0")]


def test_a_stall_is_written_once_and_cleared_by_progress(running_job, analyst):
    assert JobManager().mark_stalled(running_job, 180)
    assert not JobManager().mark_stalled(running_job, 181)
    assert reload(running_job).stalled_at is not None
    assert running_job.logs.latest("seq").message == "No progress for 3 min 00 s"
    assert Notification.objects.get(user=analyst).text.endswith("No progress for 3 min 00 s")
    JobManager().update_progress(running_job.pk, 50, "Step 2", attempt=1)
    assert reload(running_job).stalled_at is None


def test_a_stall_does_not_swallow_the_news_of_the_end(running_job, analyst):
    JobManager().mark_stalled(running_job, 180)
    JobManager().mark_completed(running_job.pk, {}, attempt=1)
    assert set(Notification.objects.filter(user=analyst).values_list("status", flat=True)) == {Status.RUNNING, Status.COMPLETED}
    assert reload(running_job).stalled_at is None
    assert JobNotificationService().send_due_mail() == 0


def test_progress_that_came_first_wins_against_a_stall(running_job):
    JobManager().update_progress(running_job.pk, 50, "Step 2", attempt=1)
    assert not JobManager().mark_stalled(running_job, 180)


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
def test_a_job_that_stands_still_is_stalled_until_it_moves_on(tmp_path, analyst, client, start_cluster):
    start_cluster(stalled_min_s=0.5)
    gate = Gate(tmp_path / "gate")
    job = JobManager().create_job("sample_steps", parameters={"total": 2, "gate": str(gate)}, created_by=analyst)
    first = wait_for(lambda: reload(job).stalled_at, "the job to be stalled")
    client.force_login(analyst)
    assert job.name in client.get("/jobs/?state=stalled").content.decode()
    assert "1 stalled" in client.get("/").content.decode()
    gate.open_to(1)
    wait_for(lambda: reload(job).completed_steps == 1, "it to move on")
    wait_for(lambda: (reload(job).stalled_at or timezone.now()) > first, "it not to be stalled, or to be so anew")
    gate.open_to(2)
    wait_for(lambda: status_of(job) == Status.COMPLETED, "its end")
    assert reload(job).stalled_at is None
