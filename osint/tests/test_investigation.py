"""One call investigates: by the page, the API and the command; as one group with one end."""

import io
import subprocess
import sys

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from jobs.manager import JobManager
from jobs.models import Artifact, Job, JobGroup, Notification
from jobs.presentation import group_state
from jobs.states import Status
from jobs.tests.fixtures import ROOT, process_environment, wait_for
from osint.investigation import investigate
from osint.models import Subject
from osint.tests.fixtures import add_document

ORDER = ["web_scraping", "entity_extraction", "timeline_assembly", "duplicate_detection", "data_export", "pdf_generation"]


@pytest.mark.django_db
def test_the_jobs_depend_on_each_other(subject, analyst):
    group = investigate(subject, scrape={"urls": ["https://1.1.1.1/"]}, by=analyst)
    jobs = {job.job_type: job for job in group.jobs.all()}
    needs = {kind: {d.needs.job_type for d in job.dependencies.select_related("needs")} for kind, job in jobs.items()}
    assert needs == {
        "web_scraping": set(), "entity_extraction": {"web_scraping"}, "timeline_assembly": {"web_scraping"},
        "duplicate_detection": {"entity_extraction"}, "data_export": {"duplicate_detection", "timeline_assembly"},
        "pdf_generation": {"duplicate_detection", "timeline_assembly"},
    }  # fmt: skip
    assert {job.subject_id for job in jobs.values()} == {subject.pk}


@pytest.mark.django_db
def test_nothing_is_made_when_something_is_wrong(subject, analyst):
    from jobs.errors import InvalidParameters

    with pytest.raises(InvalidParameters):
        investigate(subject, scrape={"urls": ["ftp://x"]}, by=analyst)
    assert not Job.objects.exists()
    assert not JobGroup.objects.exists()


@pytest.mark.django_db
def test_over_the_api(client, subject, analyst, other):
    client.force_login(other)
    assert client.post(f"/api/subjects/{subject.pk}/investigate", {}, content_type="application/json").status_code == 404
    client.force_login(analyst)
    wrong = client.post(f"/api/subjects/{subject.pk}/investigate", {"scrape": {"urls": ["nonsense"]}}, content_type="application/json")
    assert (wrong.status_code, "parameters" in wrong.json()["errors"]) == (400, True)
    mistyped = client.post(f"/api/subjects/{subject.pk}/investigate", {"urls": []}, content_type="application/json")
    assert (mistyped.status_code, list(mistyped.json()["errors"])) == (400, ["urls"])
    made = client.post(f"/api/subjects/{subject.pk}/investigate", {"scrape": None, "priority": "HIGH"}, content_type="application/json")
    assert made.status_code == 201, made.content
    assert made["Location"] == f"/api/groups/{made.json()['id']}"
    assert [job["job_type"] for job in made.json()["jobs"]] == ORDER[1:]
    urgent = client.post(f"/api/subjects/{subject.pk}/investigate", {"priority": "URGENT"}, content_type="application/json")
    assert urgent.status_code == 400
    named = client.post("/api/subjects", {"name": "New one"}, content_type="application/json")
    assert (named.status_code, Subject.objects.get(name="New one").created_by) == (201, analyst)


@pytest.mark.django_db
def test_by_the_page(client, subject, analyst):
    client.force_login(analyst)
    page = f"/subjects/{subject.pk}/investigate/"
    empty = client.post(page, {"delay_s": 1, "hosts_at_once": 8, "priority": 10})
    assert (empty.status_code, "Give at least one web address" in empty.content.decode()) == (422, True)
    add_document(subject, "Anna Keller")
    again = client.post(page, {"delay_s": 1, "hosts_at_once": 8, "priority": 10, "title": "The Keller case"})
    group = JobGroup.objects.get()
    assert again["Location"] == group.get_absolute_url()
    assert group.jobs.get(job_type="pdf_generation").parameters == {"title": "The Keller case"}
    started = client.post(page, {"urls": "hxxps://1[.]1[.]1[.]1/", "delay_s": 1, "hosts_at_once": 8, "priority": 10})
    assert started.status_code == 302
    assert JobGroup.objects.first().jobs.get(job_type="web_scraping").parameters["urls"] == ["https://1.1.1.1/"]


@pytest.mark.django_db
def test_the_command_says_what_is_wrong(analyst):
    with pytest.raises(CommandError, match="no active user"):
        call_command("investigate", "Meridian", "--user", "nobody")
    with pytest.raises(CommandError, match="Only http"):
        call_command("investigate", "Meridian", "ftp://x.example/", "--user", "ortega")
    out = io.StringIO()
    call_command("investigate", "Meridian", "--user", "ortega", stdout=out)
    assert str(JobGroup.objects.get().pk) in out.getvalue()


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
def test_the_command_waits_for_the_end(site, analyst, start_cluster):
    start_cluster()
    command = [sys.executable, "manage.py", "investigate", "Meridian", f"{site}/about", f"{site}/press", "--user", "ortega", "--wait"]
    done = subprocess.run(command, cwd=ROOT, env=process_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Completed: 2 pages stored" in done.stdout


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
def test_a_whole_investigation_ends_once_with_all_its_results(site, analyst, start_cluster):
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    group = investigate(subject, scrape={"sitemap": f"{site}/sitemap.xml", "delay_s": 0}, by=analyst)
    start_cluster()
    wait_for(lambda: JobGroup.objects.get(pk=group.pk).completed_at, "the end of the investigation", deadline_s=90)
    state = group_state(group)
    assert (state.badge.label, state.percent) == ("Completed", 100.0), state.sentence
    assert subject.documents.count() == 44
    assert subject.entities.filter(type="person", name="Anna Keller").exists()
    assert subject.events.filter(begins="2020-10-03").exists()
    assert set(Artifact.objects.values_list("name", flat=True)) >= {"export.zip", "report.pdf", "stix-bundle.json"}
    [row] = Notification.objects.all()
    assert (row.group, row.status) == (group, Status.COMPLETED)
    assert row.text.startswith("Investigate Meridian: 44 pages stored")
    # every job started after what it needs had ended
    for job in group.jobs.all():
        for dependency in job.dependencies.select_related("needs"):
            assert dependency.needs.completed_at <= job.started_at


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_fetched_ends_it_with_the_reason_and_can_be_taken_up(site, analyst, start_cluster):
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    group = investigate(subject, scrape={"urls": [f"{site}/nothing"], "delay_s": 0}, by=analyst)
    start_cluster()
    wait_for(lambda: JobGroup.objects.get(pk=group.pk).completed_at, "the end", deadline_s=60)
    assert group_state(group).badge.label == "Failed"
    jobs = {job.job_type: job for job in group.jobs.all()}
    assert jobs["entity_extraction"].cancel_reason == "“Scrape 1 page of " + site.removeprefix("http://") + "”, which it depends on, failed"
    # export and report run all the same: what is there is not held back
    assert jobs["pdf_generation"].status == Status.COMPLETED
    assert Notification.objects.get().status == Status.FAILED
    JobManager().retry_group(group, by=analyst)
    wait_for(lambda: JobGroup.objects.get(pk=group.pk).completed_at, "the second end", deadline_s=60)
    assert group_state(group).badge.label == "Failed"
    assert Notification.objects.filter(user=User.objects.get(username="ortega")).count() == 2
