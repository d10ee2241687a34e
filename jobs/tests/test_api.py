"""The JSON API: every path, with and without a slash, and clear answers to bad requests."""

import uuid

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from rest_framework.authtoken.models import Token

from jobs.manager import JobManager
from jobs.models import Job
from jobs.states import Status
from jobs.tests.fixtures import reload


@pytest.fixture
def api(analyst):
    token = Token.objects.create(user=analyst)
    return Client(headers={"authorization": f"Token {token.key}"})


def post(api, path, **body):
    return api.post(path, body, content_type="application/json")


def test_a_job_is_created_and_read(api, analyst):
    made = post(api, "/api/jobs", job_type="sample_steps", parameters={"total": 5}, priority="HIGH")
    assert made.status_code == 201
    body = made.json()
    assert made["Location"] == f"/api/jobs/{body['id']}"
    assert (body["status"], body["priority"], body["total_steps"], body["created_by"]) == ("PENDING", "HIGH", 5, "ortega")
    read = api.get(made["Location"]).json()
    assert read["parameters"]["total"] == 5
    assert read["sentence"]


def test_every_field_of_the_specification_is_there(api, job):
    fields = set(api.get(f"/api/jobs/{job.pk}").json())
    assert fields >= {
        "id", "job_type", "subject_id", "status", "progress_percent", "current_step", "total_steps", "completed_steps",
        "priority", "created_at", "started_at", "completed_at", "estimated_duration", "memory_usage_mb",
        "cpu_usage_percent", "result_data", "error_message", "error_traceback", "retry_count", "max_retries",
        "created_by", "worker_id", "queue_name",
    }  # fmt: skip
    line = api.get(f"/api/jobs/{job.pk}/logs").json()["results"][0]
    assert set(line) >= {"id", "level", "message", "timestamp", "step_name", "data"}


@pytest.mark.parametrize("slash", ["", "/"])
def test_every_path_answers_with_and_without_a_slash(api, job, slash):
    for path in ("/api/jobs", f"/api/jobs/{job.pk}", f"/api/jobs/{job.pk}/logs", "/api/jobs/stats", "/api/schema", "/api/docs"):
        assert api.get(path + slash).status_code == 200, path
    assert post(api, f"/api/jobs/{job.pk}/retry{slash}").status_code == 409
    assert post(api, f"/api/jobs/{job.pk}/cancel{slash}", reason="enough").status_code == 200
    assert post(api, "/api/jobs" + slash, job_type="sample_steps").status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "job_type"),
        ({"job_type": "no_such_type"}, "job_type"),
        ({"job_type": "sample_steps", "parameters": {"total": "many"}}, "parameters"),
        ({"job_type": "sample_steps", "parameters": [1]}, "parameters"),
        ({"job_type": "sample_steps", "priority": "HIGHEST"}, "priority"),
        ({"job_type": "sample_steps", "priority": "URGENT"}, "priority"),
        ({"job_type": "sample_steps", "subject_id": "x"}, "subject_id"),
        ({"job_type": "sample_steps", "subject_id": str(uuid.uuid4())}, "subject_id"),
        ({"job_type": "sample_steps", "max_retries": -1}, "max_retries"),
        ({"job_type": "sample_steps", "status": "COMPLETED"}, "status"),
        ({"job_type": "sample_steps", "created_by": "admin"}, "created_by"),
        ({"job_type": "sample_steps", "worker_id": "x", "result_data": {}}, "worker_id"),
        ({"job_type": "web_scraping"}, "parameters"),
        ({"job_type": "web_scraping", "parameters": {"urls": ["http://10.0.0.1/"]}}, "parameters"),
        ({"job_type": "web_scraping", "parameters": {"urls": ["https://1.1.1.1/"] * 10_001}}, "parameters"),
    ],
)
def test_a_bad_request_names_the_field_and_makes_nothing(api, body, field):
    answer = post(api, "/api/jobs", **body)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    assert field in problem["errors"]
    assert not Job.objects.exists()


def test_urgent_needs_a_permission(api, analyst):
    analyst.user_permissions.add(Permission.objects.get(codename="start_urgent_jobs"))
    assert post(api, "/api/jobs", job_type="sample_steps", priority="URGENT").status_code == 201


