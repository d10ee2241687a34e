"""Two analysts: what one may not see is nowhere, by page, API, statistic, artifact or bulk action.

Sockets have theirs in test_live.py.
"""

import uuid
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

from jobs import archive
from jobs.manager import JobManager
from jobs.models import Artifact, Job, JobAttempt, JobLog, Notification
from jobs.resources import ResourceManager
from jobs.states import Status
from jobs.tests.fixtures import reload


@pytest.fixture
def theirs(other):
    """A job of somebody else, failed, with an artifact."""
    job = JobManager().create_job("sample_steps", created_by=other, name="Their secret job")
    JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    JobManager().mark_failed(job.pk, "their secret error", attempt=1)
    artifact = Artifact(job=job, name="secret.txt", size=3, sha256="0" * 64)
    artifact.file.save("secret.txt", ContentFile(b"abc"), save=False)
    artifact.save()
    return job


@pytest.fixture
def mine(analyst):
    return JobManager().create_job("sample_steps", created_by=analyst, name="My own job")


@pytest.fixture
def page(analyst):
    client = Client()
    client.force_login(analyst)
    return client


@pytest.fixture
def api(analyst):
    token = Token.objects.create(user=analyst)
    return Client(headers={"authorization": f"Token {token.key}"})


def test_querysets(theirs, mine, analyst, other, admin_user):
    assert list(Job.objects.visible_to(analyst)) == [mine]
    assert list(Job.objects.visible_to(other)) == [theirs]
    assert set(Job.objects.visible_to(admin_user)) == {mine, theirs}
    assert not Job.objects.visible_to(None).exists()
    for model in (JobAttempt, JobLog, Artifact):
        assert not model.objects.visible_to(analyst).filter(job=theirs).exists()
        assert model.objects.visible_to(other).filter(job=theirs).exists()
    analyst.is_active = False
    assert not Job.objects.visible_to(analyst).exists()


@pytest.mark.parametrize("path", ["/", "/jobs/", "/jobs/?q=secret", "/jobs/?by=sato", "/jobs/?state=failed", "/notifications/"])
def test_pages_with_many_jobs(page, theirs, mine, path):
    text = page.get(path).content.decode()
    assert "secret" not in text.replace("q=secret", "").replace('value="secret"', "")
    assert "Failed 1" not in text


@pytest.mark.parametrize("name", ["job-detail", "job-live", "job-log", "job-items", "job-items-csv"])
def test_pages_of_one_job(page, theirs, name):
    assert page.get(reverse(name, args=[theirs.pk])).status_code == 404
    assert page.get(reverse(name, args=[uuid.uuid4()])).status_code == 404


ACTIONS = ["cancel", "retry", "run-now", "retry-items", "continue", "pause", "resume", "keep"]


@pytest.mark.parametrize("name", [f"job-{action}" for action in ACTIONS])
def test_actions(page, theirs, name):
    assert page.post(reverse(name, args=[theirs.pk])).status_code == 404
    assert reload(theirs).status == Status.FAILED


def test_bulk_actions_reach_only_what_one_may_see(page, theirs, mine):
    chosen = {"action": "retry", "job": [str(theirs.pk)], "confirmed": "1"}
    assert "secret" not in page.post("/jobs/bulk/", chosen, follow=True).content.decode()
    page.post("/jobs/bulk/", {"action": "cancel", "everything": "1", "query": "", "confirmed": "1"})
    assert (reload(theirs).status, reload(mine).status) == (Status.FAILED, Status.CANCELLED)


def test_what_stays_of_an_archived_job(page, api, theirs, other):
    Job.objects.filter(pk=theirs.pk).update(completed_at=timezone.now() - timedelta(days=365))
    archive.clean_up(archive.default_days())
    where, file = theirs.get_absolute_url(), Artifact.objects.get().get_absolute_url()
    for path in (where, file):
        assert page.get(path).status_code == 404
    assert api.get(f"/api/jobs/{theirs.pk}").status_code == 404
    page.force_login(other)
    assert "their secret error" in page.get(where).content.decode()


def test_downloads(page, theirs, other):
    where = theirs.artifacts.get().get_absolute_url()
    assert page.get(where).status_code == 404
    page.force_login(other)
    response = page.get(where)
    assert b"".join(response.streaming_content) == b"abc"
    assert response["Content-Disposition"].startswith("attachment")


def test_run_again_does_not_copy_parameters_of_others(page, other):
    job = JobManager().create_job("web_scraping", parameters={"urls": ["https://1.1.1.1/secret"]}, created_by=other)
    assert b"secret" not in page.get(f"/jobs/new/web_scraping/?from={job.pk}").content


def test_api(api, theirs, mine):
    assert [job["name"] for job in api.get("/api/jobs").json()["results"]] == ["My own job"]
    assert api.get("/api/jobs?by=sato").json()["count"] == 0
    for path in ("", "/logs", "/items"):
        assert api.get(f"/api/jobs/{theirs.pk}{path}").status_code == 404
    for action in ("cancel", "retry", "run_now", "retry_items", "continue", "pause", "resume", "keep"):
        assert api.post(f"/api/jobs/{theirs.pk}/{action}").status_code == 404
    assert reload(theirs).status == Status.FAILED


def test_statistics(api, theirs, mine, analyst):
    stats = ResourceManager().get_queue_statistics(analyst)
    assert (stats["waiting"], stats["ended_24h"]["FAILED"]) == (1, 0)
    assert ResourceManager().get_queue_statistics()["ended_24h"]["FAILED"] == 1
    assert api.get("/api/jobs/stats").json()["ended_24h"]["FAILED"] == 0


def test_notifications(page, theirs, mine, analyst, other):
    assert Notification.objects.get(job=theirs).user == other
    assert page.post("/notifications/").status_code == 302
    assert Notification.objects.get(job=theirs).read_at is None


def test_a_stranger_is_asked_to_sign_in(client, theirs):
    for path in ("/", "/jobs/", f"/jobs/{theirs.pk}/", "/subjects/", "/notifications/", "/jobs/new/"):
        assert client.get(path).headers["Location"].startswith("/sign-in/")
    for path in ("/api/jobs", f"/api/jobs/{theirs.pk}", "/api/jobs/stats", "/api/schema", "/api/docs"):
        assert client.get(path).status_code == 401
    assert client.get("/health/").json() == {"status": "up"}
