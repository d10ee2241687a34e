"""Fetch a list of web pages, or those of a site map; keep each as a document with its evidence."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone
from lxml import etree

from jobs.errors import Kind, PermanentError, TransientError
from jobs.models import Artifact, Job
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint.capture import Evidence, Page, clean, read_page, sha256
from osint.fetching import Fetched, Fetcher, FetchError, Hop, Refused, allowed_private_in, by_origin, decompress, normalise, unresolved
from osint.models import Document

URLS_MAX = 10_000
SITEMAPS_MAX = 50


class UrlListField(forms.CharField):
    """Addresses, one a line or as a list; cleaned to a list without repetitions, each address checked."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        if value is None:
            return []
        if isinstance(value, str):
            value = re.split(r"[\r\n,]+|\s+(?=https?://)", value)
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value or []):
            raise forms.ValidationError("Give web addresses as text, one a line, or as a list of texts.")
        return [v.strip() for v in value if v and v.strip()]

    def validate(self, value: list[str]) -> None:  # type: ignore[override]
        if len(value) > URLS_MAX:
            raise forms.ValidationError(f"{len(value):,} addresses are too many: one job takes up to {URLS_MAX:,}.")

    def run_validators(self, value: list[str]) -> None:  # type: ignore[override]
        """Each address is judged on its own in `clean`, so that all wrong ones are named at once."""

    def clean(self, value: Any) -> list[str]:  # type: ignore[override]
        urls = super().clean(value)
        good: dict[str, None] = {}
        problems: list[str] = []
        for number, url in enumerate(urls, 1):
            try:
                good[normalise(url)] = None
            except Refused as refused:
                problems.append(f"Line {number}, {url[:80]}: {refused}")
        missing = unresolved(urlsplit(url).hostname or "" for url in good)
        problems += [f"The host {host} cannot be found in the DNS." for host in sorted(missing)]
        if problems:
            more = f"And {len(problems) - 10} more." if len(problems) > 10 else ""
            raise forms.ValidationError([*problems[:10], *([more] if more else [])])
        return list(good)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value


class WebScrapingForm(forms.Form):
    urls = UrlListField(
        label="Web addresses",
        required=False,
        help_text=f"One a line, up to {URLS_MAX:,}. The same address twice is fetched once.",
        widget=forms.Textarea(attrs={"rows": 8, "placeholder": "https://example.org/page"}),
    )
    sitemap = forms.CharField(
        label="Or a site map",
        required=False,
        max_length=2000,
        help_text="The address of a sitemap.xml. Its pages are fetched as well.",
        widget=forms.TextInput(attrs={"placeholder": "https://example.org/sitemap.xml"}),
    )
    delay_s = forms.FloatField(
        label="Seconds between two pages of a host",
        initial=1.0,
        min_value=0,
        max_value=60,
        help_text="The site's own wish in robots.txt counts if it is longer.",
    )
    hosts_at_once = forms.IntegerField(label="Hosts at once", initial=8, min_value=1, max_value=16)

    def clean_sitemap(self) -> str:
        value = self.cleaned_data["sitemap"]
        if not value:
            return ""
        try:
            url = normalise(value)
        except Refused as refused:
            raise forms.ValidationError(str(refused)) from None
        if unresolved([urlsplit(url).hostname or ""]):
            raise forms.ValidationError(f"The host {urlsplit(url).hostname} cannot be found in the DNS.")
        return url

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors and not cleaned.get("urls") and not cleaned.get("sitemap"):
            self.add_error("urls", "Give at least one web address, or a site map.")
        return cleaned


def describe(parameters: dict[str, Any]) -> str:
    urls = parameters["urls"]
    hosts = sorted({urlsplit(u).netloc for u in [*urls, *filter(None, [parameters["sitemap"]])]})
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} sites"
    if parameters["sitemap"]:
        return f"Scrape the site map of {where}"
    return f"Scrape {len(urls):,} {'page' if len(urls) == 1 else 'pages'} of {where}"


def total_steps(parameters: dict[str, Any]) -> int | None:
    return None if parameters["sitemap"] else len(parameters["urls"])


