"""What is slow, and what happened while one was away."""

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from jobs.bottlenecks import held_for, paces, share, slowest
from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import Status

pytestmark = pytest.mark.django_db


def completed(user, hours_ago, wait_s, run_s, count=5):
    for _ in range(count):
        job = JobManager().create_job("sample_steps", created_by=user)
        created = timezone.now() - timedelta(hours=hours_ago)
        started = created + timedelta(seconds=wait_s)
        Job.objects.filter(pk=job.pk).update(  # the history of a machine, not a transition
            status=Status.COMPLETED, attempt=1, created_at=created, started_at=started, completed_at=started + timedelta(seconds=run_s)
        )


@pytest.mark.parametrize(("percent", "value"), [(50, 3), (95, 5), (20, 1), (100, 5)])
def test_a_share_is_the_nearest_rank(percent, value):
    assert share([5, 1, 4, 2, 3], percent) == value


def test_a_type_is_compared_with_its_week_before(analyst, other):
    completed(analyst, hours_ago=2, wait_s=10, run_s=100)
    completed(analyst, hours_ago=72, wait_s=10, run_s=40)
    completed(other, hours_ago=2, wait_s=1, run_s=1)
    [pace] = paces(Job.objects.visible_to(analyst))
    assert (pace.now.jobs, pace.now.run_p50, pace.now.wait_p95) == (5, 100, 10)
    assert pace.before.run_p50 == 40
    assert pace.is_slower
    assert not pace.waits_longer


def test_too_few_jobs_say_nothing(analyst):
    completed(analyst, hours_ago=2, wait_s=10, run_s=100, count=4)
    assert paces(Job.objects.all()) == []


def test_a_type_without_a_week_before_is_not_slower(analyst):
    completed(analyst, hours_ago=2, wait_s=1000, run_s=100)
    [pace] = paces(Job.objects.all())
    assert (pace.before, pace.is_slower, pace.waits_longer) == (None, False, False)


def test_reasons_that_differ_in_figures_are_one(client, analyst):
    jobs = [JobManager().create_job("sample_steps", created_by=analyst) for _ in range(3)]
    for job, reason in zip(
        jobs, ("Waits for memory: 1.1 GB needed, 0.6 free", "Waits for memory: 2 GB needed, 0.7 free", "Paused"), strict=True
    ):
        JobManager().hold([job.pk], reason)
    assert held_for(Job.objects.all()) == [("Waits for memory: … GB needed, … free", 2), ("Paused", 1)]
    client.force_login(analyst)
    for path in ("/", "/slow/"):
        assert "Waits for memory: … GB needed, … free" in client.get(path).content.decode()


def test_the_page_names_what_is_slower(client, analyst):
    completed(analyst, hours_ago=2, wait_s=10, run_s=100)
    completed(analyst, hours_ago=72, wait_s=10, run_s=40)
    client.force_login(analyst)
    text = client.get("/slow/").content.decode()
    assert "1 type of job is slower than last week" in text
    assert "1 min 40 s<small>40 s</small>" in text


def test_what_ended_while_one_was_away(client, analyst, running_job):
    client.force_login(analyst)
    start = timezone.now()
    assert "Since you were last here" not in client.get("/").content.decode()
    with time_machine.travel(start + timedelta(minutes=10), tick=False):
        assert "Since you were last here" not in client.get("/").content.decode()
        JobManager().mark_completed(running_job.pk, {}, attempt=1)
    for minutes in (60, 62):  # it stays while one is here
        with time_machine.travel(start + timedelta(minutes=minutes), tick=False):
            text = client.get("/").content.decode()
            assert "Since you were last here" in text
            assert "1 job completed" in text
    query = f"/jobs/?ended_after={(start + timedelta(minutes=10)).isoformat().replace('+', '%2B')}"
    assert running_job.name in client.get(query).content.decode()


def test_what_took_most_time(client, analyst, other, running_job):
    end = timezone.now()
    times = {"hosts": [["slow.example", 4, 8.0], ["quick.example", 9, 0.9]], "stages": [["Asking", 0.0], ["Storing", 9.0]]}
    running_job.attempts.update(times=times, started_at=end - timedelta(seconds=10), ended_at=end)
    JobManager().mark_completed(running_job.pk, {}, attempt=1)
    hosts, stages, looked_at = slowest(Job.objects.all())
    assert looked_at == 1
    assert [(host.name, host.requests, host.mean_s, len(host.job_ids)) for host in hosts] == [
        ("slow.example", 4, 2.0, 1),
        ("quick.example", 9, 0.1, 1),
    ]
    assert [(stage.name, stage.job_type, round(stage.p50)) for stage in stages] == [
        ("Asking", "sample_steps", 9),
        ("Storing", "sample_steps", 1),
    ]
    client.force_login(analyst)
    assert "slow.example</a></td><td>4</td><td>2 s</td>" in client.get("/slow/").content.decode()
    client.force_login(other)
    assert "slow.example" not in client.get("/slow/").content.decode()


def test_ended_jobs_by_the_hour(client, analyst, other):
    """Counted in hours of UTC, of the last four weeks, of what one may see."""
    hour = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    for at, status in ((0, "COMPLETED"), (59, "COMPLETED"), (59, "FAILED"), (60, "FAILED"), (-60 * 24 * 40, "FAILED"), (5, "CANCELLED")):
        job = JobManager().create_job("sample_steps", created_by=analyst)
        moment = hour + timedelta(minutes=at)
        Job.objects.filter(pk=job.pk).update(status=status, completed_at=moment)
    client.force_login(analyst)
    start = int(hour.timestamp())
    assert client.get("/throughput.json").json() == {"hours": [[start, 2, 1], [start + 3600, 0, 1]]}
    client.force_login(other)
    assert client.get("/throughput.json").json() == {"hours": []}


class TestMetrics:
    def test_they_are_for_those_who_see_all(self, client, analyst, admin_user):
        assert client.get("/api/metrics").status_code in (401, 403)
        client.force_login(analyst)
        assert client.get("/api/metrics").status_code == 403
        client.force_login(admin_user)
        assert client.get("/api/metrics/", headers={"accept": "text/plain;version=0.0.4"}).status_code == 200

    def test_they_are_read_by_the_parser_of_prometheus(self, client, admin_user, running_job):
        Job.objects.filter(pk=running_job.pk).update(stalled_at=timezone.now())
        JobManager().create_job("sample_steps", priority=20)
        client.force_login(admin_user)
        text = client.get("/api/metrics").content.decode()
        found = {(s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples}
        assert found["fieldwork_jobs_running",] == found["fieldwork_jobs_stalled",] == 1
        assert found["fieldwork_jobs_waiting", "high"] == 1
        assert found["fieldwork_jobs_running_by_type", "sample_steps"] == 1
        assert found["fieldwork_machine_memory_used_bytes",] > 1e8
