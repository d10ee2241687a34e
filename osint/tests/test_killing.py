"""SIGKILL in the middle of each job type: the next attempt ends with what an undisturbed run finds."""

import hashlib
import io
import json
import os
import re
import signal
import zipfile
from contextlib import closing

import psutil
import pytest
from django.core.files.base import ContentFile

from jobs.manager import JobManager
from jobs.models import JobAttempt
from jobs.states import ENDED, Status
from jobs.tests.fixtures import reload, status_of, wait_for
from osint import sample_site
from osint.models import Document, DuplicatePair, Entity, EventSource, Mention, Subject, TimelineEvent, Upload
from osint.tests.fixtures import add_document

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]

NAMES = ("Anna Keller", "Jan Lindqvist", "María Ortega", "Tomáš Novák", "Kenji Sato", "Leila Haddad", "Anna Kellar", "Keller, Anna")


def fill(subject, documents=120, size=40):
    for n in range(documents):
        name = NAMES[n % len(NAMES)]
        sentences = [f"{name} wrote to p{n}-{k}@meridian.com on {k % 28 + 1} June {2000 + n % 20} about 10.{n}.{k}.1." for k in range(size)]
        add_document(subject, " ".join(sentences), title=f"Page {n}", url=f"https://site.example/{n}")


def prepare(subject, job_type):
    """What each type works on: documents, and records, so many that comparing them takes a while."""
    fill(subject, *((2000, 2) if job_type == "pdf_generation" else ()))
    count = 8_000 if job_type in ("duplicate_detection", "data_export") else 300
    rows = [Entity(subject=subject, type="record", key=f"r{n}", name=f"R{n}", properties=record(n)) for n in range(count)]
    Entity.objects.bulk_create(rows, batch_size=500)


def record(n):
    """Every tenth one is the one before with a typing error."""
    row = "".join(chr(97 + int(c, 16)) for c in hashlib.sha256(str(n - (n % 10 == 9)).encode()).hexdigest())
    born = f"{1930 + ord(row[0]) % 16 * 4}{ord(row[1]) % 12 + 1:02d}{ord(row[2]) % 28 + 1:02d}"
    return {"given": row[:6], "surname": row[6:14] + ("x" if n % 10 == 9 else ""), "born": born, "city": row[20:22], "street": row[30:38]}


def upload(subject, analyst):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for n in range(300):
            archive.writestr(f"{n:03d}.html", sample_site.render(list(sample_site.PAGES.values())[n % 44]) + f"<!-- {n} -->")
    content = out.getvalue()
    made = Upload(subject=subject, name="pages.zip", size=len(content), sha256=hashlib.sha256(content).hexdigest(), created_by=analyst)
    made.file.save("pages.zip", ContentFile(content), save=False)
    made.save(force_insert=True)
    return made


def found(subject, job):
    """All that a job type leaves behind, without ids, times and the numbers of attempts."""
    files = {}
    for artifact in job.artifacts.exclude(name__startswith="evidence").exclude(name__endswith=".zip"):
        with closing(artifact.file.open("rb")) as stream:
            content = stream.read()
        if artifact.name.endswith((".csv", ".jsonl")):
            files[artifact.name] = len(content.splitlines())
        else:
            files[artifact.name] = bool(content)
    result = {k: v for k, v in (job.result_data or {}).items() if k not in ("bytes", "sha256", "reasons", "failures", "private_allowed")}
    return {
        "documents": sorted(Document.objects.filter(job=job).values_list("url", "sha256", "title", "text")),
        "entities": sorted(map(json.dumps, Entity.objects.filter(subject=subject).values_list("type", "key", "name", "mention_count"))),
        "mentions": sorted(
            Mention.objects.filter(entity__subject=subject).values_list("document__url", "start", "end", "entity__key", "engine", "score")
        ),
        "events": sorted(TimelineEvent.objects.filter(subject=subject).values_list("begins", "ends", "precision", "title", "source_count")),
        "sources": sorted(
            EventSource.objects.filter(event__subject=subject).values_list("document__url", "start", "sentence", "event__title")
        ),
        "pairs": sorted(
            (p.step, p.score, tuple(p.reasons), p.group is not None)
            for p in DuplicatePair.objects.filter(subject=subject).select_related("group")
        ),
        "files": files,
        "result": result,
    }


