"""From a response to a Document: what the page says, and the record that proves it."""

import gzip
import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import py3langid
from htmldate.extractors import month_words
from lxml.html import HtmlElement
from trafilatura.utils import detect_encoding
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from osint.article import article, parse
from osint.fetching import Fetched, tls_context
from osint.walls import wall_in

GZIP_LEVEL = 3
LINKS_MAX = 2_000
TEXT_CHARS_MAX = 20_000_000
PDF_PAGES_MAX = 5_000
HTML_TYPES = ("text/html", "application/xhtml+xml")
FEED_TYPES = ("application/rss+xml", "application/atom+xml")
PLAIN_PATH = re.compile(r"/(?![/.])(?:(?!/\.)[^\s?#\\])*$")  # joins by being appended to the origin
META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)


@dataclass
class Page:
    """What was read from one response."""

    content_type: str
    charset: str = ""
    title: str = ""
    text: str = ""
    author: str = ""
    published: str = ""
    language: str = ""
    links: list[str] = field(default_factory=list)
    feeds: list[str] = field(default_factory=list)
    canonical_url: str = ""
    problem: str = ""  # Document.Problem
    unreadable: str = ""


class Unreadable(Exception):
    """What was sent cannot be read, with the reason in words."""


def read_page(fetched: Fetched) -> Page:
    """What a response says; one that cannot be read keeps its type alone, and `unreadable` says why."""
    try:
        return read_body(fetched.content, fetched.header("content-type"), fetched.last.url)
    except Exception as error:  # hostile pages make parsers raise almost anything, and one page is no reason to stop
        kind, _ = split_content_type(fetched.header("content-type"), fetched.content)
        reason = str(error) if isinstance(error, Unreadable) else f"It cannot be read: {type(error).__name__}: {error}"[:300]
        return Page(content_type=kind, unreadable=reason)


def read_body(content: bytes, header: str, url: str) -> Page:
    """Title, text, author, date, language and links of HTML, PDF, plain text, CSV or JSON; of anything else only its type.

    `header` is the Content-Type. Raises Unreadable, such as for a PDF with a password.
    """
    content_type, charset = split_content_type(header, content)
    page = Page(content_type=content_type)
    if content_type in HTML_TYPES:
        page.charset, html = to_text(content, charset)
        read_html(page, html, url)
    elif content_type == "application/pdf":
        read_pdf(page, content)
    elif content_type in ("text/plain", "text/csv", "text/markdown"):
        page.charset, page.text = to_text(content, charset)
    elif content_type == "application/json" or content_type.endswith("+json"):
        page.charset, page.text = to_text(content, charset)
        read_json(page)
    page.text = clean(page.text)[:TEXT_CHARS_MAX]
    if not page.language and len(page.text) >= 40:
        page.language = py3langid.classify(page.text[:5000])[0]
    return page


def read_pdf(page: Page, content: bytes) -> None:
    """The text of its pages, as pypdf reads it."""
    from pypdf import PdfReader  # only here: each worker would carry its 17 MB

    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("The PDF is protected by a password")
        count = len(reader.pages)
        if count > PDF_PAGES_MAX:
            raise Unreadable(f"The PDF has {count:,} pages; up to {PDF_PAGES_MAX:,} are read")
        page.text = "\n\n".join(sheet.extract_text() for sheet in reader.pages)
        if reader.metadata:
            page.title = clean(str(reader.metadata.title or ""))[:500]
            page.author = clean(str(reader.metadata.author or ""))[:300]
            made = reader.metadata.creation_date
            page.published = made.date().isoformat() if made else ""
    except Unreadable:
        raise
    except Exception as error:  # a broken file makes pypdf raise almost anything
        raise Unreadable(f"The PDF cannot be read: {error or type(error).__name__}") from None


