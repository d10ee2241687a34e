"""Read a person's own files into a subject: HTML, PDF, text, CSV, JSON, WARC, or a ZIP of them."""

import csv
import io
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import IO, Any

from django import forms
from django.db import transaction
from django.utils.dateparse import parse_datetime
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from jobs import words
from jobs.errors import AllItemsFailed, InvalidParameters, Kind
from jobs.models import Job
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint.capture import Unreadable, clean, digest_of, read_body
from osint.fetching import URL_CHARS_MAX
from osint.models import Document, Entity, Upload, subject_of
from osint.storing import store_document

MEMBER_BYTES_MAX = 50_000_000
MEMBERS_MAX = 5_000
KEY_BYTES = 1_800
TOTAL_BYTES_MAX = 1_000_000_000
RATIO_MAX = 200  # of unpacked to packed size: more is a bomb
RECORDS_MAX = 200_000
RECORDS_A_BATCH = 500
SUFFIX_TYPES = {
    ".html": "text/html", ".htm": "text/html", ".xhtml": "application/xhtml+xml", ".pdf": "application/pdf", ".txt": "text/plain",
    ".md": "text/plain", ".log": "text/plain", ".csv": "text/csv", ".json": "application/json", ".warc": "application/warc", ".zip": "application/zip",
}  # fmt: skip
TAKEN = "HTML, PDF, text, CSV, JSON, WARC and ZIP"


class UploadsField(forms.CharField):
    """Ids of uploads; the page puts them in after it has stored the files."""

    widget = forms.HiddenInput

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        given = value.split(",") if isinstance(value, str) else value or []
        try:
            return [str(uuid.UUID(str(v).strip())) for v in given if str(v).strip()]
        except ValueError:
            raise forms.ValidationError("Uploads are named by their ids.") from None

    def validate(self, value: list[str]) -> None:  # type: ignore[override]
        if not value:
            raise forms.ValidationError("Upload at least one file on the page of the subject.")

    def run_validators(self, value: list[str]) -> None:  # type: ignore[override]
        """The ids were checked above."""


class FileImportForm(forms.Form):
    uploads = UploadsField(label="Files")
    tables = forms.BooleanField(
        label="The rows of CSV files are records of people or companies", required=False,
        help_text="They can then be compared with each other to find duplicates.",
    )  # fmt: skip


def check_subject(parameters: dict[str, Any], subject_id: Any) -> None:
    """All uploads are of the subject; one of another is as one that does not exist."""
    found = Upload.objects.filter(pk__in=parameters["uploads"], subject_id=subject_id)
    missing = set(parameters["uploads"]) - {str(pk) for pk in found.values_list("pk", flat=True)}
    if missing:
        raise InvalidParameters({"uploads": [f"There is no upload with the id {sorted(missing)[0]}."]})


def summarise(result: dict[str, Any]) -> str:
    text = f"{words.count(result['documents'], 'document')} stored"
    if result["records"]:
        text += f", {words.count(result['records'], 'record')}"
    return f"{text}, {words.count(result['failed'], 'file')} could not be read" if result["failed"] else text


