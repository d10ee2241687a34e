"""What is read from a response, and the record that proves it."""

import hashlib
from datetime import UTC, datetime
from urllib.parse import urljoin

import pytest
from warcio.archiveiterator import ArchiveIterator

from osint.capture import Evidence, digest_of, read_page, to_text
from osint.fetching import Fetched, Hop


def fetched(body: bytes, kind: str = "text/html", **headers: str) -> Fetched:
    pairs = [("Content-Type", kind), *headers.items()]
    hop = Hop("https://example.org/a", 200, "OK", "HTTP/1.1", [("Host", "example.org")], pairs, body, datetime.now(UTC), 0.1)
    return Fetched(
        "https://example.org/a",
        [hop],
        body,
    )


ARTICLE = """<!doctype html><html lang="de-CH"><head><title>Titel | Seite</title><meta name="author" content="Anna Keller">
<meta property="article:published_time" content="2023-06-15"></head><body><nav><a href="/x">Nav</a></nav><article><h1>Titel</h1>
<p>Der Vorstand der Holding trat am 15. Juni 2023 in Zürich zusammen und beschloss den Verkauf von zwei Schiffen.</p>
<p>Weitere Angaben machte die Gesellschaft nicht; sie verwies auf den Jahresbericht. <a href="b?c=d#e">Bericht</a></p></article></body></html>"""


def test_an_article_is_read():
    page = read_page(fetched(ARTICLE.encode(), "text/html; charset=utf-8"))
    assert "trat am 15. Juni 2023 in Zürich zusammen" in page.text
    assert "Nav" not in page.text
    assert (page.title, page.author, page.published, page.language) == ("Titel", "Anna Keller", "2023-06-15", "de")
    assert page.links == ["https://example.org/x", "https://example.org/b?c=d"]


def test_deep_nesting_loses_nothing():
    page = read_page(fetched(("<html><body>" + "<div>" * 1000 + '<a href="/deep">Deep</a>' + "</div>" * 1000 + "</body></html>").encode()))
    assert page.links == ["https://example.org/deep"]
    assert page.problem == ""


@pytest.mark.parametrize("href", [
    "/a", "/a/b.html", "/a;b=c", "/a//b", "//other.example/x", "/./a", "/a/../b", "/a/.b", "/a?b=c", "?b", "b", "../b", "/a b", "/..", "/\\evil.example/x",
])  # fmt: skip
def test_a_link_is_joined_as_the_standard_library_does(href):
    page = read_page(fetched(ARTICLE.replace("/x", href).encode()))
    assert urljoin("https://example.org/a", href) in page.links


@pytest.mark.parametrize(
    ("body", "declared", "charset"),
    [
        ("Zürich".encode(), "", "utf-8"), ("Zürich".encode("latin-1"), "iso-8859-1", "iso-8859-1"),
        ("\ufeffZürich".encode("utf-8"), "latin-1", "utf-8-sig"), ("Zürich".encode("utf-16"), "", "utf-16"),
        (b'<meta charset="windows-1252">Z\xfcrich', "", "windows-1252"), ("Zürich".encode(), "no-such-charset", "utf-8"),
    ],
)  # fmt: skip
def test_the_charset_is_found(body, declared, charset):
    name, text = to_text(body, declared)
    assert name == charset
    assert text.endswith("Zürich")


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"\x00\x01\x02", b"<" * 5000, "<p>شركة</p>".encode()])
def test_a_page_without_text_is_still_a_page(body):
    assert read_page(fetched(body)).content_type == "text/html"


def test_what_is_not_html_keeps_its_type():
    page = read_page(fetched(b"%PDF-1.7", "application/pdf"))
    assert (page.content_type, page.text, page.links) == ("application/pdf", "", [])


def test_nul_never_reaches_the_database():
    assert read_page(fetched(b"a\x00b", "text/plain")).text == "ab"


def test_evidence_holds_request_and_response_byte_for_byte(tmp_path):
    """Read back by warcio itself; the body's hash is that of the document."""
    got = fetched(ARTICLE.encode(), "text/html", **{"Transfer-Encoding": "chunked"})
    path = tmp_path / "evidence-1.warc.gz"
    with Evidence(path) as evidence:
        evidence.add(got)
    with path.open("rb") as stream:
        records = [(r.rec_type, r.rec_headers.get_header("WARC-Target-URI"), r.content_stream().read()) for r in ArchiveIterator(stream)]
    assert [kind for kind, _, _ in records] == ["warcinfo", "response", "request"]
    assert records[1][1] == "https://example.org/a"
    assert hashlib.sha256(records[1][2]).hexdigest() == digest_of(got.last.body)


def test_evidence_that_was_cut_off_is_readable_up_to_the_last_record(tmp_path):
    path = tmp_path / "evidence-1.warc.gz"
    with Evidence(path) as evidence:
        evidence.add(fetched(b"first"))
        whole = path.stat().st_size
        evidence.add(fetched(b"second" * 100))
    path.write_bytes(path.read_bytes()[: whole + 40])
    bodies = []
    with path.open("rb") as stream:
        try:
            bodies.extend(record.content_stream().read() for record in ArchiveIterator(stream) if record.rec_type == "response")
        except Exception as error:  # whatever warcio says of the half record
            bodies.append(type(error).__name__)
    assert bodies[0] == b"first"
