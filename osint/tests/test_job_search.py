"""Search over all jobs: what is found, by whom, and how much of it. The same on both databases."""

import re

import pytest
from django.db import connection

from jobs import archive, queries, search
from jobs.manager import JobManager
from jobs.models import Job, JobText
from jobs.queries import few_subjects_of
from jobs.states import Level
from osint.models import Subject

pytestmark = pytest.mark.django_db


def make(user, name="A job", subject=None, **parameters):
    return JobManager().create_job(
        "sample_steps", parameters={"total": 3, **parameters}, created_by=user, name=name, subject_id=subject and subject.pk
    )


def hits(text, user):
    ids, has_more = search.newest(text, Job.objects.visible_to(user), search.scope_of(user, few_subjects_of(user)))
    return ids, has_more


@pytest.mark.parametrize("text", [
    "harbour", "HARBOUR", "zürich", "scrape harbour", "harb", "“harbour", '"harbour of"', "gate-7.example", "  harbour  ", "harbour\x00",
])  # fmt: skip
def test_names_are_found_by_their_words(analyst, text):
    job = make(analyst, "Scrape harbour of Zürich", gate="gate-7.example")
    make(analyst, "Another thing")
    assert hits(text, analyst) == ([job.pk], False)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's configuration “simple” keeps accents apart")
def test_accents_make_no_difference(analyst):
    job = make(analyst, "Scrape harbour of Zürich")
    assert hits("Zurich", analyst) == ([job.pk], False)


@pytest.mark.parametrize(
    "text", ["harbour zzz", "arbour", '"of harbour"', "scope", "zzu", "'; DROP TABLE jobs_job; --", 'a" OR "b', "NEAR(x y)", "*"]
)
def test_what_is_not_there_is_not_found_and_nothing_breaks(analyst, text):
    make(analyst, "Scrape harbour of Zürich")
    assert hits(text, analyst) == ([], False)


def test_a_text_without_words_filters_nothing(client, analyst):
    make(analyst)
    client.force_login(analyst)
    assert client.get("/jobs/", {"q": " ?! "}).content.decode().count("data-job=") == 1


def test_warnings_errors_and_the_end_are_found_but_not_every_line(analyst):
    job = make(analyst)
    JobManager().start([job.pk], worker_id="w", host="h")
    lines = [{"level": Level.INFO, "message": "Fetched the lighthouse"}, {"level": Level.WARNING, "message": "The pier was slow"}]
    JobManager().append_logs(job.pk, lines, attempt=1)
    JobManager().mark_failed(job.pk, "The anchor is lost", attempt=1)
    for text in ("pier", "anchor"):
        assert hits(text, analyst) == ([job.pk], False)
    assert hits("lighthouse", analyst) == ([], False)


def test_only_visible_jobs_are_found(analyst, other, admin_user):
    shared = Subject.objects.create(name="Shared", created_by=other)
    shared.members.add(analyst)
    mine, theirs = make(analyst, "harbour mine"), make(other, "harbour theirs")
    together = make(other, "harbour together", shared)
    assert set(hits("harbour", analyst)[0]) == {mine.pk, together.pk}
    assert set(hits("harbour", other)[0]) == {theirs.pk, together.pk}
    assert set(hits("harbour", admin_user)[0]) == {mine.pk, theirs.pk, together.pk}
    shared.members.remove(analyst)
    assert hits("harbour", analyst)[0] == [mine.pk]


@pytest.mark.parametrize("named", [1, 300], ids=["by subquery", "by ids"])
def test_who_has_many_subjects_finds_and_sees_as_much_as_who_has_few(client, analyst, other, monkeypatch, named):
    monkeypatch.setattr(queries, "SUBJECTS_NAMED", named)
    subjects = [Subject.objects.create(name=f"S{n}", created_by=analyst) for n in range(3)]
    jobs = [make(other, "harbour", subject) for subject in subjects] + [make(analyst, "harbour")]
    make(other, "harbour", Subject.objects.create(name="Not theirs", created_by=other))
    assert set(hits("harbour", analyst)[0]) == {job.pk for job in jobs}
    client.force_login(analyst)
    text = client.get("/jobs/").content.decode()
    assert set(re.findall(r'<tr data-job="([0-9a-f-]+)"', text)) == {str(job.pk) for job in jobs}
    assert "<option>sato</option>" in text, "who started a job on a shared subject can be chosen"
    assert client.get("/jobs/?by=sato").content.decode().count("<tr data-job=") == 3


