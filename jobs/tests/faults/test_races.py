"""F12–F14, F24, F25: two who act at the same time."""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import time_machine
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.authtoken.models import Token

from jobs import archive, broker, conf, recovery, upkeep
from jobs.manager import JobManager
from jobs.models import Archive, ArchivedJob, Artifact, Job, JobLog, Notification
from jobs.recovery import Rescuer
from jobs.states import ENDED, Status
from jobs.tests.fixtures import ROOT, create, ended, no_two_at_once, process_environment, reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def at_once(*functions):
    """What each returns, or raises, when all begin at the same moment, each on a connection of its own."""
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait()
        try:
            return function()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(run, f) for f in functions]]


def files():
    """The names of the archive's files."""
    return set(default_storage.listdir(archive.FOLDER)[1]) if default_storage.exists(archive.FOLDER) else set()


def age(*jobs, days=365):
    """As if they had ended so long ago."""
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(completed_at=timezone.now() - timedelta(days=days))


def finished(analyst, status=Status.COMPLETED, **options):
    """An ended job with a log, old enough for the archive."""
    job = create(created_by=analyst, **options)
    JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    JobManager().append_logs(job.pk, [{"level": 20, "message": "A line"}], attempt=1)
    if status == Status.COMPLETED:
        JobManager().mark_completed(job.pk, {"summary": "4 steps"}, attempt=1)
    else:
        JobManager().mark_failed(job.pk, "It broke", attempt=1)
    age(job)
    return reload(job)


def test_f12_cancel_races_completion(cluster):
    """200 times: each job has one end, and it is the one that whoever cancelled was told."""
    rng = random.Random(12)
    told = {}
    most = 0.015
    for _ in range(200):
        job = create(parameters={"total": 3})
        while status_of(job) == Status.PENDING:
            pass
        time.sleep(rng.uniform(0, most))  # the race is where in the job's short life the cancel falls: around its end
        told[job.pk] = JobManager().cancel_job(job.pk, "raced")
        most *= 1.15 if told[job.pk] else 0.87
    wait_for(lambda: not Job.objects.open().exists(), "all ends")
    for job in Job.objects.all():
        assert (job.status == Status.CANCELLED) is told[job.pk], job.status
        assert job.attempts.exclude(outcome="running").count() == 1
        ends = job.logs.filter(message__startswith="Completed.").count() + job.logs.filter(message__startswith="Cancelled by").count()
        assert ends == 1
    seen = Counter(Job.objects.values_list("status", flat=True))
    assert set(seen) == {Status.COMPLETED, Status.CANCELLED}, f"this was no race: {seen}"


def test_f13_two_cancels_two_retries(analyst):
    """One wins, the other gets 409 and why; nothing else changes."""
    token = Token.objects.create(user=analyst).key

    def post(job, action):
        return Client(headers={"authorization": f"Token {token}"}).post(f"/api/jobs/{job.pk}/{action}", content_type="application/json")

    for _ in range(10):
        running = create(created_by=analyst)
        JobManager().start([running.pk], worker_id="atlas-1", host="atlas")
        answers = at_once(*[partial(post, running, "cancel")] * 2)
        assert sorted(a.status_code for a in answers) == [200, 409]
        assert reload(running).logs.filter(message__contains="asked to cancel").count() == 1

        failed = finished(analyst, Status.FAILED)
        before = failed.attempt
        answers = at_once(*[partial(post, failed, "retry")] * 2)
        assert sorted(a.status_code for a in answers) == [200, 409]
        assert "Only a failed job can be retried" in next(a for a in answers if a.status_code == 409).json()["detail"]
        assert (status_of(failed), reload(failed).attempt) == (Status.PENDING, before)
        assert failed.logs.filter(message__startswith="Retry asked for").count() == 1


