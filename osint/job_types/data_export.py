"""Write what was found about a subject to files that other tools read; row by row, in constant memory."""

import csv
import hashlib
import itertools
import json
import re
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

import orjson
from django import forms
from django.db import transaction
from django.db.models import QuerySet

from jobs import words
from jobs.language import told
from jobs.models import Artifact, Job
from jobs.processes import scratch_of
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint.models import Document, DuplicatePair, Entity, EventSource, Mention, Subject, TimelineEvent, subject_of
from osint.schemas import SCHEMAS

FORMATS = {
    "jsonl": "JSON Lines",
    "csv": "CSV",
    "xlsx": "Excel workbook (XLSX)",
    "stix": "STIX 2.1 bundle",
    "ftm": "FollowTheMoney JSON",
    "graphml": "GraphML",
    "misp": "MISP event",
}
ROWS_A_QUERY = 2000
SHEET_ROWS_MAX = 1_048_576  # of Excel
CELL_CHARS_MAX = 32_767  # of Excel
STEP_ROWS = 20_000


class DataExportForm(forms.Form):
    formats = forms.MultipleChoiceField(
        label="Formats", choices=lambda: [(name, told(label)) for name, label in FORMATS.items()], initial=list(FORMATS), widget=forms.CheckboxSelectMultiple,
        help_text="All files are put into one ZIP as well, with their checksums.",
    )  # fmt: skip
    texts = forms.BooleanField(label="With the full text of documents", required=False, help_text="In JSON Lines and CSV.")


def summarise(result: dict[str, Any]) -> str:
    return f"{words.count(len(result['files']), 'file')}, {words.size(result['bytes'])}: {words.count(result['rows'], 'row')}"