def test_the_newest_are_found_first_and_more_is_said(client, analyst, monkeypatch):
    monkeypatch.setattr(search, "HITS_MAX", 3)
    monkeypatch.setattr(search, "BATCH", 2)
    monkeypatch.setattr("jobs.views.lists.HITS_MAX", 3)
    jobs = [make(analyst, f"harbour {n}") for n in range(6)]
    ids, has_more = hits("harbour", analyst)
    assert (ids, has_more) == ([job.pk for job in reversed(jobs[3:])], True)
    client.force_login(analyst)
    text = client.get("/jobs/?q=harbour").content.decode()
    assert "only the newest of them are searched here, 3 at most" in text
    assert text.count("data-job=") == 3


def test_a_beginning_is_looked_for_where_too_few_have_the_whole_word(analyst, monkeypatch):
    monkeypatch.setattr(search, "HITS_MAX", 3)
    whole = [make(analyst, f"harbour {n}") for n in range(2)]
    begins = make(analyst, "harbours")
    assert hits("harbour", analyst) == ([whole[1].pk, whole[0].pk, begins.pk], False)
    newer = make(analyst, "harbours again")
    assert hits("harbour", analyst) == ([whole[1].pk, whole[0].pk, newer.pk], True), "a newer beginning takes no whole word away"
    whole.append(make(analyst, "harbour 2"))
    assert hits("harbour", analyst) == ([job.pk for job in reversed(whole)], True), "beginnings are more, also where there is no place"
    whole.append(make(analyst, "harbour 3"))
    assert hits("harbour", analyst) == ([job.pk for job in reversed(whole[1:])], True)
    assert hits("harbours", analyst) == ([newer.pk, begins.pk], False)


@pytest.mark.parametrize(("others", "found", "more"), [(6, True, True), (7, False, True)])
def test_each_batch_is_twice_as_large_and_their_end_is_said(analyst, other, monkeypatch, others, found, more):
    """1 + 2 + 4 texts are looked at for somebody whose subjects are too many to name."""
    monkeypatch.setattr(search, "BATCH", 1)
    monkeypatch.setattr(search, "BATCHES_MAX", 3)
    monkeypatch.setattr(queries, "SUBJECTS_NAMED", 0)
    Subject.objects.create(name="S", created_by=analyst)
    mine = make(analyst, "harbour mine")
    for _ in range(others):
        make(other, "harbour")
    assert hits("harbour", analyst) == ([mine.pk] if found else [], more)


def test_the_words_narrow_what_other_filters_leave(client, analyst):
    cancelled, waiting = make(analyst, "harbour"), make(analyst, "harbour")
    JobManager().cancel_job(cancelled.pk)
    client.force_login(analyst)
    text = client.get("/jobs/?q=harbour&state=cancelled").content.decode()
    assert str(cancelled.pk) in text
    assert str(waiting.pk) not in text
    assert client.get("/api/jobs?q=harbour&state=cancelled").json()["count"] == 1


def test_what_goes_to_the_archive_is_no_longer_found_until_it_is_back(analyst):
    job = make(analyst, "harbour")
    JobManager().cancel_job(job.pk)
    archive.clean_up({"CANCELLED": 0})
    assert hits("harbour", analyst) == ([], False)
    assert not JobText.objects.exists()
    archive.restore([job.pk])
    assert hits("harbour", analyst) == ([job.pk], False)


def test_a_search_that_gives_up_says_that_there_may_be_more(analyst, monkeypatch):
    monkeypatch.setattr(search, "BATCH", 2)
    monkeypatch.setattr(search, "BATCHES_MAX", 2)
    make(analyst, "harbour of old")
    chatty = make(analyst, "chatty")
    JobManager().start([chatty.pk], worker_id="w", host="h")
    lines = [{"level": Level.WARNING, "message": f"harbour {n}"} for n in range(10)]
    JobManager().append_logs(chatty.pk, lines, attempt=1)
    assert hits("harbour", analyst) == ([chatty.pk], True)


def test_other_parameters_are_found_and_the_old_ones_no_longer(analyst):
    job = make(analyst, "A job", gate="lighthouse")
    JobManager().start([job.pk], worker_id="w", host="h")
    JobManager().mark_failed(job.pk, "It broke", attempt=1)
    JobManager().retry_job(job.pk, by=analyst, parameters={"total": 3, "gate": "pier"})
    assert hits("lighthouse", analyst) == ([], False)
    assert hits("pier", analyst) == ([job.pk], False)
    assert hits("broke", analyst) == ([job.pk], False)


@pytest.mark.parametrize("name", ["https://example.com/path?q=1", "anna@example.com", "report_2024.pdf", "1.5", "a/b/c"])
def test_parts_of_addresses_and_names_of_files_are_words(analyst, name):
    job = make(analyst, f"Look at {name}")
    for text in (name, name.replace("/", " ").replace(".", " "), f'"{name}"'):
        assert hits(text, analyst) == ([job.pk], False), text