@register(
    "file_import",
    label="Own files",
    form=FileImportForm,
    unit="file",
    describe=lambda p: f"Read {words.count(len(p['uploads']), 'file')}",
    summarise=summarise,
    show_parameters=lambda p: [("Files", f"{len(p['uploads']):,}"), ("Rows are records", "yes" if p.get("tables") else "no")],
    result_template="osint/_scrape_result.html",
    resumable=True,
    needs_subject=True,
    check_subject=check_subject,
    hidden=True,  # it starts with an upload, on the page of a subject
    memory_limit_mb=1024,
    help=f"Reads {TAKEN} files that you upload to a subject.",
)
def file_import(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    job = Job.objects.get(pk=tracker.job_id)
    reader = Import(tracker, job, tables=parameters["tables"])
    uploads = Upload.objects.filter(pk__in=parameters["uploads"], subject_id=subject_of(job)).order_by("created_at", "pk")
    for upload in uploads:
        tracker.stage(upload.name)
        reader.read(upload)
    return reader.result()


@dataclass(frozen=True)
class Member:
    """One file to read: `name` tells it from the others of the job."""

    name: str
    content: bytes
    media_type: str
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 0
    captured: datetime | None = None  # as the file says


@dataclass
class Import:
    tracker: ProgressTracker
    job: Job
    tables: bool
    total: int = 0

    def __post_init__(self) -> None:
        self.settled = self.tracker.settled()
        rows = self.job.items.filter(outcome="failed").order_by("id").values_list("key", "reason")
        self.failures = [{"url": key, "reason": reason} for key, reason in rows if key in self.settled]

    def read(self, upload: Upload) -> None:
        self.tracker.update_step(f"Reading {upload.name}"[:200], 0)
        kind = kind_of(upload.name)
        prefix = f"{upload.name}#{upload.pk.hex[-8:]}"
        try:
            with upload.file.open("rb") as stream:
                if kind == "application/zip":
                    self.read_zip(upload, prefix, stream)
                elif kind == "application/warc":
                    self.read_warc(upload, prefix, stream)
                elif kind == "":
                    raise Unreadable(f"Files of this kind are not read; taken are {TAKEN}")
                else:
                    self.take(upload, Member(prefix, stream.read(), kind))
        except Exception as error:  # hostile files make parsers raise almost anything, and one file is no reason to stop
            self.failed(prefix, reason_of(error))

    def count(self, content: bytes) -> None:
        """Raises Unreadable once all that was unpacked is more than one job reads."""
        self.total += len(content)
        if self.total > TOTAL_BYTES_MAX:
            raise Unreadable(f"Unpacked, the files have more than {words.size(TOTAL_BYTES_MAX)}")

    def failed(self, key: str, reason: str) -> None:
        if key not in self.settled:
            self.tracker.item_failed(key, reason, kind=Kind.PERMANENT)
            self.failures.append({"url": key, "reason": reason})
            self.tracker.update_step(f"Could not read {key}"[:200])

    def read_zip(self, upload: Upload, prefix: str, stream: IO[bytes]) -> None:
        """Its members, within limits, whatever they say of their size; names are never used as paths."""
        with zipfile.ZipFile(stream) as archive:
            members = [info for info in archive.infolist() if not info.is_dir() and not hidden(info.filename)]
            if len(members) > MEMBERS_MAX:
                raise Unreadable(f"It holds {len(members):,} files; up to {MEMBERS_MAX:,} are read")
            for info in members:
                key = as_key(f"{prefix}/{info.filename}")
                kind = kind_of(info.filename)
                try:
                    if info.flag_bits & 1:
                        raise Unreadable("It is protected by a password")
                    if kind in ("", "application/zip"):
                        raise Unreadable(f"Files of this kind are not read; taken are {TAKEN}, and no ZIP in a ZIP")
                    with archive.open(info) as source:
                        content = read_bounded(source, min(MEMBER_BYTES_MAX, max(1_000_000, RATIO_MAX * info.compress_size)))
                    self.count(content)
                    if kind == "application/warc":
                        self.read_warc(upload, key, io.BytesIO(content))
                    else:
                        self.take(upload, Member(key, content, kind))
                except Exception as error:
                    self.failed(key, reason_of(error))

    def read_warc(self, upload: Upload, prefix: str, stream: IO[bytes]) -> None:
        """The responses in it, each as a page of its own address."""
        for number, record in enumerate(ArchiveIterator(stream)):
            if number >= MEMBERS_MAX:
                raise Unreadable(f"It holds more than the {MEMBERS_MAX:,} records that are read")
            if record.rec_type != "response" or not record.http_headers:
                continue
            url = record.rec_headers.get_header("WARC-Target-URI") or ""
            status = record.http_headers.get_statuscode() or ""
            key = as_key(f"{prefix}#{number} {url}")
            try:
                if not status.startswith("2") or not url:
                    self.tracker.item_skipped(key, f"It is the answer {status or 'without a status'}, and no page")
                    continue
                content = read_bounded(record.content_stream(), MEMBER_BYTES_MAX)
                self.count(content)
                header = record.http_headers.get_header("content-type") or ""
                captured = parse_datetime(record.rec_headers.get_header("WARC-Date") or "")
                self.take(upload, Member(key, content, header, url, tuple(record.http_headers.headers), int(status), captured))
            except Exception as error:
                self.failed(key, reason_of(error))

    def take(self, upload: Upload, member: Member) -> None:
        """One file as a document, with its records if it is a table, in one transaction with the mark that it is done."""
        if member.name in self.settled:
            return
        try:
            if len(member.content) > MEMBER_BYTES_MAX:
                raise Unreadable(f"It has {words.size(len(member.content))}; up to {words.size(MEMBER_BYTES_MAX)} are read")
            if len(member.url) > URL_CHARS_MAX:
                raise Unreadable(f"Its address has more than {URL_CHARS_MAX:,} characters")
            page = read_body(member.content, member.media_type, member.url)
            records = list(records_of(page.text)) if self.tables and page.content_type == "text/csv" else []
        except (Unreadable, csv.Error) as error:
            self.failed(member.name, str(error))
            return
        captured = member.captured or upload.created_at
        if Document.objects.filter(job=self.job, url=member.url, fetched_at__gte=captured).exclude(url="").exists():
            self.tracker.item_skipped(member.name, "A later capture of this address is in the same files")
            return
        with self.tracker.spending("writing"), transaction.atomic():
            store_document(
                self.job, member.url or f"file:{member.name}", page,
                {
                    "final_url": member.url or f"file:{member.name}", "http_status": member.status, "headers": [[k, clean(v)] for k, v in member.headers],
                    "size": len(member.content), "sha256": digest_of(member.content), "fetched_at": captured, "upload": upload,
                },
            )  # fmt: skip
            self.store_records(member.name, records)
            self.tracker.done(member.name)
        self.tracker.log_info(f"Read {member.name}: {words.count(len(page.text), 'character')}")
        self.tracker.update_step(f"Read {member.name}"[:200])

    def store_records(self, name: str, records: list[dict[str, str]]) -> None:
        made = {"subject_id": subject_of(self.job), "type": Entity.Type.RECORD, "job": self.job, "attempt": self.job.attempt}
        rows = [Entity(key=f"{name[-200:]}#{n:08d}", name=label_of(row), properties=row, **made) for n, row in enumerate(records, 1)]
        Entity.objects.bulk_create(rows, batch_size=RECORDS_A_BATCH, ignore_conflicts=True)

    def result(self) -> dict[str, Any]:
        documents = Document.objects.filter(job=self.job)
        count = documents.count()
        if not count and self.failures:
            raise AllItemsFailed(f"None of the files could be read; the first: {self.failures[0]['reason']}")
        return {
            "documents": count,
            "failed": len(self.failures),
            "failures": self.failures[:200],
            "records": Entity.objects.filter(job=self.job, type=Entity.Type.RECORD).count(),
            "bytes": sum(documents.values_list("size", flat=True)),
        }


def kind_of(name: str) -> str:
    """The type of a file by the end of its name; only WARC files are unpacked from gzip."""
    lower = name.lower()
    return "application/warc" if lower.endswith(".warc.gz") else SUFFIX_TYPES.get(PurePosixPath(lower).suffix, "")


def as_key(text: str) -> str:
    """A name as an item is known by; of one that is too long its beginning and its hash."""
    data = text.encode("utf-8", "replace").replace(b"\x00", b"")
    return data.decode() if len(data) <= KEY_BYTES else f"{data[:KEY_BYTES].decode('utf-8', 'ignore')}#{digest_of(data)[:16]}"


def reason_of(error: Exception) -> str:
    """In words where they are ours; else what was raised, for it may help."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, zipfile.BadZipFile | ArchiveLoadFailed | zlib.error | EOFError):
        return f"The file is broken: {error or type(error).__name__}"
    return f"It cannot be read: {type(error).__name__}: {error}"[:300]


def hidden(name: str) -> bool:
    """What systems put into a ZIP for themselves."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db")