@register(
    "data_export",
    label="Data export",
    form=DataExportForm,
    unit="format",
    describe=lambda parameters: "Export the data",
    summarise=summarise,
    total_steps=lambda parameters: len(parameters["formats"]) + 1,
    show_parameters=lambda p: [
        ("Formats", ", ".join(FORMATS.get(f, f) for f in p["formats"])),
        ("Full texts", "yes" if p.get("texts") else "no"),
    ],
    result_template="osint/_files_result.html",
    resumable=True,
    needs_subject=True,
    help="Writes documents, entities, timeline and duplicates of a subject as JSON, CSV, Excel, STIX, FollowTheMoney, GraphML and MISP.",
)
def data_export(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    export = Export(tracker, Job.objects.get(pk=tracker.job_id), texts=parameters["texts"])
    shutil.rmtree(export.folder, ignore_errors=True)  # what a killed attempt left unfinished
    export.folder.mkdir(mode=0o700, parents=True)
    # what a job that this one continues wrote belongs to that one: here it is written again
    settled = {name for name, outcome in tracker.settled().items() if outcome == "ok"}
    for name, label in FORMATS.items():
        if name in parameters["formats"] and name not in settled:
            tracker.stage(label)
            tracker.update_step(f"Writing {label}", 0)
            export.keep(name, list(WRITERS[name](export)))
            tracker.update_step(f"Wrote {label}")
    if "zip" not in settled:
        tracker.stage("ZIP")
        tracker.update_step("Writing the ZIP", 0)
        export.keep("zip", [write_zip(export)])
        tracker.update_step("Wrote the ZIP")
    shutil.rmtree(export.folder, ignore_errors=True)
    return export.result()


@dataclass(frozen=True)
class File:
    path: Path
    media_type: str


@dataclass
class Export:
    """One run: its subject, its scratch folder, and the tables that the formats are made of."""

    tracker: ProgressTracker
    job: Job
    texts: bool = False
    subject: Subject = field(init=False)

    def __post_init__(self) -> None:
        self.subject = Subject.objects.get(pk=subject_of(self.job))
        self.folder = scratch_of(self.job.pk)

    def keep(self, item: str, files: list[File]) -> None:
        """The files and the mark that they are there, together."""
        with self.tracker.spending("writing"), transaction.atomic():
            for file in files:
                Artifact.keep(self.job, file.path, file.path.name, file.media_type)
            self.tracker.done(item)

    def file(self, name: str, media_type: str) -> File:
        return File(self.folder / name, media_type)

    def counted(self, rows: Iterator[Any]) -> Iterator[Any]:
        """The rows, with a word about how far it is now and then; also where a cancel is heard."""
        step = self.tracker.state.step
        for number, row in enumerate(rows, 1):
            if number % STEP_ROWS == 0:
                self.tracker.update_step(f"{step}: {number:,} rows", 0)
            yield row

    def tables(self) -> dict[str, tuple[list[str], Callable[[], Iterator[tuple]]]]:
        """Name → (columns, rows). The order of rows does not depend on when they were made."""
        of_subject = {"subject_id": self.subject.pk}
        documents = [
            "id", "url", "final_url", "title", "author", "published", "language", "fetched_at", "http_status", "content_type", "size", "sha256", "problem"
        ]  # fmt: skip
        if self.texts:
            documents.append("text")
        return {
            "documents": (documents, rows_of(Document.objects.filter(**of_subject, is_current=True).order_by("url", "pk"), documents)),
            "entities": (
                ["id", "type", "name", "key", "mention_count", "properties"],
                rows_of(
                    Entity.objects.filter(**of_subject).order_by("type", "key"), ["id", "type", "name", "key", "mention_count", "properties"]
                ),
            ),
            "mentions": (
                ["entity_id", "document_id", "start", "end", "text", "engine", "score"],
                rows_of(
                    Mention.objects.filter(entity__subject_id=self.subject.pk, document__is_current=True).order_by("pk"),
                    ["entity_id", "document_id", "start", "end", "text", "engine", "score"],
                ),
            ),
            "events": (
                ["id", "begins", "ends", "time", "precision", "title", "sources"],
                rows_of(TimelineEvent.objects.filter(**of_subject).order_by("begins", "ends", "pk"),
                        ["id", "begins", "ends", "clock", "precision", "title", "source_count"]),
            ),
            "event_sources": (
                ["event_id", "document_id", "start", "end", "text", "sentence", "rule", "note"],
                rows_of(EventSource.objects.filter(event__subject_id=self.subject.pk).order_by("pk"),
                        ["event_id", "document_id", "start", "end", "text", "sentence", "rule", "note"]),
            ),
            "duplicates": (
                ["id", "kind", "left", "right", "score", "reasons", "decision", "group_id"],
                rows_of(DuplicatePair.objects.filter(**of_subject).order_by("kind", "pk"),
                        ["id", "kind", "left", "right", "score", "reasons", "decision", "group_id"]),
            ),
        }  # fmt: skip

    def entities(self) -> Iterator[Entity]:
        return self.counted(Entity.objects.filter(subject=self.subject).order_by("type", "key").iterator(chunk_size=ROWS_A_QUERY))

    def documents(self) -> Iterator[Document]:
        rows = (
            Document.objects.filter(subject=self.subject, is_current=True).order_by("url", "pk").defer("text", "links", "headers", "diff")
        )
        return self.counted(rows.iterator(chunk_size=500))

    def mentions(self) -> Iterator["Mentioned"]:
        """Each entity that a document names, once, in the order of documents."""
        rows = Mention.objects.filter(entity__subject_id=self.subject.pk, document__is_current=True).order_by("document_id", "entity_id")
        columns = ("document_id", "entity_id", "entity__type", "entity__key", "entity__name", "entity__properties")
        last: Mentioned | None = None
        for row in self.counted(rows.values_list(*columns).iterator(chunk_size=ROWS_A_QUERY)):
            if last is None or (row[0], row[1]) != (last.document_id, last.entity.pk):
                if last is not None:
                    yield last
                last = Mentioned(row[0], Entity(id=row[1], type=row[2], key=row[3], name=row[4], properties=row[5]))
            last.count += 1
        if last is not None:
            yield last

    def result(self) -> dict[str, Any]:
        files = list(self.job.artifacts.order_by("name"))
        rows = {
            "documents": self.subject.documents.filter(is_current=True).count(),
            "entities": self.subject.entities.count(),
            "events": self.subject.events.count(),
            "duplicates": self.subject.duplicate_pairs.count(),
        }
        return {"files": [f.name for f in files], "bytes": sum(f.size for f in files), "rows": sum(rows.values()), **rows}


@dataclass
class Mentioned:
    document_id: uuid.UUID
    entity: Entity
    count: int = 0


def value_of(entity: Entity) -> str:
    """What it is, in full: the key of a very long one is cut."""
    return str(entity.properties.get("value") or entity.key)


def rows_of(rows: QuerySet, columns: list[str]) -> Callable[[], Iterator[tuple]]:
    return lambda: rows.values_list(*columns).iterator(chunk_size=ROWS_A_QUERY)


# -- tables -----------------------------------------------------------------------------------------------------


def as_json(value: Any) -> Any:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS, default=str)