@pytest.mark.parametrize("action", ["cancel", "retry", "retry_items", "continue", "run_now", "resume"])
def test_f13_what_does_not_fit_is_a_409_in_words(analyst, action):
    client = Client(headers={"authorization": f"Token {Token.objects.create(user=analyst).key}"})
    job = finished(analyst)
    row = Job.objects.values().get(pk=job.pk)
    response = client.post(f"/api/jobs/{job.pk}/{action}", content_type="application/json")
    assert response.status_code == 409
    assert len(response.json()["detail"]) > 15
    assert Job.objects.values().get(pk=job.pk) == row
    assert Job.objects.count() == 1


def test_f14_double_and_lost_and_surplus_tokens(cluster):
    kept = broker.broker_for("default")
    first = create(parameters={"total": 1})
    wait_for(lambda: ended(first), "a first job")
    for _ in range(1000):
        broker.async_task(broker.TOKEN_TASK, broker=kept, cluster="default")
    job = create(parameters={"total": 1})
    wait_for(lambda: ended(job), "a job among a thousand tokens")
    wait_for(lambda: broker.tokens_waiting("default") == 0, "all tokens to be used up", deadline_s=120)
    lost = [create(parameters={"total": 1}) for _ in range(3)]
    kept.purge_queue()
    wait_for(lambda: ended(*lost), "jobs whose tokens were lost")
    assert {(job.status, job.attempt) for job in Job.objects.all()} == {(Status.COMPLETED, 1)}
    assert cluster.process.poll() is None


def test_f24_cleanup_fires_twice(analyst):
    jobs = [finished(analyst) for _ in range(20)]
    done = at_once(*[upkeep.archive_ended_jobs] * 4)
    assert sum(done) == 20
    assert Archive.objects.count() == 1
    assert ArchivedJob.objects.count() == 20
    assert not Job.objects.filter(pk__in=[job.pk for job in jobs]).exists()


def test_f24_a_task_that_fires_again_while_it_works_does_nothing(db):
    """Until the first one is done; one that crashed holds the lock no longer than it said."""
    minute = timedelta(minutes=1)
    with upkeep.alone("task", minute) as first, upkeep.alone("task", minute) as second, upkeep.alone("other", minute) as other:
        assert (first, second, other) == (True, False, True)
    with upkeep.alone("task", minute) as again:
        assert again is True
        with time_machine.travel(timezone.now() + 2 * minute), upkeep.alone("task", minute) as after_a_crash:
            assert after_a_crash is True


def test_f24_two_rescuers(analyst, monkeypatch):
    """Of two clusters that see the same lost job at the same time, one rescues it."""
    now = [1000.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now[0])
    jobs = [create() for _ in range(10)]
    for job in jobs:
        JobManager().start([job.pk], worker_id="gone-1", host="gone")
    rescuers = [Rescuer() for _ in range(4)]
    for rescuer in rescuers:
        assert rescuer.sweep() == []
    now[0] += conf.get("lease_s") + 1
    saved = at_once(*[rescuer.sweep for rescuer in rescuers])
    assert sorted(pk for found in saved for pk in found) == sorted(job.pk for job in jobs)
    assert all(reload(job).log_seq == 3 and job.attempts.count() == 1 for job in jobs)


def test_f24_two_clusters_on_one_queue(start_cluster):
    """Both tick, both take jobs: each job runs once."""
    start_cluster()
    start_cluster()
    jobs = [create(parameters={"total": 2, "fail_at": 2 if n % 3 == 0 else None, "error": "transient"}, max_retries=1) for n in range(30)]
    wait_for(lambda: ended(*jobs), "all of them", deadline_s=60)
    assert Counter(Job.objects.values_list("status", "attempt")) == {(Status.COMPLETED, 1): 20, (Status.FAILED, 2): 10}
    for job in jobs:
        assert no_two_at_once(job)


def test_f25_running_kept_and_just_retried_jobs_stay(analyst):
    old, kept, retried = (finished(analyst, Status.FAILED) for _ in range(3))
    running, fresh = create(), finished(analyst)
    JobManager().start([running.pk], worker_id="atlas-1", host="atlas")
    JobManager().set_keep(kept.pk, True)
    JobManager().retry_job(retried.pk)
    age(fresh, days=1)
    assert archive.clean_up(archive.default_days()).jobs == 1
    assert set(Job.objects.values_list("pk", flat=True)) == {kept.pk, retried.pk, running.pk, fresh.pk}
    assert ArchivedJob.objects.get().pk == old.pk


