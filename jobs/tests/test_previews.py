"""A look into the files of a job, what waits for what as a drawing, and who did what."""

import io
import json
import zipfile

import pytest
import xlsxwriter

from jobs.graph import graph_of
from jobs.manager import JobManager
from jobs.models import Artifact, Job
from jobs.presentation import decorate
from jobs.previews import WORKBOOK, WORKBOOK_BYTES, preview_of
from jobs.tests.fixtures import create, reload

pytestmark = pytest.mark.django_db


@pytest.fixture
def file_of(running_job, tmp_path):
    def make(name, media_type, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return Artifact.keep(running_job, path, name, media_type)

    return make


class TestPreview:
    def test_the_beginning_of_a_table(self, file_of):
        found = preview_of(file_of("a.csv", "text/csv", "name,note\n" + 'Ada,"one, two"\n' * 60))
        (table,) = found.tables
        assert (table.columns, len(table.rows), table.rows[0], table.more) == (["name", "note"], 50, ["Ada", "one, two"], True)

    def test_a_cut_table_says_so(self, file_of):
        (table,) = preview_of(file_of("a.csv", "text/csv", "name\n" + ("x" * 200_000 + "\n") * 2)).tables
        assert (len(table.rows[0][0]), table.more) == (300, True)

    def test_lines_of_json_are_a_table(self, file_of):
        lines = [json.dumps({"n": 1, "who": {"name": "Ada"}}), json.dumps({"n": 2, "also": None})]
        (table,) = preview_of(file_of("a.jsonl", "application/jsonl", "\n".join(lines))).tables
        assert (table.columns, table.rows) == (["n", "who", "also"], [["1", '{"name": "Ada"}', ""], ["2", "", "null"]])

    def test_what_other_programs_take_for_the_end_of_a_line_is_part_of_it(self, file_of):
        (table,) = preview_of(file_of("a.jsonl", "application/jsonl", '{"text":"one\u2028two\u0085three"}')).tables
        assert table.rows == [["one\u2028two\u0085three"]]

    def test_the_names_in_an_archive(self, file_of):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a/b.txt", "x" * 1234)
        (table,) = preview_of(file_of("a.zip", "application/zip", packed.getvalue())).tables
        assert table.rows == [["a/b.txt", "1,234"]]

    def test_the_sheets_of_a_workbook_that_have_rows(self, client, file_of, analyst):
        packed = io.BytesIO()
        with xlsxwriter.Workbook(packed, {"strings_to_formulas": False}) as book:
            for name, rows in (("People", 60), ("Places", 1), ("Nothing", 0)):
                sheet = book.add_worksheet(name)
                for line, cells in enumerate([("name", "note", "count"), *[("Ada", "=1+1", 1.5)] * rows]):
                    sheet.write_row(line, 0, cells)
        kept = file_of("a.xlsx", WORKBOOK, packed.getvalue())
        people, places = preview_of(kept).tables
        assert (people.name, people.columns, len(people.rows), people.more) == ("People", ["name", "note", "count"], 50, True)
        assert (places.name, places.rows, places.more) == ("Places", [["Ada", "=1+1", "1.5"]], False)
        client.force_login(analyst)
        text = client.get(f"{kept.get_absolute_url()}preview/").content.decode()
        assert text.count("the sheet has more") == 1
        assert "<h2>Places</h2>" in text

    def test_a_workbook_that_unpacks_to_too_much_has_none(self, file_of):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/worksheets/sharedStrings.xml", "x" * (WORKBOOK_BYTES + 1))
        assert preview_of(file_of("a.xlsx", WORKBOOK, packed.getvalue())).kind == "none"

    def test_what_is_not_what_it_is_called_has_none(self, file_of):
        assert preview_of(file_of("a.zip", "application/zip", b"no archive")).kind == "none"
        assert preview_of(file_of("a.xlsx", WORKBOOK, b"no archive")).kind == "none"
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("[Content_Types].xml", "<Types")
        assert preview_of(file_of("b.xlsx", WORKBOOK, packed.getvalue())).kind == "none"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("[Content_Types].xml", '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>')
        assert preview_of(file_of("c.xlsx", WORKBOOK, packed.getvalue())).kind == "none"
        assert preview_of(file_of("a.jsonl", "application/jsonl", "{broken")).kind == "none"
        assert preview_of(file_of("b.jsonl", "application/jsonl", "[" * 60_000)).kind == "none"
        assert preview_of(file_of("a.bin", "application/octet-stream", b"\0\1")).kind == "none"

    def test_html_is_shown_as_text_and_never_run(self, client, file_of, analyst):
        client.force_login(analyst)
        page = file_of("a.html", "text/html", "<script>alert(1)</script>")
        text = client.get(f"{page.get_absolute_url()}preview/").content.decode()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        answer = client.get(f"{page.get_absolute_url()}?inline=1")
        assert answer["Content-Disposition"].startswith("attachment")
        assert answer["X-Frame-Options"] == "DENY"
        answer.close()

    def test_a_pdf_is_shown_inside_its_page(self, client, file_of, analyst):
        client.force_login(analyst)
        report = file_of("r.pdf", "application/pdf", b"%PDF-1.7")
        assert f'src="{report.get_absolute_url()}?inline=1"' in client.get(f"{report.get_absolute_url()}preview/").content.decode()
        inline = client.get(f"{report.get_absolute_url()}?inline=1")
        assert inline["Content-Disposition"].startswith("inline")
        assert "frame-ancestors 'self'" in inline["Content-Security-Policy"]
        inline.close()

    def test_another_persons_file_does_not_exist(self, client, file_of, other):
        client.force_login(other)
        secret = file_of("a.csv", "text/csv", "a\n")
        assert client.get(f"{secret.get_absolute_url()}preview/").status_code == 404
        assert client.get(f"{secret.get_absolute_url()}?inline=1").status_code == 404

    def test_a_file_that_is_gone_is_a_404(self, client, file_of, analyst):
        client.force_login(analyst)
        gone = file_of("a.csv", "text/csv", "a\n")
        gone.file.storage.delete(gone.file.name)
        assert client.get(f"{gone.get_absolute_url()}preview/").status_code == 404


class TestGraph:
    def test_each_job_stands_right_of_all_that_it_needs(self, analyst):
        first, second = create(created_by=analyst), create(created_by=analyst)
        third = create(created_by=analyst, depends_on=[first.pk])
        last = create(created_by=analyst, depends_on=[second.pk, third.pk])
        drawn = graph_of(decorate(list(Job.objects.order_by("created_at"))))
        x = {node.job.pk: node.x for node in drawn.nodes}
        assert x[first.pk] == x[second.pk] < x[third.pk] < x[last.pk]
        assert len(drawn.lines) == 3
        assert len({(node.x, node.y) for node in drawn.nodes}) == 4

    def test_jobs_that_wait_for_nobody_are_not_drawn(self, analyst):
        assert graph_of([create(created_by=analyst), create(created_by=analyst)]) is None

    def test_what_the_viewer_may_not_see_is_not_drawn(self, client, analyst, other):
        hidden = create(created_by=other, name="Secret work")
        mine = create(created_by=analyst, depends_on=[hidden.pk])
        client.force_login(analyst)
        text = client.get(mine.get_absolute_url()).content.decode()
        assert "What waits for what" not in text


class TestWhoDidWhat:
    def test_people_and_what_they_did(self, client, job, analyst, admin_user):
        manager = JobManager()
        manager.pause_job(job.pk, by=admin_user)
        manager.resume_job(job.pk, by=analyst)
        manager.set_priority(job.pk, 20, by=admin_user)
        manager.hold([job.pk], "Waits for memory")
        manager.cancel_job(job.pk, "wrong site", by=admin_user)
        done = list(reload(job).logs.exclude(by="").values_list("by", "message"))
        assert done == [
            ("ortega", "Created by ortega"),
            ("admin", "Paused by admin"),
            ("ortega", "Resumed by ortega"),
            ("admin", "admin changed the priority to high"),
            ("admin", "Cancelled by admin: wrong site"),
        ]
        client.force_login(analyst)
        text = client.get(job.get_absolute_url()).content.decode()
        assert text.index("Who did what") < text.index("Cancelled by admin: wrong site</a>")

    def test_what_the_system_did_is_not_among_it(self, job):
        manager = JobManager()
        assert manager.start([job.pk], worker_id="atlas-1", host="atlas")
        manager.mark_failed(job.pk, "no answer", attempt=1)
        assert [line.by for line in reload(job).logs.exclude(by="")] == ["ortega"]
