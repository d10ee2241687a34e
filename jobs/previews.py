"""A look into a file that a job made, without downloading it. Nothing of it is run: tables and text are read here, bounded, and
shown as text; pictures and PDF are shown by the browser, as what they are said to be and nothing else."""

import csv
import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from jobs.models import Artifact

ROWS = 50
COLUMNS = 30
BYTES = 256_000  # read at most
TEXT_SHOWN = 20_000
SHEETS = 12
WORKBOOK_BYTES = 20_000_000  # of all but its sheets, unpacked: that much of it is read at once
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
INLINE = IMAGES | {"application/pdf"}  # what the browser may show inside a page
SHEET = re.compile(r"xl/worksheets/sheet\d+\.xml")  # these are read row by row
WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
LINES_OF_JSON = frozenset({"application/jsonl", "application/x-ndjson", "application/json-lines"})

csv.field_size_limit(BYTES)  # a cell may be a whole document


@dataclass(frozen=True)
class Table:
    """`more`: there is more than is shown. Only a sheet of a workbook has a name."""

    columns: list[str]
    rows: list[list[str]]
    more: bool
    name: str = ""


@dataclass(frozen=True)
class Preview:
    """`kind` is tables, text, image, pdf or none; `more`: there is more than is shown."""

    kind: str
    tables: list[Table] = field(default_factory=list)
    text: str = ""
    more: bool = False


def preview_of(artifact: Artifact) -> Preview:
    """Raises FileNotFoundError when the file is gone. What cannot be read as what it is called has no preview."""
    media_type = artifact.media_type.partition(";")[0].strip().lower()
    if media_type in IMAGES:
        return Preview("image")
    if media_type == "application/pdf":
        return Preview("pdf")
    with artifact.file.open("rb") as stream:
        try:
            if media_type == "application/zip":
                return archive(stream)
            if media_type == WORKBOOK:
                return workbook(stream)
            if media_type.startswith("text/") or media_type in LINES_OF_JSON or "json" in media_type or media_type.endswith("xml"):
                data = stream.read(BYTES + 1)
                return text_or_table(artifact.name, media_type, data[:BYTES].decode("utf-8-sig", "replace"), len(data) > BYTES)
        except (ValueError, KeyError, SyntaxError, RecursionError, NotImplementedError, OSError, csv.Error, zipfile.BadZipFile, zlib.error):
            return Preview("none")
    return Preview("none")


def text_or_table(name: str, media_type: str, text: str, cut: bool) -> Preview:
    if media_type == "text/csv":
        found = list(islice(csv.reader(io.StringIO(text)), ROWS + 2))
        return Preview("tables", [table(found[0] if found else [], found[1:], cut)])
    if media_type in LINES_OF_JSON or name.endswith(".jsonl"):
        lines = [line for line in text.split("\n") if line.strip()]
        records = [json.loads(line) for line in lines[: min(ROWS + 1, len(lines) - cut)]]
        if records and all(isinstance(record, dict) for record in records):
            columns = list(dict.fromkeys(key for record in records for key in record))
            return Preview("tables", [table(columns, [[as_text(record.get(key, "")) for key in columns] for record in records], cut)])
    return Preview("text", text=text[:TEXT_SHOWN], more=cut or len(text) > TEXT_SHOWN)


def table(columns: list[str], rows: list[list[str]], cut: bool, name: str = "") -> Table:
    shown = [[cell[:300] for cell in row[:COLUMNS]] for row in rows[:ROWS]]
    return Table(columns[:COLUMNS], shown, cut or len(rows) > ROWS, name)


def archive(stream: Any) -> Preview:
    with zipfile.ZipFile(stream) as found:
        rows = [[entry.filename, f"{entry.file_size:,}"] for entry in found.infolist()[: ROWS + 1]]
    return Preview("tables", [table(["File", "Bytes"], rows, cut=False)])


def workbook(stream: Any) -> Preview:
    """Its sheets that have rows below their first, which names the columns."""
    from openpyxl import load_workbook  # only here: the web process would carry it

    with zipfile.ZipFile(stream) as packed:
        at_once = sum(entry.file_size for entry in packed.infolist() if not SHEET.fullmatch(entry.filename))
    if at_once > WORKBOOK_BYTES:
        return Preview("none")
    tables = []
    for sheet in load_workbook(stream, read_only=True, data_only=True).worksheets[:SHEETS]:
        found = [["" if cell is None else str(cell) for cell in row] for row in islice(sheet.iter_rows(values_only=True), ROWS + 2)]
        if len(found) > 1:
            tables.append(table(found[0], found[1:], cut=False, name=sheet.title))
    return Preview("tables", tables)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