def test_f25_a_job_that_is_retried_while_it_is_written_stays(analyst, monkeypatch):
    job, other = finished(analyst, Status.FAILED), finished(analyst, Status.FAILED)
    verify = archive.verify

    def retried_meanwhile(*args):
        with suppress(Exception):
            JobManager().retry_job(job.pk)
        verify(*args)

    monkeypatch.setattr(archive, "verify", retried_meanwhile)
    assert archive.clean_up(archive.default_days()).jobs == 1
    assert status_of(job) == Status.PENDING
    assert reload(job).logs.count() == reload(job).log_seq
    assert list(ArchivedJob.objects.values_list("pk", flat=True)) == [other.pk]


@pytest.mark.parametrize("where", ["verify", "replace_by_stubs"])
def test_f25_a_kill_in_between_loses_nothing_and_doubles_nothing(analyst, where):
    """SIGKILL once the file is written, and once it is verified."""
    jobs = [finished(analyst) for _ in range(5)]
    rows, before = JobLog.objects.count(), files()
    code = (
        "import django, os, signal; django.setup(); from jobs import archive\n"
        f"archive.{where} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "archive.clean_up(archive.default_days())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=process_environment(), check=False)
    assert done.returncode == -9
    assert (Job.objects.count(), JobLog.objects.count(), Archive.objects.count(), ArchivedJob.objects.count()) == (5, rows, 0, 0)
    [orphan] = files() - before
    assert archive.clean_up(archive.default_days()).jobs == 5
    assert sorted(ArchivedJob.objects.values_list("pk", flat=True)) == sorted(job.pk for job in jobs)
    path = Path(default_storage.path(f"{archive.FOLDER}/{orphan}"))
    os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert archive.remove_orphans() >= 1
    assert not path.exists()
    assert default_storage.exists(Archive.objects.get().name)
    assert archive.restore([job.pk for job in jobs]) is not None
    assert JobLog.objects.count() == rows


def test_f25_evidence_stays(analyst, client):
    """A file of an archived job can still be downloaded, and its page tells how the job ended."""
    job = finished(analyst)
    artifact = Artifact(job=job, name="report.txt", size=3, sha256="0" * 64)
    artifact.file.save("report.txt", ContentFile(b"abc"), save=False)
    artifact.save()
    scratch = Path(settings.STATE_DIR) / "scratch" / str(job.pk)
    scratch.mkdir(parents=True)
    (scratch / "half.tmp").write_text("half")
    archive.clean_up(archive.default_days())
    assert not Job.objects.exists()
    assert not scratch.exists()
    assert Artifact.objects.get().job_id == job.pk
    client.force_login(analyst)
    response = client.get(artifact.get_absolute_url())
    assert b"".join(response.streaming_content) == b"abc"
    response.close()
    page = client.get(job.get_absolute_url())
    assert page.status_code == 200
    assert "4 steps" in page.content.decode()
    client.force_login(type(analyst).objects.create_user("stranger"))
    assert client.get(job.get_absolute_url()).status_code == 404
    assert client.get(artifact.get_absolute_url()).status_code == 404


def test_f25_all_rows_of_a_job_come_back_as_they_were(analyst):
    job = finished(analyst)

    def rows():
        found = {}
        for model in (Job, *archive.OF_A_JOB):
            mine = model.objects.filter(pk=job.pk) if model is Job else model.objects.filter(job=job)
            found[model] = sorted((sorted(row.items(), key=str) for row in mine.values()), key=str)
        return found

    before = rows()
    assert all(before[model] for model in (Job, JobLog, Notification))
    archive.clean_up(archive.default_days())
    archive.restore([job.pk])
    after = rows()
    assert reload(job).keep is True
    Job.objects.filter(pk=job.pk).update(keep=False)
    assert rows() == before
    assert after[JobLog] == before[JobLog]
    assert reload(job).status in ENDED