def show_parameters(parameters: dict[str, Any]) -> list[tuple[str, str]]:
    urls, sitemap = parameters.get("urls", []), parameters.get("sitemap", "")
    rows = [("Addresses", f"{len(urls):,}"), ("First", urls[0])] if urls else []
    if sitemap:
        rows.append(("Site map", sitemap))
    rows += [
        ("Between two pages of a host", f"{parameters.get('delay_s', 1.0):g} s"),
        ("Hosts at once", str(parameters.get("hosts_at_once", 8))),
    ]
    allowed = allowed_private_in([*urls, *filter(None, [sitemap])])
    if allowed:
        rows.append(("Private address allowed by FETCH_ALLOW_PRIVATE", ", ".join(allowed)))
    return rows


def summarise(result: dict[str, Any]) -> str:
    pages = f"{result['documents']:,} {'page' if result['documents'] == 1 else 'pages'} stored"
    if result.get("inherited"):
        pages += f", {result['inherited']:,} were done before"
    return f"{pages}, {result['failed']:,} could not be read" if result["failed"] else pages


@register(
    "web_scraping",
    label="Web scraping",
    form=WebScrapingForm,
    unit="page",
    describe=describe,
    total_steps=total_steps,
    show_parameters=show_parameters,
    summarise=summarise,
    result_template="osint/_scrape_result.html",
    resumable=True,
    for_items=lambda parameters, urls: {**parameters, "urls": urls, "sitemap": ""},
    help="Fetches pages politely and keeps their text, links and raw responses as evidence.",
)
def web_scraping(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    job = Job.objects.get(pk=tracker.job_id)
    scrape = Scrape(tracker, job, parameters)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="store") as store:
        scrape.store = store
        try:
            return asyncio.run(scrape.run())
        finally:
            store.submit(lambda: connection.close()).result()  # looked up in its own thread


