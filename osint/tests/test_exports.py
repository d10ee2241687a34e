"""Each format, read back by its own reader."""

import csv
import hashlib
import io
import json
import zipfile

import networkx
import openpyxl
import pytest
import stix2
from pymisp import MISPEvent

from osint.job_types.data_export import FORMATS
from osint.models import Entity
from osint.tests.fixtures import add_document, run_here

pytestmark = pytest.mark.django_db

HOSTILE = (
    "=1+1",
    "+cmd",
    "-2",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "<script>alert(1)</script>",
    "a\x0b\x1fb",
    "Ünïcødé 日本語 עברית 🎉",
    '"quoted", and, commas\nand lines',
    "x" * 250,
)
TEXT = (
    "Anna Keller of Meridian Holdings AG met Jan Lindqvist in Zürich on 3 June 2023. See https://evil.example.org/a, mail a.keller@meridian.com, call +41 44 668 18 00, "
    "10.0.0.1, 2001:db8::1, d41d8cd98f00b204e9800998ecf8427e, CVE-2021-44228, 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa, CH9300762011623852957, @keller, 47.3769, 8.5417, evil.example.org"
)


@pytest.fixture
def export(subject, analyst):
    add_document(subject, TEXT, title="=HYPERLINK(1)", published="2023-06-15")
    add_document(subject, TEXT + " And more.", title="Second")
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection"):
        run_here(job_type, subject, analyst)
    for n, name in enumerate(HOSTILE):
        Entity.objects.create(subject=subject, type="organisation", key=f"hostile {n}", name=name)
    job = run_here("data_export", subject, analyst, texts=True)

    def read(name):
        with job.artifacts.get(name=name).file.open("rb") as stream:
            return stream.read()

    read.job = job
    return read


def test_json_lines(export):
    rows = [json.loads(line) for line in export("export.jsonl").splitlines()]
    tables = {row["table"] for row in rows}
    assert tables == {"documents", "entities", "mentions", "events", "event_sources", "duplicates"}
    assert {row["name"] for row in rows if row["table"] == "entities"} >= set(HOSTILE)
    assert any(row.get("text") == TEXT for row in rows if row["table"] == "documents")


def test_csv_is_read_back_and_no_cell_is_a_formula(export):
    """S7: a cell that a spreadsheet would run begins with an apostrophe, as the page of the job says."""
    rows = list(csv.DictReader(io.StringIO(export("entities.csv").decode("utf-8-sig"), newline="")))
    names = [row["name"] for row in rows]
    assert {f"'{name}" for name in HOSTILE[:6]} <= set(names)
    assert set(HOSTILE[6:]) <= set(names)
    for table in ("documents", "entities", "mentions", "events", "event_sources", "duplicates"):
        for row in csv.reader(io.StringIO(export(f"{table}.csv").decode("utf-8-sig"), newline="")):
            for cell in row:
                assert not cell.startswith(("=", "+", "@", "\t", "\r")), (table, cell)
                assert not cell.startswith("-") or cell.lstrip("-").replace(".", "").isdigit(), (table, cell)


def test_the_workbook_has_texts_and_no_formulas(export):
    book = openpyxl.load_workbook(io.BytesIO(export("export.xlsx")))
    assert book.sheetnames == ["documents", "entities", "mentions", "events", "event_sources", "duplicates"]
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert {cell.data_type for cell in cells} <= {"s", "n"}
    assert all(cell.hyperlink is None for cell in cells)
    assert set(HOSTILE[:4]) <= {cell.value for cell in cells}


def test_stix(export):
    bundle = stix2.parse(export("stix-bundle.json"), allow_custom=False)
    kinds = {found.type for found in bundle.objects}
    assert kinds >= {
        "identity", "location", "note", "url", "email-addr", "domain-name", "ipv4-addr", "ipv6-addr", "file", "vulnerability", "user-account"
    }  # fmt: skip
    known = {found.id for found in bundle.objects}
    for found in bundle.objects:
        if found.type == "note":
            assert set(found.object_refs) <= known
        if found.type in ("url", "email-addr", "domain-name", "ipv4-addr", "user-account"):
            again = stix2.parse({k: v for k, v in json.loads(found.serialize()).items() if k != "id"} | {"type": found.type})
            assert again.id == found.id, "the id follows from the content (STIX 2.1, 2.9)"


def test_follow_the_money(export):
    rows = [json.loads(line) for line in export("entities.ftm.json").splitlines()]
    ids = {row["id"] for row in rows}
    assert {row["schema"] for row in rows} >= {"Person", "Organization", "Address", "PlainText", "Mention", "Event"}
    for row in rows:
        assert set(row) == {"id", "schema", "properties"}
        assert all(isinstance(values, list) and all(isinstance(v, str) for v in values) for values in row["properties"].values())
        if row["schema"] == "Mention":
            assert {row["properties"]["document"][0], row["properties"]["resolved"][0]} <= ids


def test_graphml(export):
    graph = networkx.read_graphml(io.BytesIO(export("graph.graphml")))
    kinds = networkx.get_node_attributes(graph, "kind")
    assert sorted(kinds.values()).count("document") == 2
    assert graph.number_of_edges() > 20
    assert "a b" in {label.replace("\x0b", " ") for label in networkx.get_node_attributes(graph, "label").values()} or "ab" in set(
        networkx.get_node_attributes(graph, "label").values()
    )


def test_misp(export):
    event = MISPEvent()
    event.from_dict(**json.loads(export("misp-event.json")))
    assert event.info == "Fieldwork: Meridian"
    kinds = {attribute.type for attribute in event.attributes}
    assert kinds >= {"full-name", "email", "url", "domain", "ip-dst", "md5", "vulnerability", "btc", "iban", "phone-number"}


def test_the_zip_has_all_files_with_their_checksums(export):
    with zipfile.ZipFile(io.BytesIO(export("export.zip"))) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert {row["name"] for row in manifest["files"]} | {"manifest.json"} == set(archive.namelist())
        for row in manifest["files"]:
            content = archive.read(row["name"])
            assert (len(content), hashlib.sha256(content).hexdigest()) == (row["size"], row["sha256"])
    assert len(manifest["files"]) == len(FORMATS) + 5  # CSV has a file a table


def test_only_what_was_asked_for(subject, analyst):
    job = run_here("data_export", subject, analyst, formats=["csv"])
    assert {a.name.rpartition(".")[2] for a in job.artifacts.all()} == {"csv", "zip"}


def test_a_table_with_more_rows_than_a_sheet_goes_on_in_the_next(export, subject, analyst, monkeypatch):
    monkeypatch.setattr("osint.job_types.data_export.SHEET_ROWS_MAX", 12)
    job = run_here("data_export", subject, analyst, formats=["xlsx"])
    with job.artifacts.get(name="export.xlsx").file.open("rb") as stream:
        book = openpyxl.load_workbook(stream)
    assert {"mentions", "mentions 2", "mentions 3"} <= set(book.sheetnames)
    rows = sum(sheet.max_row - 1 for sheet in book if sheet.title.startswith("mentions"))
    assert rows == sum(e.mention_count for e in subject.entities.all())