# When each type is in its middle: its items, or the time that it takes.
HALFWAY = {
    "web_scraping": 12,
    "entity_extraction": 30,
    "timeline_assembly": 30,
    "duplicate_detection": 1,
    "data_export": 2,
    "pdf_generation": 0,
    "file_import": 60,
}
SLOWER = {"pdf_generation": "Typesetting", "duplicate_detection": "Comparing"}


@pytest.mark.parametrize("job_type", HALFWAY)
def test_a_killed_job_finds_what_an_undisturbed_one_finds(job_type, site, analyst, start_cluster):
    # on a busy machine a worker waits up to two seconds for the database that its job fills: the lease is the product's
    start_cluster(lease_s=10.0, lease_giveup_s=8.0)
    outcomes = []
    for disturbed in (False, True):
        subject = Subject.objects.create(name="Meridian", created_by=analyst)
        parameters = {}
        if job_type == "web_scraping":
            parameters = {"sitemap": f"{site}/sitemap.xml", "delay_s": 0.05}
        elif job_type == "file_import":
            parameters = {"uploads": [str(upload(subject, analyst).pk)]}
        else:
            prepare(subject, job_type)
        job = JobManager().create_job(job_type, parameters=parameters, created_by=analyst, subject_id=subject.pk)
        if disturbed:
            kill_in_the_middle(job_type, job)
        wait_for(lambda job=job: status_of(job) in ENDED, f"the end of {job_type}", deadline_s=120)
        row = reload(job)
        assert row.status == Status.COMPLETED, row.error_message
        assert (row.attempt > 1) == disturbed
        outcomes.append(found(subject, row))
    undisturbed, killed = outcomes
    for name in undisturbed:
        assert without_upload_ids(killed[name]) == without_upload_ids(undisturbed[name]), name


def without_upload_ids(value):
    """The address of a document from a file ends with a piece of its upload's id, which differs between two uploads."""
    return sorted(re.sub(r"pages\.zip#[0-9a-f]{8}", "pages.zip", repr(row)) for row in value) if isinstance(value, list) else value


def kill_in_the_middle(job_type, job):
    if HALFWAY[job_type]:
        wait_for(
            lambda: reload(job).items.filter(outcome="ok").count() >= HALFWAY[job_type] or status_of(job) in ENDED,
            "its middle",
            deadline_s=60,
        )
    else:
        wait_for(lambda: reload(job).current_step.startswith(SLOWER[job_type]) or status_of(job) in ENDED, "its middle", deadline_s=60)
    assert status_of(job) == Status.RUNNING, "it was over before it could be killed"
    process = JobAttempt.objects.get(job=job, number=1).process or {}
    pid = process.get("pid") or child_of(job)
    os.kill(pid, signal.SIGKILL)


def child_of(job):
    """The child's pid before it was recorded, which takes until the first sample."""
    return wait_for(lambda: (JobAttempt.objects.get(job=job, number=1).process or {}).get("pid"), "the pid of the child", deadline_s=10)


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_the_helpers_of_a_job_end_with_it(end, analyst, start_cluster):
    start_cluster(lease_s=10.0, lease_giveup_s=8.0)  # as above: its documents are long, and so are its writes
    subject = Subject.objects.create(name="Meridian", created_by=analyst)
    fill(subject, documents=60, size=400)
    job = JobManager().create_job("entity_extraction", created_by=analyst, subject_id=subject.pk, max_retries=0)
    wait_for(lambda: reload(job).items.filter(outcome="ok").exists(), "the first document", deadline_s=60)
    child = psutil.Process(child_of(job))
    helpers = wait_for(lambda: child.children(), "its helpers")
    assert len(helpers) >= 1
    if end == "cancel":
        assert JobManager().cancel_job(job.pk, by=analyst)
        wait_for(lambda: status_of(job) == Status.CANCELLED, "the end")
    else:
        child.kill()
    wait_for(lambda: not any(h.is_running() and h.status() != psutil.STATUS_ZOMBIE for h in helpers), "its helpers to be gone")
    JobManager().cancel_job(job.pk, by=analyst)