def write_jsonl(export: Export) -> Iterator[File]:
    """One object a line, which says what it is."""
    file = export.file("export.jsonl", "application/jsonl")
    with file.path.open("wb") as stream:
        for name, (columns, rows) in export.tables().items():
            for row in export.counted(rows()):
                stream.write(as_json({"table": name, **dict(zip(columns, row, strict=True))}) + b"\n")
    yield file


def write_csv(export: Export) -> Iterator[File]:
    """RFC 4180 with a byte order mark, which Excel needs to read UTF-8. No cell is a formula."""
    for name, (columns, rows) in export.tables().items():
        file = export.file(f"{name}.csv", "text/csv")
        with file.path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            writer.writerows([as_cell(value) for value in row] for row in export.counted(rows()))
        yield file


def as_cell(value: Any) -> Any:
    if isinstance(value, str):
        return words.csv_cell(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return as_json(value).decode() if isinstance(value, list | dict) else value


def write_xlsx(export: Export) -> Iterator[File]:
    """A sheet a table; a table with more rows than a sheet holds goes on in the next. Text is text, never a formula or a link."""
    import xlsxwriter  # only here: each worker would carry it

    file = export.file("export.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")
    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": True,
    }
    with xlsxwriter.Workbook(file.path, {**options, "tmpdir": str(export.folder)}) as book:
        book.set_properties({"title": export.subject.name[:255], "created": export.job.created_at.replace(tzinfo=None)})
        bold = book.add_format({"bold": True})
        for name, (columns, rows) in export.tables().items():
            write_sheets(book, bold, name, columns, export.counted(rows()))
    yield file


def write_sheets(book: Any, bold: Any, name: str, columns: list[str], rows: Iterator[tuple]) -> None:
    sheet, line, number = None, SHEET_ROWS_MAX, 0
    for row in rows:
        if line >= SHEET_ROWS_MAX:
            number += 1
            sheet, line = new_sheet(book, bold, name if number == 1 else f"{name} {number}", columns), 1
        for column, value in enumerate(row):
            write_cell(sheet, line, column, value)
        line += 1
    if sheet is None:
        new_sheet(book, bold, name, columns)


def new_sheet(book: Any, bold: Any, name: str, columns: list[str]) -> Any:
    sheet = book.add_worksheet(name)
    sheet.freeze_panes(1, 0)
    for column, title in enumerate(columns):
        sheet.set_column(column, column, 24)
        sheet.write_string(0, column, title, bold)
    return sheet