@dataclass
class Scrape:
    tracker: ProgressTracker
    job: Job
    parameters: dict[str, Any]
    store: ThreadPoolExecutor = field(init=False)
    reasons: Counter = field(default_factory=Counter)
    failed: list[dict[str, str]] = field(default_factory=list)
    transient: bool = False
    retry_after_s: float = 0.0
    stored: int = 0

    async def run(self) -> dict[str, Any]:
        """Fetch what is not there yet, host by host; the summary counts what this and earlier attempts stored."""
        allowed = allowed_private_in([*self.parameters["urls"], *filter(None, [self.parameters["sitemap"]])])
        if allowed:
            self.tracker.log_warning(f"Private address allowed by FETCH_ALLOW_PRIVATE: {', '.join(allowed)}")
        async with Fetcher(delay_s=self.parameters["delay_s"]) as fetcher:
            urls = await self.find_urls(fetcher)
            self.tracker.set_total(len(urls))
            settled = await self.in_store(self.begin)
            if settled:
                self.tracker.update_step(f"Continuing: {len(settled):,} pages are done already", 0)
            self.evidence = Evidence(self.scratch() / f"evidence-{self.job.attempt}.warc.gz")
            with self.evidence:
                await self.fetch_all(fetcher, [url for url in urls if url not in settled])
        self.tracker.update_step("Storing the evidence", 0)
        await self.in_store(self.keep_evidence)
        return await self.in_store(self.finish, settled, allowed)

    async def in_store(self, function: Any, *args: Any) -> Any:
        """Parsing and the database belong to one thread, with one connection."""
        return await asyncio.get_running_loop().run_in_executor(self.store, function, *args)

    def scratch(self) -> Path:
        return Path(settings.STATE_DIR) / "scratch" / str(self.job.pk)

    def begin(self) -> dict[str, str]:
        """What earlier attempts settled, after their evidence files were made safe."""
        for path in sorted(self.scratch().glob("evidence-*.warc.gz")):
            self.keep(path)
        return self.tracker.settled()

    # -- which pages ------------------------------------------------------------------------------

    async def find_urls(self, fetcher: Fetcher) -> list[str]:
        urls = dict.fromkeys(self.parameters["urls"])
        if self.parameters["sitemap"]:
            self.tracker.update_step("Reading the site map", 0)
            for url in await self.read_sitemaps(fetcher, self.parameters["sitemap"]):
                if len(urls) >= URLS_MAX:
                    self.tracker.log_warning(f"The site map names more than {URLS_MAX:,} pages; the first are taken")
                    break
                urls[url] = None
        return list(urls)

    async def read_sitemaps(self, fetcher: Fetcher, start: str) -> list[str]:
        """The pages of a site map, or of the site maps that an index names."""
        waiting, seen, pages = [start], set[str](), list[str]()
        while waiting and len(seen) < SITEMAPS_MAX:
            url = waiting.pop(0)
            seen.add(url)
            try:
                fetched = await fetcher.fetch(url)
                if fetched.last.status != 200:
                    raise FetchError(f"it answers {fetched.last.status} {fetched.last.reason}")
                is_index, found = read_sitemap(fetched.content)
            except FetchError as error:
                if url == start:
                    kind = TransientError if error.transient else PermanentError
                    raise kind(f"The site map could not be read: {error}") from None
                self.tracker.log_error(f"Site map {url} could not be read: {error}")
                continue
            good = []
            for entry in found:
                try:
                    good.append(normalise(entry))
                except Refused as refused:
                    self.tracker.log_warning(f"The site map names {entry[:200]}, which is left out: {refused}")
            (waiting if is_index else pages).extend(u for u in good if u not in seen)
        return pages

    # -- fetching ---------------------------------------------------------------------------------

    async def fetch_all(self, fetcher: Fetcher, urls: list[str]) -> None:
        """Some hosts at once, some pages of each at once; one page's failure is its own."""
        hosts = asyncio.Semaphore(self.parameters["hosts_at_once"])

        async def one_host(pages: list[str]) -> None:
            waiting = iter(pages)
            async with hosts, asyncio.TaskGroup() as group:
                for _ in range(fetcher.per_host):
                    group.create_task(self.fetch_some(fetcher, waiting))

        try:
            async with asyncio.TaskGroup() as group:
                for pages in by_origin(urls).values():
                    group.create_task(one_host(pages))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None

    async def fetch_some(self, fetcher: Fetcher, waiting: Iterable[str]) -> None:
        for url in waiting:
            self.tracker.update_step(f"Fetching {short(url)}", 0)
            try:
                fetched = await fetcher.fetch(url)
                if fetched.last.status >= 400:
                    status = fetched.last.status
                    later = status in (408, 425, 429) or status >= 500
                    self.retry_after_s = max(self.retry_after_s, wait_asked_for(fetched))
                    raise FetchError(f"{status} {fetched.last.reason}".strip(), transient=later)
                await self.in_store(self.save, url, fetched)
            except FetchError as error:
                self.note_failure(url, error)
            self.tracker.update_step(f"Fetched {short(url)}")

    def note_failure(self, url: str, error: FetchError) -> None:
        self.reasons[str(error)] += 1
        self.transient |= error.transient
        if len(self.failed) < 1000:
            self.failed.append({"url": url, "reason": str(error)})
        kind = Kind.TRANSIENT if error.transient else Kind.PERMANENT
        self.tracker.item_failed(url, str(error), kind=kind)

    # -- storing (in the store's thread) ------------------------------------------------------------

    def save(self, url: str, fetched: Fetched) -> None:
        """The evidence first, then the document that refers to it, in one transaction with the mark that it is done."""
        page = read_page(fetched)
        self.evidence.add(fetched)
        with transaction.atomic():
            self.write_document(url, fetched.last, page)
            self.tracker.done(url)
            self.stored += 1
        took = f"{size(len(fetched.last.body))} {fetched.seconds * 1000:.0f} ms"
        self.tracker.log_info(f"Fetched {short(url)} {fetched.last.status} {took}", url=url)

    def write_document(self, url: str, last: Hop, page: Page) -> None:
        Document.objects.update_or_create(
            job=self.job,
            url=url,
            defaults={
                "subject_id": self.job.subject_id, "attempt": self.job.attempt, "final_url": last.url[:2000],
                "http_status": last.status, "headers": [[k, clean(v)] for k, v in last.headers],
                "content_type": page.content_type[:200], "charset": page.charset[:40], "size": len(last.body),
                "sha256": sha256(last), "fetched_at": last.fetched_at, "title": page.title, "author": page.author,
                "published": page.published, "language": page.language, "text": page.text, "links": page.links,
            },
        )  # fmt: skip

    def keep_evidence(self) -> None:
        if self.stored:
            self.keep(self.evidence.path)
        self.evidence.path.unlink(missing_ok=True)
        if self.scratch().exists() and not any(self.scratch().iterdir()):
            self.scratch().rmdir()

    def keep(self, path: Path) -> None:
        attempt = int(re.sub(r"\D", "", path.name.partition(".")[0]))
        artifact = Artifact.keep(self.job, path, path.name, "application/warc")
        Document.objects.filter(job=self.job, attempt=attempt).update(warc=artifact)

    # -- the end ------------------------------------------------------------------------------------

    def finish(self, settled: dict[str, str], allowed: list[str]) -> dict[str, Any]:
        """The result counts what this and earlier attempts did; pages of the job that this one continues are told apart."""
        documents = Document.objects.filter(job=self.job)
        total = documents.count()
        inherited = sum(outcome == "skipped" for outcome in settled.values())
        failed = sum(self.reasons.values())
        if failed and not total and not inherited:
            reason, count = self.reasons.most_common(1)[0]
            text = f"None of the {failed:,} pages could be read; most often: {reason} ({count:,} of them)"
            raise TransientError(text, retry_after_s=self.retry_after_s or None) if self.transient else PermanentError(text)
        failures = [*self.failed, *earlier_failures(self.job, settled)]
        self.tracker.log_info(f"Complete: {total:,} pages stored, {len(failures):,} could not be read")
        for failure in failures[len(self.failed) :]:
            self.reasons[failure["reason"]] += 1
        return {
            "documents": total,
            "inherited": inherited,
            "failed": sum(self.reasons.values()),
            "bytes": documents.aggregate(bytes=Sum("size"))["bytes"] or 0,
            "reasons": dict(self.reasons.most_common(20)),
            "failures": failures[:200],
            "private_allowed": allowed,
        }


