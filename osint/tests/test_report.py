"""The report: every script is shown by a real glyph, hostile data stay data, and it holds a thousand documents."""

import io
import re

import pytest
import typst
from pypdf import PdfReader
from pypdf.generic import ContentStream

from osint.job_types.pdf_generation import FONTS
from osint.models import Entity
from osint.tests.fixtures import add_document, run_here

pytestmark = pytest.mark.django_db

SCRIPTS = {
    "Latin": "Zürich, Łódź, Þórr, Ångström", "Greek": "Αθήνα Σωκράτης", "Cyrillic": "Київ Москва", "Arabic": "محمد القاهرة", "Hebrew": "ירושלים שלום",
    "Devanagari": "नई दिल्ली महात्मा", "Thai": "กรุงเทพมหานคร สวัสดี", "Chinese": "北京 上海 漢字", "Japanese": "東京 ひらがな カタカナ", "Korean": "서울 한국어",
}  # fmt: skip


def report(subject, by, **parameters):
    job = run_here("pdf_generation", subject, by, **parameters)
    with job.artifacts.get().file.open("rb") as stream:
        return job, PdfReader(io.BytesIO(stream.read()))


def glyph_ids(reader):
    """The glyph ids that the pages show: two bytes each in the embedded fonts (Identity-H)."""
    found = []
    for page in reader.pages:
        for operands, operator in ContentStream(page.get_contents(), reader).operations:
            if operator not in (b"Tj", b"TJ"):
                continue
            for text in operands[0] if isinstance(operands[0], list) else operands:
                if isinstance(text, str | bytes):
                    raw = text if isinstance(text, bytes) else text.original_bytes
                    found += [int.from_bytes(raw[n : n + 2], "big") for n in range(0, len(raw), 2)]
    return found


def test_every_script_is_shown_by_a_real_glyph(subject, analyst):
    for script, text in SCRIPTS.items():
        Entity.objects.create(subject=subject, type="organisation", key=script, name=text, mention_count=3)
    job, reader = report(subject, analyst, title=" · ".join(SCRIPTS.values()))
    ids = glyph_ids(reader)
    assert len(ids) > 500
    assert 0 not in ids, "glyph 0 is .notdef"
    fonts = {
        str(f["/BaseFont"]).partition("+")[2]
        for page in reader.pages
        for f in (x.get_object() for x in page["/Resources"]["/Font"].values())
    }
    assert {name.partition("-")[0] for name in fonts} >= {
        "NotoSans",
        "NotoSansArabic",
        "NotoSansHebrew",
        "NotoSansDevanagari",
        "NotoSansThai",
        "DroidSansFallback",
        "NanumGothic",
    }
    assert job.result_data["pages"] == len(reader.pages)


def test_a_missing_glyph_would_be_seen(tmp_path):
    """The test above can fail."""
    (tmp_path / "x.typ").write_text("አዲስ አበባ")
    typst.compile(str(tmp_path / "x.typ"), str(tmp_path / "x.pdf"), font_paths=[str(FONTS)], ignore_system_fonts=True)
    assert 0 in glyph_ids(PdfReader(tmp_path / "x.pdf"))


def test_what_no_font_shows_is_a_box_and_said(subject, analyst):
    Entity.objects.create(subject=subject, type="organisation", key="x", name="አዲስ 🎉 Bank", mention_count=3)
    _, reader = report(subject, analyst)
    assert 0 not in glyph_ids(reader)
    assert "4 characters of scripts without a font" in " ".join(" ".join(page.extract_text() for page in reader.pages).split())


def test_it_is_an_archive_pdf_with_contents_and_page_numbers(subject, analyst):
    add_document(subject, "Anna Keller spoke on 3 June 2023 in Zürich.")
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection"):
        run_here(job_type, subject, analyst)
    _, reader = report(subject, analyst)
    metadata = reader.root_object["/Metadata"].get_object().get_data().decode()
    assert re.search(r"pdfaid:part>?=?\"?2", metadata)
    text = "\n".join(page.extract_text() for page in reader.pages)
    for words in (
        "Contents",
        "Summary",
        "Key entities",
        "Timeline",
        "Documents",
        "Duplicates",
        f"Page 2 of {len(reader.pages)}",
        "Anna Keller",
        "3 Jun 2023",
    ):
        assert words in text, words


def test_data_are_never_markup(subject, analyst):
    """S6: what a page says cannot read files, run code or fetch from inside the renderer."""
    hostile = '#read("/etc/passwd") #eval("1") #import "@preview/x:0.1.0" $x$ *bold* _it_ <label> @ref `raw` \\ // /* = Heading'
    subject.name, subject.notes = hostile, hostile
    subject.save()
    add_document(subject, "x", title=hostile, url="https://site.example/#read(1)")
    Entity.objects.create(subject=subject, type="person", key="h", name=hostile, mention_count=1)
    _, reader = report(subject, analyst)
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    assert "root:" not in text
    assert '#read("/etc/passwd")' in text
    assert "*bold*" in text


def test_an_empty_subject_has_a_report_that_says_so(subject, analyst):
    _, reader = report(subject, analyst)
    text = " ".join(page.extract_text() for page in reader.pages)
    assert "No documents were captured." in text
    assert "No dated events were found." in text


def test_a_thousand_documents(subject, analyst):
    for n in range(1000):
        add_document(
            subject, f"Person {n} spoke on {n % 28 + 1} June {1990 + n % 30}.", title=f"Statement number {n} about the sale of two carriers"
        )
    job, reader = report(subject, analyst)
    text = reader.pages[-3].extract_text() + reader.pages[-4].extract_text()
    assert job.result_data["pages"] > 60
    assert "Statement number 9" in text