def read_bounded(source: Any, limit: int) -> bytes:
    content = source.read(limit + 1)
    if len(content) > limit:
        raise Unreadable(f"Unpacked it has more than the {words.size(limit)} that are read")
    return content


def records_of(text: str) -> Iterator[dict[str, str]]:
    """The rows of a table by its header, whatever separates the columns. Raises Unreadable when it has none."""
    try:
        dialect: Any = csv.Sniffer().sniff(text[:20_000], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    reader = csv.DictReader(io.StringIO(text), dialect=dialect, skipinitialspace=True)
    if not reader.fieldnames or len(reader.fieldnames) < 2:
        raise Unreadable("It has no header with at least two columns, so its rows are no records")
    for number, row in enumerate(reader, 1):
        if number > RECORDS_MAX:
            raise Unreadable(f"It has more than the {RECORDS_MAX:,} rows that are taken")
        yield {
            str(name).strip()[:80]: clean(value)[:500] for name, value in row.items() if name and isinstance(value, str) and value.strip()
        }


def label_of(row: dict[str, str]) -> str:
    """What tells a record from others at a glance: its first values that are words."""
    values = [value for value in row.values() if not value.replace(".", "").isdigit()]
    return ", ".join(values[:3])[:300] or "Record"


def parameters_for(uploads: list[Upload], *, tables: bool = False) -> dict[str, Any]:
    return {"uploads": [str(upload.pk) for upload in uploads], "tables": tables}
