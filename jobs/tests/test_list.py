"""The job list: pages by key, what is counted, CSV, saved views and actions on many."""

import csv
import io
from datetime import timedelta

import lxml.html
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import paging, words
from jobs.filters import SORTS
from jobs.manager import JobManager
from jobs.models import Job, SavedView
from jobs.paging import keyset_page
from jobs.states import Priority, Status
from jobs.tests.fixtures import reload

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(client, analyst):
    client.force_login(analyst)
    return client


def make(count, user=None, **options):
    return [JobManager().create_job("sample_steps", created_by=user, **options) for _ in range(count)]


def walk(sort, size):
    """All rows by going on to older pages, then back to the first by newer ones."""
    seen, after, pages = [], "", []
    while True:
        found = keyset_page(Job.objects.all(), among=Job.objects.all(), sort=sort, size=size, after=after)
        pages.append(found)
        seen += [row.pk for row in found.rows]
        if found.older is None:
            break
        after = str(found.older)
    back = [[row.pk for row in pages[-1].rows]]
    newer = pages[-1].newer
    while newer is not None:
        found = keyset_page(Job.objects.all(), among=Job.objects.all(), sort=sort, size=size, before=str(newer))
        back.insert(0, [row.pk for row in found.rows])
        newer = found.newer
    return seen, sum(back, [])


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "-priority", "priority", "name", "-name"])
def test_pages_show_each_row_once_there_and_back(sort):
    for n, job in enumerate(make(11)):
        Job.objects.filter(pk=job.pk).update(
            priority=[0, 10, 20][n % 3], name=f"Job {n % 4}", created_at=timezone.now() - timedelta(n // 2)
        )
    wanted = list(Job.objects.order_by(sort, "-pk" if sort[0] == "-" else "pk").values_list("pk", flat=True))
    for size in (1, 3, 4, 11, 20):
        there, back = walk(sort, size)
        assert there == wanted, size
        assert sorted(map(str, back)) == sorted(map(str, wanted)), size


def test_new_rows_in_front_move_nothing(analyst):
    make(6)
    first = keyset_page(Job.objects.all(), among=Job.objects.all(), sort="-created_at", size=3)
    make(2)
    second = keyset_page(Job.objects.all(), among=Job.objects.all(), sort="-created_at", size=3, after=str(first.older))
    assert not {row.pk for row in first.rows} & {row.pk for row in second.rows}


@pytest.mark.parametrize("after", ["", "x", "01a214d4-1962-729e-ba35-bb83a8e65700", "'; DROP TABLE jobs_job; --"])
def test_a_place_that_is_none_begins_at_the_start(page, analyst, after):
    make(2, analyst)
    response = page.get("/jobs/", {"after": after}, follow=True)
    assert response.status_code == 200
    assert response.content.decode().count("data-job=") == 2


def test_a_row_that_lost_its_place_begins_at_the_start(page, analyst):
    job = make(1, analyst)[0]
    JobManager().start([job.pk], worker_id="w", host="h")
    JobManager().mark_failed(job.pk, "It broke", attempt=1)
    JobManager().retry_job(job.pk, by=analyst)
    assert page.get(f"/jobs/?sort=-ended&after={job.pk}", follow=True).status_code == 200


def test_the_place_of_a_foreign_job_is_none(page, analyst, other):
    mine = make(3, analyst)
    Job.objects.filter(pk=mine[0].pk).update(name="A")
    [foreign] = make(1, other)
    Job.objects.filter(pk=foreign.pk).update(name="B")
    assert page.get(f"/jobs/?sort=name&after={foreign.pk}").content.decode().count("data-job=") == 3


def test_more_than_is_counted_is_said_to_be_more(page, analyst, monkeypatch):
    monkeypatch.setattr(paging, "COUNTED", 3)
    make(5, analyst)
    assert paging.counted(Job.objects.all()) == 4
    assert words.up_to(4, 3) == "3+"
    assert words.up_to(10_000, 10_000) == "10,000"


def test_ordered_by_their_end_only_ended_jobs_are_there(page, analyst, job):
    waiting, *_ = make(1, analyst)
    JobManager().cancel_job(job.pk)
    text = page.get("/jobs/?sort=-ended").content.decode()
    assert str(job.pk) in text
    assert str(waiting.pk) not in text


def test_the_csv_has_what_the_list_shows(page, analyst, other):
    mine = make(3, analyst)
    make(1, other)
    JobManager().cancel_job(mine[0].pk, "=1+1", by=analyst)
    Job.objects.filter(pk=mine[1].pk).update(name="=cmd|' /C calc'!A0")
    response = page.get("/jobs.csv?sort=created")
    assert response["Content-Disposition"] == 'attachment; filename="jobs.csv"'
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
    assert [row["id"] for row in rows] == [str(job.pk) for job in mine]
    assert rows[0]["status"] == "CANCELLED"
    assert rows[1]["name"] == "'=cmd|' /C calc'!A0"
    assert b"".join(page.get("/jobs.csv?state=cancelled").streaming_content).count(b"\n") == 2


def test_the_csv_has_the_chosen_columns(page, analyst, running_job):
    head, row = b"".join(page.get("/jobs.csv?columns=worker&columns=progress").streaming_content).decode().splitlines()
    assert head == "id,name,status,state,says,done,of,problems,worker"
    assert row.endswith(",0,4,0,atlas-1")
    assert b"".join(page.get("/jobs.csv").streaming_content).startswith(b"id,name,status,state,says,done,of,problems,worker"), (
        "as chosen last"
    )


class TestFilters:
    def shown(self, page, query):
        return lxml.html.fromstring(page.get(f"/jobs/?{query}").content)

    def test_those_without_a_field_are_shown_kept_and_can_be_left_out(self, page, analyst, running_job):
        JobManager().mark_failed(running_job.pk, "The host did not answer in 30 s", attempt=1)
        failure = reload(running_job).failure
        query = f"failure={failure}&ended=24h&type=web_scraping&type=data_export&state=failed"
        html = self.shown(page, query)
        chips = {chip.text.strip(): chip.find("a").get("href") for chip in html.xpath("//span[@class='chip on']")}
        assert set(chips) == {
            "Failure: The host did not answer in … s", "Ended: Last 24 hours", "Type: Web scraping", "Type: Data export",
        }  # fmt: skip
        assert chips["Ended: Last 24 hours"] == f"?failure={failure}&type=web_scraping&type=data_export&state=failed"
        assert chips["Type: Web scraping"] == f"?failure={failure}&ended=24h&type=data_export&state=failed"
        (form,) = html.xpath("//form[@data-filters]")
        assert sorted(form.xpath(".//input[@type='hidden']/@name")) == ["ended", "failure", "state", "type", "type"]

    def test_what_an_id_stands_for_is_told_to_those_who_may_see_it(self, page, analyst, other):
        theirs = make(1, other)[0]
        JobManager().start([theirs.pk], worker_id="w", host="h")
        JobManager().mark_failed(theirs.pk, "A secret of theirs", attempt=1)
        group = JobManager().create_group("Secret group", created_by=other)
        text = page.get(f"/jobs/?failure={reload(theirs).failure}&group={group.pk}").content.decode()
        assert "ecret" not in text

    def test_a_person_without_jobs_that_one_sees_is_named_and_left_out(self, page, analyst, other):
        make(1, analyst), make(1, other)
        for name in ("sato", "nobody"):
            text = page.get(f"/jobs/?by={name}").content.decode()
            assert f"Nobody whose jobs you see is called “{name}”" in text
            assert text.count("<tr data-job=") == 1
        assert "Nobody" not in page.get("/jobs/?by=ortega").content.decode()

    def test_empty_fields_of_the_form_are_nothing(self, page, analyst):
        make(2, analyst)
        html = self.shown(page, "type=&priority=&by=&since=&sort=&q=")
        assert len(html.xpath("//tr[@data-job]")) == 2
        assert html.xpath("//a[text()='CSV']/@href") == ["/jobs.csv"]

    def test_each_order_is_one_that_can_be_chosen(self, page, analyst):
        make(1, analyst)
        for sort in SORTS:
            (chosen,) = self.shown(page, f"sort={sort}").xpath("//select[@name='sort']/option[@selected]/@value")
            assert chosen == ("" if sort == "-created" else sort)

    def test_held_for_a_reason_whatever_its_figures(self, page, analyst):
        jobs = make(3, analyst)
        for job, reason in zip(jobs, ("Waits for memory: 1 GB needed", "Waits for memory: 22 GB needed", "Waits for disk"), strict=True):
            JobManager().hold([job.pk], reason)
        html = self.shown(page, "held_for=Waits for memory: … GB needed")
        assert set(html.xpath("//tr/@data-job")) == {str(job.pk) for job in jobs[:2]}


class TestWaysInRows:
    def rows(self, page, query=""):
        html = lxml.html.fromstring(page.get(f"/jobs/?{query}").content)
        return {row.get("data-job"): row.xpath(".//button[@form='way']") for row in html.xpath("//tr[@data-job]")}

    def test_the_likeliest_way_on_stands_beside_the_trouble(self, page, analyst):
        limited, done, waiting = make(3, analyst, memory_limit_mb=512)
        for job in (limited, done):
            JobManager().start([job.pk], worker_id="w", host="h")
        JobManager().mark_failed(limited.pk, "Needed more memory than the 512 MB it may use", kind="limit", attempt=1)
        JobManager().mark_completed(done.pk, {}, attempt=1)
        rows = self.rows(page)
        (button,) = rows[str(limited.pk)]
        assert button.text == "Continue with 1.0 GB of memory"
        assert rows[str(done.pk)] == rows[str(waiting.pk)] == []
        page.post(button.get("formaction"), {button.get("name"): button.get("value")})
        assert (reload(limited).status, reload(limited).memory_limit_mb) == (Status.PENDING, 1024)

    def test_the_queries_do_not_grow_with_the_trouble(self, page, analyst):
        counts = []
        for _ in range(2):
            for job in make(3, analyst):
                JobManager().start([job.pk], worker_id="w", host="h")
                JobManager().mark_failed(job.pk, "No answer", attempt=1)
            page.get("/jobs/")
            with CaptureQueriesContext(connection) as queries:
                page.get("/jobs/")
            counts.append(len(queries))
        assert counts[0] == counts[1]


class TestViews:
    def test_a_view_brings_back_its_filters(self, page, analyst):
        page.post("/jobs/views/", {"name": "My failures", "query": "state=failed&sort=-ended"})
        text = page.get("/jobs/").content.decode()
        assert "My failures" in text
        assert "?state=failed&amp;sort=-ended" in text

    def test_the_same_name_replaces_it(self, page, analyst):
        for query in ("state=failed", "state=running"):
            page.post("/jobs/views/", {"name": "Mine", "query": query})
        assert SavedView.objects.get(user=analyst).query == "state=running"

    @pytest.mark.parametrize("name", ["", "  ", "x" * 61])
    def test_a_bad_name_is_said_and_nothing_saved(self, page, name):
        response = page.post("/jobs/views/", {"name": name, "query": "state=failed"}, follow=True)
        assert "Nothing was saved." in response.content.decode()
        assert not SavedView.objects.exists()

    def test_another_persons_view_is_not_there(self, page, other):
        view = SavedView.objects.create(user=other, name="Theirs")
        assert "Theirs" not in page.get("/jobs/").content.decode()
        assert page.post(f"/jobs/views/{view.pk}/delete/").status_code == 404
        assert SavedView.objects.exists()

    def test_a_view_can_be_forgotten(self, page, analyst):
        view = SavedView.objects.create(user=analyst, name="Mine")
        page.post(f"/jobs/views/{view.pk}/delete/")
        assert not SavedView.objects.exists()


class TestMany:
    def act(self, page, action, jobs, **more):
        said = {"action": action, "job": [str(job.pk) for job in jobs], "confirmed": "1", **more}
        return page.post("/jobs/bulk/", said).content.decode()

    def test_the_priority_of_waiting_jobs(self, page, analyst, running_job):
        jobs = make(2, analyst)
        text = self.act(page, "priority", [*jobs, running_job], priority=str(int(Priority.HIGH)))
        assert "2 jobs have the new priority, 1 stayed as it was" in text
        assert [reload(job).priority for job in jobs] == [Priority.HIGH, Priority.HIGH]
        assert reload(jobs[0]).logs.latest("seq").message == "ortega changed the priority to high"

    def test_urgent_takes_a_right(self, page, analyst):
        [job] = make(1, analyst)
        assert "You may not make jobs urgent." in self.act(page, "priority", [job], priority=str(int(Priority.URGENT)))
        assert reload(job).priority == Priority.NORMAL
        assert "Choose a priority." in self.act(page, "priority", [job])

    def test_of_too_many_the_newest_are_taken_whatever_the_order(self, page, analyst, settings):
        jobs = make(3, analyst)
        settings.JOBS = {**settings.JOBS, "bulk_max": 1}
        said = {"action": "cancel", "everything": "1", "query": "sort=created", "confirmed": "1"}
        page.post("/jobs/bulk/", said)
        assert [reload(job).status for job in jobs] == [Status.PENDING, Status.PENDING, Status.CANCELLED]

    def test_keep_and_let_go(self, page, analyst):
        jobs = make(2, analyst)
        assert "2 jobs are kept" in self.act(page, "keep", jobs)
        assert all(reload(job).keep for job in jobs)
        assert "Was so already" in self.act(page, "keep", jobs[:1])
        assert "2 jobs are no longer kept" in self.act(page, "let_go", jobs)

    def test_the_api_does_the_same(self, page, analyst):
        jobs = make(2, analyst)
        ids = [str(job.pk) for job in jobs]
        answer = page.post("/api/jobs/bulk", {"action": "priority", "ids": ids, "priority": "LOW"}, "application/json")
        assert answer.json()["done"] == 2
        assert page.post("/api/jobs/bulk", {"action": "priority", "ids": ids}, "application/json").status_code == 400
        assert page.post("/api/jobs/bulk", {"action": "priority", "ids": ids, "priority": "URGENT"}, "application/json").status_code == 400
        assert {reload(job).priority for job in jobs} == {Priority.LOW}
        assert Job.objects.filter(status=Status.PENDING).count() == 2


class TestColumns:
    def classes(self, page, query=""):
        text = page.get(f"/jobs/{query}").content.decode()
        return text.partition('<table class="rows')[2].partition('"')[0].split()

    def test_the_usual_ones_and_those_chosen(self, page, analyst):
        make(1, analyst)
        assert self.classes(page) == ["with-progress", "with-time", "with-by", "with-created"]
        assert self.classes(page, "?columns=&columns=worker&columns=type&columns=nonsense") == ["with-type", "with-worker"]

    def test_they_stay_chosen_until_others_are(self, page, analyst):
        make(1, analyst)
        self.classes(page, "?columns=priority")
        assert self.classes(page, "?state=waiting") == ["with-priority"]
        assert self.classes(page, "?columns=") == ["with-none"]

    def test_unknown_ones_are_named_and_choose_nothing(self, page, analyst):
        make(1, analyst)
        assert "Columns: there is none called “colour”" in page.get("/jobs/?columns=colour").content.decode()
        assert self.classes(page) == ["with-progress", "with-time", "with-by", "with-created"]

    def test_choosing_them_keeps_the_filters(self, page, analyst):
        make(1, analyst)
        text = page.get("/jobs/?state=waiting&sort=name").content.decode()
        form = text.partition("<summary>Columns</summary>")[2].partition("</form>")[0]
        assert '<input type="hidden" name="state" value="waiting">' in form
        assert '<input type="hidden" name="sort" value="name">' in form


class TestUndo:
    def undone(self, page, path, data):
        """Do something, then what its undo does."""
        shown = lxml.html.fromstring(page.post(path, data, follow=True).content)
        (form,) = shown.xpath("//form[@class='undo']")
        values = {}
        for field in form.xpath(".//input[@name != 'csrfmiddlewaretoken']"):
            values.setdefault(field.get("name"), []).append(field.get("value"))
        url = form.get("action")
        assert page.post(url, values, follow=True).status_code == 200

    def test_keeping_a_job(self, page, analyst, running_job):
        JobManager().mark_completed(running_job.pk, {}, attempt=1)
        self.undone(page, f"/jobs/{running_job.pk}/keep/", {"keep": "1"})
        assert reload(running_job).keep is False

    def test_pausing_a_waiting_job(self, page, job):
        self.undone(page, f"/jobs/{job.pk}/pause/", {})
        assert reload(job).hold_reason == ""

    def test_forgetting_a_view(self, page, analyst):
        view = SavedView.objects.create(user=analyst, name="Mine", query="state=failed&q=a%26b")
        self.undone(page, f"/jobs/views/{view.pk}/delete/", {})
        assert SavedView.objects.get().query == "state=failed&q=a%26b"

    def test_another_priority_for_many(self, page, analyst):
        jobs = make(3, analyst, priority=Priority.LOW)
        ids = [str(job.pk) for job in jobs]
        self.undone(page, "/jobs/bulk/", {"action": "priority", "job": ids, "confirmed": "1", "priority": "20"})
        assert {reload(job).priority for job in jobs} == {Priority.LOW}

    def test_there_is_none_where_the_jobs_differed(self, page, analyst):
        ids = [str(job.pk) for job in [*make(1, analyst, priority=Priority.LOW), *make(1, analyst)]]
        text = page.post("/jobs/bulk/", {"action": "priority", "job": ids, "confirmed": "1", "priority": "20"}).content.decode()
        assert 'class="undo"' not in text

    def test_it_is_offered_once_and_not_to_a_live_redraw(self, page, job):
        page.post(f"/jobs/{job.pk}/pause/")
        assert 'class="undo"' not in page.get("/", headers={"X-Regions": "1"}).content.decode()
        assert 'class="undo"' in page.get("/").content.decode()
        assert 'class="undo"' not in page.get("/").content.decode()


class TestStyleguide:
    def test_it_is_there_for_those_who_make_pages_alone(self, page, settings):
        assert page.get("/styleguide/").status_code == 404
        settings.DEBUG = True
        text = page.get("/styleguide/").content.decode()
        assert "The pieces that pages are made of" in text
        assert "Retries in 4 min 12 s" in text