def read_json(page: Page) -> None:
    """One value a line, so that places in it can be shown; what is not JSON stays as it is."""
    try:
        page.text = json.dumps(json.loads(page.text), ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        page.text = page.text.strip()


def split_content_type(header: str, content: bytes) -> tuple[str, str]:
    kind, _, rest = header.partition(";")
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", rest, re.IGNORECASE)
    kind = kind.strip().lower()
    if not kind:
        kind = "text/html" if content.lstrip()[:100].lower().startswith((b"<!doctype html", b"<html")) else "application/octet-stream"
    return kind, charset[1] if charset else ""


def to_text(content: bytes, declared: str) -> tuple[str, str]:
    """(charset, text): a byte order mark wins, then the header, then <meta>, then a guess from the bytes."""
    meta = META_CHARSET.search(content[:4096])
    candidates = [declared, meta[1].decode("ascii") if meta else ""]
    if content.startswith(b"\xef\xbb\xbf"):
        candidates.insert(0, "utf-8-sig")
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        candidates.insert(0, "utf-16")
    for name in filter(None, candidates):
        try:
            return name.lower(), content.decode(name)
        except (LookupError, UnicodeError):
            continue
    for name in ["utf-8", *detect_encoding(content)]:
        try:
            return name, content.decode(name)
        except (LookupError, UnicodeError):
            continue
    return "utf-8", content.decode("utf-8", "replace")


def read_html(page: Page, html: str, url: str) -> None:
    tree = parse(html)
    if tree is None:
        page.problem = "empty"
        return
    page.links = list(dict.fromkeys(links_of(tree, url)))[:LINKS_MAX]
    page.canonical_url, page.feeds = named_addresses(tree, url)
    page.language = (tree.get("lang") or "").split("-")[0].lower()[:12]
    page.title = clean(tree.findtext(".//title") or "")[:500]
    found = article(tree, html, url)
    if found is not None:
        page.text = found.text or ""
        page.title = clean(found.title or "")[:500] or page.title
        page.author = clean(found.author or "")[:300]
        page.published = (found.date or "")[:40]
    page.problem = wall_in(html, page.title, page.text, url)


def links_of(tree: HtmlElement, url: str) -> list[str]:
    base = tree.find(".//base[@href]")
    start = urljoin(url, base.get("href")) if base is not None else url
    scheme, host = urlsplit(start)[:2]
    origin = f"{scheme}://{host}"
    found = []
    hrefs = dict.fromkeys((anchor.get("href") or "").strip().partition("#")[0] for anchor in tree.iter("a"))
    for href in hrefs:  # each once: joining costs more than all the rest
        try:
            link = (
                href if href.startswith(("https://", "http://")) else f"{origin}{href}" if PLAIN_PATH.match(href) else urljoin(start, href)
            )
            if href and link.startswith(("https://", "http://")) and len(link) <= 2000:
                found.append(link)
        except ValueError:
            continue
    return found


def named_addresses(tree: HtmlElement, url: str) -> tuple[str, list[str]]:
    """(canonical address, addresses of feeds) that the head names; a canonical one of another host is not believed."""
    canonical, feeds = "", []
    for node in tree.iter("link"):
        rel, kind = (node.get("rel") or "").lower().split(), (node.get("type") or "").lower()
        if "canonical" not in rel and not ("alternate" in rel and kind in FEED_TYPES):
            continue
        try:
            address = urljoin(url, (node.get("href") or "").strip()).partition("#")[0]
            same_host = urlsplit(address).netloc == urlsplit(url).netloc
        except ValueError:
            continue
        if "canonical" not in rel:
            feeds.append(address)
        elif same_host and not canonical:
            canonical = address[:2000]
    return canonical, feeds[:20]


def clean(text: str) -> str:
    """Without NUL, which PostgreSQL cannot store, and lone surrogates, which nobody can."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Evidence:
    """A WARC file (ISO 28500) that grows by one request and response per hop, each record on disk at once.

    Every record is its own gzip member, so a file cut off by a crash is readable up to its last record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        new = not self.path.exists()
        self.stream = self.path.open("ab")
        self.record = io.BytesIO()
        self.writer = WARCWriter(self.record, gzip=False)
        if new:
            about = {"software": "Fieldwork", "format": "WARC File Format 1.0"}
            self.write(self.writer.create_warcinfo_record(self.path.name, about))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stream.close()

    def add(self, fetched: Fetched) -> None:
        for hop in fetched.hops:
            when = {"WARC-Date": hop.fetched_at.strftime("%Y-%m-%dT%H:%M:%SZ")}
            # the body is stored after chunking was undone, so the header that announced it is renamed
            headers = [("X-Archive-Orig-" + k if k.lower() == "transfer-encoding" else k, v) for k, v in hop.headers]
            response = self.writer.create_warc_record(
                hop.url,
                "response",
                payload=io.BytesIO(hop.body),
                length=len(hop.body),
                http_headers=StatusAndHeaders(f"{hop.status} {hop.reason}".strip(), headers, protocol="HTTP/1.1"),
                warc_headers_dict=dict(when),
            )
            path = urlsplit(hop.url)
            target = (path.path or "/") + (f"?{path.query}" if path.query else "")
            request = self.writer.create_warc_record(
                hop.url,
                "request",
                http_headers=StatusAndHeaders(f"GET {target} HTTP/1.1", hop.request_headers, is_http_request=True),
                warc_headers_dict={**when, "WARC-Concurrent-To": response.rec_headers.get_header("WARC-Record-ID")},
            )
            self.write(response)
            self.write(request)
        self.stream.flush()

    def write(self, record: Any) -> None:
        """As a gzip member of its own, packed less tightly than warcio does: that took as long as fetching the page."""
        self.writer.write_record(record)
        self.stream.write(gzip.compress(self.record.getvalue(), GZIP_LEVEL, mtime=0))
        self.record.seek(0)
        self.record.truncate()


def warm_up() -> None:
    """Has trafilatura, htmldate and py3langid load their tables and compile their patterns, which takes longer than twenty pages."""
    words = "<p>The group was founded as a broker of grain cargoes and has owned vessels for many years, as the register shows.</p>" * 8
    read_body(f"<html><body><article><h1>A page</h1>{words}<time>some day</time></article></body></html>".encode(), "text/html", "")
    py3langid.classify("warm")
    month_words()
    tls_context()
    import_module("anyio._backends._asyncio")