def write_cell(sheet: Any, line: int, column: int, value: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        sheet.write_number(line, column, value)
    elif value not in (None, ""):
        text = value if isinstance(value, str) else as_json(value).decode() if isinstance(value, list | dict) else str(value)
        sheet.write_string(line, column, text if len(text) <= CELL_CHARS_MAX else f"{text[: CELL_CHARS_MAX - 1]}…")


# -- STIX 2.1 -----------------------------------------------------------------------------------------------------

STIX_NAMESPACE = uuid.UUID("00abedb4-aa42-466c-9c01-fed23315a9b7")  # STIX 2.1, 2.9: ids of observables follow from their content
OURS = uuid.UUID("9d6c1a0e-3f1b-4e0b-8a57-6c1f4b4f0a55")
HASH_NAMES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256"}
ACCOUNT_TYPES = {"phone": "phone", "btc": "bitcoin", "eth": "ethereum", "iban": "bank", "handle": "social"}


def write_stix(export: Export) -> Iterator[File]:
    file = export.file("stix-bundle.json", "application/stix+json")
    with file.path.open("wb") as stream:
        write_array(stream, {"type": "bundle", "id": f"bundle--{uuid.uuid5(OURS, str(export.job.pk))}"}, "objects", stix_objects(export))
    yield file


def write_array(stream: IO[bytes], head: dict[str, Any], name: str, items: Iterator[Any], *, tail: bytes = b"}") -> None:
    """A JSON object whose last member is a long list, item by item."""
    stream.write(as_json(head)[:-1] + b"," + as_json(name) + b":[")
    for number, item in enumerate(items):
        stream.write((b",\n" if number else b"\n") + as_json(item))
    stream.write(b"\n]" + tail)


def stix_objects(export: Export) -> Iterator[dict[str, Any]]:
    """Domain objects and observables for entities; for each document a note that refers to what it mentions."""
    now = stix_time(export.job.created_at)
    for entity in export.entities():
        made = stix_entity(entity, now)
        if made is not None:
            yield made
    for document_id, mentions in itertools.groupby(export.mentions(), key=lambda mentioned: mentioned.document_id):
        made_of = (stix_entity(mentioned.entity, now) for mentioned in mentions)
        refers_to = [made["id"] for made in made_of if made is not None]
        if refers_to:
            yield stix_note(document_id, refers_to, now)


def stix_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def stix_entity(entity: Entity, now: str) -> dict[str, Any] | None:
    kind = SCHEMAS[entity.type].stix
    if not kind:
        return None
    if kind in ("identity", "location", "vulnerability"):
        common = {"type": kind, "spec_version": "2.1", "id": f"{kind}--{entity.pk}", "created": now, "modified": now}
        return {**common, **stix_domain(entity)}
    content = stix_observable(entity)
    contributes = {name: value for name, value in content.items() if name != "account_type"} | (
        {"account_type": content["account_type"]} if "account_type" in content else {}
    )
    made = uuid.uuid5(STIX_NAMESPACE, json.dumps(contributes, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    return {"type": kind, "spec_version": "2.1", "id": f"{kind}--{made}", **content}


def stix_domain(entity: Entity) -> dict[str, Any]:
    if entity.type == Entity.Type.COORDINATES:
        latitude, _, longitude = entity.key.partition(",")
        return {"name": entity.name, "latitude": float(latitude), "longitude": float(longitude)}
    if entity.type == Entity.Type.PLACE:
        return {"name": entity.name, "region": entity.name}  # a location must have a region, a country or coordinates
    if entity.type == Entity.Type.CVE:
        return {"name": entity.name, "external_references": [{"source_name": "cve", "external_id": entity.name}]}
    known: dict[str, str] = {Entity.Type.PERSON: "individual", Entity.Type.ORGANISATION: "organization"}
    made: dict[str, Any] = {"name": entity.name, "identity_class": known.get(entity.type, "unknown")}
    if entity.properties:
        made["description"] = "; ".join(f"{name}: {value}" for name, value in entity.properties.items())
    return made


def stix_observable(entity: Entity) -> dict[str, Any]:
    if entity.type in HASH_NAMES:
        return {"hashes": {HASH_NAMES[entity.type]: entity.key}}
    if entity.type in ACCOUNT_TYPES:
        return {"account_type": ACCOUNT_TYPES[entity.type], "user_id": entity.key}
    return {"value": value_of(entity)}


def stix_note(document_id: uuid.UUID, mentioned: list[str], now: str) -> dict[str, Any]:
    document = Document.objects.defer("text", "links", "headers", "diff").get(pk=document_id)
    return {
        "type": "note", "spec_version": "2.1", "id": f"note--{document_id}", "created": now, "modified": now,
        "abstract": str(document), "object_refs": mentioned,
        "content": f"Captured {document.fetched_at.isoformat()} from {document.final_url or document.url}; SHA-256 {document.sha256}",
    }  # fmt: skip


# -- FollowTheMoney -------------------------------------------------------------------------------------------------


def write_ftm(export: Export) -> Iterator[File]:
    """One entity a line, as the command-line tools of FollowTheMoney and Aleph read them."""
    file = export.file("entities.ftm.json", "application/json+ftm")
    with file.path.open("wb") as stream:
        for made in ftm_entities(export):
            stream.write(as_json(made) + b"\n")
    yield file


def ftm_entities(export: Export) -> Iterator[dict[str, Any]]:
    for entity in export.entities():
        schema = SCHEMAS[entity.type]
        if schema.ftm:
            shown = entity.name if schema.stix in ("identity", "location") else value_of(entity)
            yield ftm(entity.pk, schema.ftm, {schema.ftm_property: shown, **ftm_notes(entity)})
    for document in export.documents():
        yield ftm(
            document.pk, "HyperText" if "html" in document.content_type else "PlainText",
            {
                "title": document.title, "sourceUrl": document.final_url, "author": document.author, "language": document.language,
                "retrievedAt": document.fetched_at.isoformat(), "date": document.published,
            },
        )  # fmt: skip
    for mentioned in export.mentions():
        detected = SCHEMAS[mentioned.entity.type].ftm
        if detected:
            document_id, entity_id = str(mentioned.document_id), str(mentioned.entity.pk)
            pk = uuid.uuid5(OURS, f"{document_id} {entity_id}")
            said = {"document": document_id, "resolved": entity_id, "name": mentioned.entity.name, "detectedSchema": detected}
            yield ftm(pk, "Mention", said)
    for row in TimelineEvent.objects.filter(subject=export.subject).order_by("begins", "pk").iterator(chunk_size=ROWS_A_QUERY):
        yield ftm(row.pk, "Event", {"name": row.title, "startDate": row.begins.isoformat(), "endDate": row.ends.isoformat()})


def ftm(pk: uuid.UUID, schema: str, properties: dict[str, str]) -> dict[str, Any]:
    return {"id": str(pk), "schema": schema, "properties": {name: [value] for name, value in properties.items() if value}}


def ftm_notes(entity: Entity) -> dict[str, str]:
    return {"notes": "; ".join(f"{name}: {value}" for name, value in entity.properties.items())} if entity.properties else {}


# -- GraphML ----------------------------------------------------------------------------------------------------------

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def write_graphml(export: Export) -> Iterator[File]:
    """Documents and entities as nodes, mentions as edges with their number."""
    file = export.file("graph.graphml", "application/graphml+xml")
    with file.path.open("w", encoding="utf-8") as stream:
        stream.write('<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
        for name, of, kind in (
            ("label", "node", "string"),
            ("kind", "node", "string"),
            ("url", "node", "string"),
            ("count", "edge", "int"),
        ):
            stream.write(f'<key id="{name}" for="{of}" attr.name="{name}" attr.type="{kind}"/>\n')
        stream.write('<graph edgedefault="undirected">\n')
        for document in export.documents():
            stream.write(node(document.pk, label=str(document), kind="document", url=document.final_url))
        for entity in export.entities():
            stream.write(node(entity.pk, label=entity.name, kind=entity.type))
        for mentioned in export.mentions():
            edge = (
                f'<edge source="{mentioned.document_id}" target="{mentioned.entity.pk}"><data key="count">{mentioned.count}</data></edge>'
            )
            stream.write(f"{edge}\n")
        stream.write("</graph>\n</graphml>\n")
    yield file


def node(pk: uuid.UUID, **data: str) -> str:
    inner = "".join(f"<data key={quoteattr(name)}>{escape(_NOT_XML.sub('', value))}</data>" for name, value in data.items())
    return f'<node id="{pk}">{inner}</node>\n'


# -- MISP -------------------------------------------------------------------------------------------------------------


def write_misp(export: Export) -> Iterator[File]:
    file = export.file("misp-event.json", "application/json")
    head = {
        "uuid": str(uuid.uuid5(OURS, f"misp {export.job.pk}")), "info": f"Fieldwork: {export.subject.name}", "date": export.job.created_at.date().isoformat(),
        "threat_level_id": "4", "analysis": "2", "distribution": "0", "published": False,
    }  # fmt: skip
    with file.path.open("wb") as stream:
        stream.write(b'{"Event":')
        write_array(stream, head, "Attribute", misp_attributes(export), tail=b"}}")
    yield file


def misp_attributes(export: Export) -> Iterator[dict[str, Any]]:
    for entity in export.entities():
        schema = SCHEMAS[entity.type]
        if entity.type != Entity.Type.DATE:
            yield {
                "uuid": str(entity.pk), "type": schema.misp, "category": schema.misp_category,
                "value": entity.name if schema.stix in ("identity", "location") else value_of(entity),
                "comment": f"{entity.get_type_display()}, {words.count(entity.mention_count, 'mention')}", "to_ids": False, "distribution": "5",
            }  # fmt: skip


# -- all in one ---------------------------------------------------------------------------------------------------------


def write_zip(export: Export) -> File:
    """All files of the job with a manifest of their checksums; its times are those of the job, so that it can be made again."""
    file = export.file("export.zip", "application/zip")
    stamp = export.job.created_at.timetuple()[:6]
    artifacts = list(export.job.artifacts.exclude(name=file.path.name).order_by("name"))
    manifest = {
        "subject": export.subject.name,
        "job": str(export.job.pk),
        "created": export.job.created_at.isoformat(),
        "files": [{"name": a.name, "size": a.size, "sha256": a.sha256, "media_type": a.media_type} for a in artifacts],
    }
    with zipfile.ZipFile(file.path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for artifact in artifacts:
            with artifact.file.open("rb") as source, archive.open(zipped(artifact.name, stamp), "w", force_zip64=True) as target:
                digest = hashlib.sha256()
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != artifact.sha256:
                raise OSError(f"{artifact.name} is not what was written: its checksum differs")
        archive.writestr(zipped("manifest.json", stamp), json.dumps(manifest, indent=1, ensure_ascii=False))
    return file


def zipped(name: str, stamp: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, stamp)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


WRITERS: dict[str, Callable[[Export], Iterator[File]]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "xlsx": write_xlsx,
    "stix": write_stix,
    "ftm": write_ftm,
    "graphml": write_graphml,
    "misp": write_misp,
}