@pytest.mark.parametrize("job_id", ["not-a-uuid", "1", "01970000-0000-7000-8000-00000000000g", str(uuid.uuid4())])
def test_an_unknown_or_malformed_id_is_a_404_in_words(api, job_id):
    for path in (f"/api/jobs/{job_id}", f"/api/jobs/{job_id}/logs"):
        answer = api.get(path)
        assert answer.status_code == 404
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"]
    assert post(api, f"/api/jobs/{job_id}/cancel").status_code == 404


def test_broken_json_is_a_400(api):
    answer = api.post("/api/jobs", "{", content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


def test_cancel_and_retry_that_do_not_fit_are_409_and_change_nothing(api, running_job):
    assert post(api, f"/api/jobs/{running_job.pk}/retry").status_code == 409
    assert post(api, f"/api/jobs/{running_job.pk}/cancel", reason="a").status_code == 200
    second = post(api, f"/api/jobs/{running_job.pk}/cancel", reason="b")
    assert second.status_code == 409
    assert "already" in second.json()["detail"]
    JobManager().mark_cancelled(running_job.pk, attempt=1)
    third = post(api, f"/api/jobs/{running_job.pk}/cancel")
    assert third.status_code == 409
    assert "Cancelled" in third.json()["detail"]
    assert reload(running_job).cancel_reason == "a"


def test_retry_of_a_failed_job(api, running_job):
    JobManager().mark_failed(running_job.pk, "boom", attempt=1)
    answer = post(api, f"/api/jobs/{running_job.pk}/retry")
    assert (answer.status_code, answer.json()["status"]) == (200, Status.PENDING)


def test_actions_are_post_only(api, job):
    for action in ("cancel", "retry"):
        assert api.get(f"/api/jobs/{job.pk}/{action}").status_code == 405
    assert reload(job).status == Status.PENDING


def test_a_session_needs_its_csrf_token(analyst, job):
    client = Client(enforce_csrf_checks=True)
    client.force_login(analyst)
    assert client.get("/api/jobs").status_code == 200
    assert client.post(f"/api/jobs/{job.pk}/cancel").status_code == 403
    assert client.post(f"/jobs/{job.pk}/cancel/").status_code == 403
    assert reload(job).status == Status.PENDING


def test_logs_by_level_and_number(api, running_job):
    JobManager().append_logs(running_job.pk, [{"level": 20, "message": "a"}, {"level": 40, "message": "b"}], attempt=1)
    path = f"/api/jobs/{running_job.pk}/logs"
    assert [line["message"] for line in api.get(f"{path}?after=2").json()["results"]] == ["a", "b"]
    assert [line["level"] for line in api.get(f"{path}?level=error").json()["results"]] == ["ERROR"]
    assert api.get(f"{path}?level=loud").status_code == 400
    assert api.get(f"{path}?after=x").status_code == 400


@pytest.mark.parametrize(
    "query", ["state=nonsense", "type=x", "subject=1", "created_after=yesterday", "sort=created_by__password", "q=" + "x" * 201]
)
def test_a_filter_that_makes_no_sense_is_a_400(api, job, query):
    answer = api.get(f"/api/jobs?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"]


@pytest.mark.parametrize("query", ["page_size=1000000000", "q=%00", "q=%25_%27%22", "page=1&page_size=-5"])
def test_wild_input_is_bounded(api, job, query):
    assert api.get(f"/api/jobs?{query}").status_code in (200, 400)


def test_the_list_costs_the_same_number_of_queries_however_long(api, analyst, django_assert_max_num_queries):
    for _ in range(30):
        JobManager().create_job("sample_steps", created_by=analyst)
    with django_assert_max_num_queries(6):
        assert api.get("/api/jobs").json()["count"] == 30


def test_stats(api, job):
    stats = api.get("/api/jobs/stats").json()
    assert stats["waiting"] == 1
    assert [row["priority"] for row in stats["by_priority"]] == ["URGENT", "HIGH", "NORMAL", "LOW"]
    assert 0 < stats["machine"]["memory_used_gb"] < stats["machine"]["memory_total_gb"]