def earlier_failures(job: Job, settled: dict[str, str]) -> list[dict[str, str]]:
    """Pages that an earlier attempt gave up for good, with the reason."""
    if "failed" not in settled.values():
        return []
    rows = job.items.filter(outcome="failed", attempt__lt=job.attempt, kind__in=(Kind.PERMANENT, Kind.LIMIT)).order_by("id")
    return [{"url": url, "reason": reason} for url, reason in rows.values_list("key", "reason")]


def wait_asked_for(fetched: Fetched) -> float:
    """Seconds that Retry-After (RFC 9110, 10.2.3) asks for, as a number or a date; 0 without one that makes sense."""
    value = fetched.header("retry-after").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - timezone.now()).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def read_sitemap(content: bytes) -> tuple[bool, list[str]]:
    """(is it an index, the addresses it names), after the sitemaps.org protocol, gzip or not."""
    if content[:2] == b"\x1f\x8b":
        content = decompress("gzip", content)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise FetchError(f"it is not XML ({error})") from None
    name = etree.QName(root).localname
    if name not in ("urlset", "sitemapindex"):
        raise FetchError(f"it is XML, but not a site map (<{name}>)")
    found = [(loc.text or "").strip() for loc in root.iterfind("{*}*/{*}loc")]
    return name == "sitemapindex", [url for url in found if url]


def first_of(errors: BaseExceptionGroup) -> BaseException:
    """The first single exception of a group of groups: what really happened."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def short(url: str) -> str:
    """A page's address as a log line shows it: path and query, cut."""
    parts = urlsplit(url)
    text = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return text if len(text) <= 100 else f"{text[:99]}…"


def size(count: int) -> str:
    return f"{count / 1000:.0f} kB" if count >= 1000 else f"{count} B"
