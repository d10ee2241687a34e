"""Fetch web pages: a list, those of a site map, or what they link to; keep each as a document with its evidence."""

import asyncio
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from django import forms
from django.db import connection, transaction
from django.db.models import Q, Sum
from django.utils import timezone
from lxml import etree

from jobs import words
from jobs.errors import Kind, PermanentError, TransientError
from jobs.models import Artifact, Job
from jobs.processes import scratch_of
from jobs.registry import register
from jobs.tracker import ProgressTracker
from osint.capture import Evidence, Page, clean, digest_of, read_page, warm_up
from osint.fetching import Fetched, Fetcher, FetchError, Refused, allowed_private_in, by_origin, decompress, normalise, unresolved
from osint.helpers import HELPERS, helpers
from osint.models import Document
from osint.politeness import reserve
from osint.storing import store_document
from osint.urllist import UrlList, read_urls

URLS_MAX = 10_000
SITEMAPS_MAX = 50
DEPTH_MAX = 10
FAILURES_IN_A_ROW = 5  # after so many the rest of a host waits for the next try
PARSED_APART_FROM = 20  # pages from which parsing is worth processes of its own


class UrlListField(forms.CharField):
    """Addresses, one a line or as a list, also in defanged form; cleaned to a list without repetitions, each address checked."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> UrlList:  # type: ignore[override]
        if (
            value is not None
            and not isinstance(value, str)
            and not (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))
        ):
            raise forms.ValidationError("Give web addresses as text, one a line, or as a list of texts.")
        return read_urls(value or "")

    def validate(self, value: UrlList) -> None:  # type: ignore[override]
        if value.given > URLS_MAX:
            raise forms.ValidationError(f"{value.given:,} addresses are too many: one job takes up to {URLS_MAX:,}.")

    def run_validators(self, value: UrlList) -> None:  # type: ignore[override]
        """Each address was judged on its own, so that all wrong ones are named at once."""

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value


class WebScrapingForm(forms.Form):
    urls = UrlListField(
        label="Web addresses",
        required=False,
        help_text=f"One a line, up to {URLS_MAX:,}; also as hxxp://example[.]org. The same address twice is fetched once.",
        widget=forms.Textarea(attrs={"rows": 8, "placeholder": "https://example.org/page", "data-urls": "/scrape/check/"}),
    )
    skip_refused = forms.BooleanField(label="Leave out addresses that cannot be fetched", required=False)
    sitemap = forms.CharField(
        label="Or a site map",
        required=False,
        max_length=2000,
        help_text="The address of a sitemap.xml. Its pages are fetched as well.",
        widget=forms.TextInput(attrs={"placeholder": "https://example.org/sitemap.xml"}),
    )
    depth = forms.IntegerField(
        label="Follow links so many times",
        initial=0,
        min_value=0,
        max_value=DEPTH_MAX,
        required=False,
        help_text="0: only the pages named above.",
    )
    hosts = forms.CharField(
        label="Follow links to other hosts",
        required=False,
        max_length=4000,
        help_text="Names of hosts, separated by spaces, with their subdomains. Empty: only to the hosts of the pages above.",
        widget=forms.TextInput(attrs={"placeholder": "example.org docs.example.net"}),
    )
    pages_max = forms.IntegerField(
        label="Pages at most", initial=1000, min_value=1, max_value=URLS_MAX, required=False, help_text="Counts when links are followed."
    )
    discover = forms.BooleanField(label="Look for site maps and feeds of these hosts", required=False)
    recheck = forms.BooleanField(
        label="Ask only for pages that have changed", initial=True, required=False,
        help_text="Pages that the subject has already are fetched again only if their server says that they changed.",
    )  # fmt: skip
    delay_s = forms.FloatField(
        label="Seconds between two pages of a host",
        initial=1.0,
        min_value=0,
        max_value=60,
        help_text="For all jobs together. The site's own wish in robots.txt counts if it is longer.",
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

    def clean_hosts(self) -> str:
        names = [name.lower().lstrip(".") for name in re.split(r"[\s,]+", self.cleaned_data["hosts"]) if name]
        wrong = [name for name in names if not re.fullmatch(r"[\w-]+(\.[\w-]+)*(:\d+)?", name)]
        if wrong:
            raise forms.ValidationError(f"{wrong[0][:80]} is no name of a host, such as example.org.")
        return " ".join(names)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        found = cleaned.get("urls")
        if isinstance(found, UrlList):
            if found.refused and not cleaned.get("skip_refused"):
                self.add_error("urls", forms.ValidationError(found.problems()))
            cleaned["urls"] = found.good
        cleaned["depth"] = cleaned.get("depth") or 0
        cleaned["pages_max"] = cleaned.get("pages_max") or 1000
        if not self.errors and not cleaned.get("urls") and not cleaned.get("sitemap"):
            self.add_error("urls", forms.ValidationError("Give at least one web address, or a site map.", code="nothing"))
        return cleaned


def describe(parameters: dict[str, Any]) -> str:
    urls = parameters["urls"]
    hosts = sorted({urlsplit(u).netloc for u in [*urls, *filter(None, [parameters["sitemap"]])]})
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} sites"
    if parameters.get("depth"):
        return f"Crawl {where}"
    if parameters["sitemap"]:
        return f"Scrape the site map of {where}"
    return f"Scrape {len(urls):,} {'page' if len(urls) == 1 else 'pages'} of {where}"


def total_steps(parameters: dict[str, Any]) -> int | None:
    return None if parameters["sitemap"] or parameters.get("depth") or parameters.get("discover") else len(parameters["urls"])


def show_parameters(parameters: dict[str, Any]) -> list[tuple[str, str]]:
    urls, sitemap = parameters.get("urls", []), parameters.get("sitemap", "")
    rows = [("Addresses", f"{len(urls):,}"), ("First", urls[0])] if urls else []
    if sitemap:
        rows.append(("Site map", sitemap))
    if parameters.get("depth"):
        times = words.count(parameters["depth"], "time")
        rows.append(("Links are followed", f"{times}, up to {words.count(parameters.get('pages_max', 1000), 'page')}"))
        rows.append(("To", parameters.get("hosts") or "the same hosts"))
    if parameters.get("discover"):
        rows.append(("Site maps and feeds", "looked for"))
    rows += [
        ("Between two pages of a host", f"{parameters.get('delay_s', 1.0):g} s"),
        ("Hosts at once", str(parameters.get("hosts_at_once", 8))),
    ]
    allowed = allowed_private_in([*urls, *filter(None, [sitemap])])
    if allowed:
        rows.append(("Private address allowed by FETCH_ALLOW_PRIVATE", ", ".join(allowed)))
    return rows


def summarise(result: dict[str, Any]) -> str:
    parts = [f"{words.count(result['documents'], 'page')} stored"]
    if result.get("changed"):
        parts.append(f"{result['changed']:,} changed since the last time")
    if result.get("unchanged"):
        parts.append(f"{result['unchanged']:,} not changed")
    if result.get("same"):
        parts.append(f"{result['same']:,} under a second address")
    if result.get("inherited"):
        parts.append(f"{result['inherited']:,} were done before")
    if result.get("blocked"):
        parts.append(f"{result['blocked']:,} blocked or in need of a browser")
    if result["failed"]:
        parts.append(f"{result['failed']:,} could not be read")
    return ", ".join(parts)


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
    warm_up=warm_up,
    form_script="js/urls.js",
    for_items=lambda parameters, urls: {**parameters, "urls": urls, "sitemap": "", "depth": 0, "discover": False, "recheck": False},
    help="Fetches pages politely and keeps their text, links and raw responses as evidence.",
)
def web_scraping(tracker: ProgressTracker, parameters: dict[str, Any]) -> dict[str, Any]:
    with ExitStack() as stack:
        # the parsers are forked first: while there is no connection and no thread that they could inherit
        parsers = stack.enter_context(helpers()) if is_large(parameters) else None
        job = Job.objects.get(pk=tracker.job_id)
        scrape = Scrape(tracker, job, parameters)
        scrape.store = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="store"))
        scrape.parsers = parsers or scrape.store
        try:
            return asyncio.run(scrape.run())
        finally:
            scrape.store.submit(lambda: connection.close()).result()  # looked up in its own thread


def is_large(parameters: dict[str, Any]) -> bool:
    return HELPERS > 1 and (len(parameters["urls"]) >= PARSED_APART_FROM or total_steps(parameters) is None)


@dataclass
class Host:
    """How a host does in this run."""

    failures: int = 0  # transient ones in a row
    is_broken: bool = False  # it was so often in a row; an answer that was on its way changes nothing
    left: int = 0  # pages that were not asked for after that

    def answered(self, *, well: bool) -> None:
        self.failures = 0 if well else self.failures + 1
        self.is_broken = self.is_broken or self.failures >= FAILURES_IN_A_ROW


@dataclass
class Scrape:
    tracker: ProgressTracker
    job: Job
    parameters: dict[str, Any]
    store: ThreadPoolExecutor = field(init=False)
    parsers: Executor = field(init=False)
    reasons: Counter = field(default_factory=Counter)
    failed: list[dict[str, str]] = field(default_factory=list)
    hosts: dict[tuple[str, str, int], Host] = field(default_factory=dict)
    known: dict[str, dict[str, str]] = field(default_factory=dict)  # url → headers of a conditional request
    transient: bool = False
    retry_after_s: float = 0.0
    stored: int = 0
    unchanged: int = 0
    same: int = 0

    async def run(self) -> dict[str, Any]:
        """Fetch what is not there yet, host by host; the summary counts what this and earlier attempts stored."""
        allowed = allowed_private_in([*self.parameters["urls"], *filter(None, [self.parameters["sitemap"]])])
        if allowed:
            self.tracker.log_warning(f"Private address allowed by FETCH_ALLOW_PRIVATE: {', '.join(allowed)}")
        async with Fetcher(delay_s=self.parameters["delay_s"], reserve=self.reserve, spending=self.tracker.spending) as fetcher:
            self.tracker.stage("Finding the pages")
            urls = await self.find_urls(fetcher)
            self.tracker.set_total(None if self.depth else len(urls))  # of a crawl it is known only in the end
            settled = await self.in_store(self.begin)
            if settled:
                self.tracker.update_step(f"Continuing: {len(settled):,} pages are done already", 0)
            self.tracker.stage("Fetching and reading pages")
            self.evidence = Evidence(self.scratch() / f"evidence-{self.job.attempt}.warc.gz")
            with self.evidence:
                await self.crawl(fetcher, urls, settled)
        self.tracker.stage("Storing the evidence")
        self.tracker.update_step("Storing the evidence", 0)
        with self.tracker.spending("writing"):
            await self.in_store(self.keep_evidence)
        return await self.in_store(self.finish, settled, allowed)

    @property
    def depth(self) -> int:
        return int(self.parameters.get("depth") or 0)

    async def in_store(self, function: Any, *args: Any) -> Any:
        """The database belongs to one thread, with one connection."""
        return await asyncio.get_running_loop().run_in_executor(self.store, function, *args)

    async def reserve(self, origin: tuple[str, str, int], delay_s: float) -> float:
        return await self.in_store(reserve, origin, delay_s)

    def scratch(self) -> Path:
        return scratch_of(self.job.pk)

    def begin(self) -> dict[str, str]:
        """What earlier attempts settled, after their evidence files were made safe."""
        for path in sorted(self.scratch().glob("evidence-*.warc.gz")):
            self.keep(path)
        return self.tracker.settled()

    # -- which pages ------------------------------------------------------------------------------

    async def crawl(self, fetcher: Fetcher, urls: list[str], settled: dict[str, str]) -> None:
        """Level by level: all pages of one before those that they link to, so that a second attempt finds the same ones."""
        seen = dict.fromkeys(urls)
        level = urls
        for depth in range(self.depth + 1):
            await self.in_store(self.look_up, [url for url in level if url not in settled])
            await self.fetch_all(fetcher, [url for url in level if url not in settled])
            if depth == self.depth:
                break
            level = await self.in_store(self.next_level, level, seen)
            if not level:
                break
            if depth + 1 == self.depth:
                self.tracker.set_total(len(seen))
            self.tracker.log_info(f"Following links, step {depth + 1}: {words.count(len(level), 'new page')}")

    def next_level(self, level: list[str], seen: dict[str, None]) -> list[str]:
        """The allowed links of the pages of a level, in the order of these, as far as the budget goes; added to `seen`."""
        found: list[str] = []
        links = self.links_on(level)
        budget = self.parameters.get("pages_max", 1000)
        for url in level:
            for link in links.get(url, ()):
                if len(seen) >= budget:
                    self.tracker.log_warning(f"There are more pages than the {budget:,} that are fetched at most")
                    return found
                target = self.allowed_link(link)
                if target and target not in seen:
                    seen[target] = None
                    found.append(target)
        return found

    def links_on(self, urls: list[str]) -> dict[str, list[str]]:
        """The links of pages: as this job stored them; of those that it did not fetch, because they had not changed or were
        done before, as they were stored then."""
        links: dict[str, list[str]] = {}
        earlier = Q(job_id=self.job.continues_id) if self.job.continues_id else Q(pk=None)
        if self.job.subject_id is not None:
            earlier |= Q(subject_id=self.job.subject_id, is_current=True)
        for which in (earlier, Q(job=self.job)):
            for first in range(0, len(urls), 500):
                links.update(Document.objects.filter(which, url__in=urls[first : first + 500]).values_list("url", "links"))
        return links

    def allowed_link(self, link: str) -> str:
        """The address in the form that we compare, or '' for one that is not followed."""
        try:
            url = normalise(link)
        except Refused:
            return ""
        host = urlsplit(url).netloc
        names = self.parameters.get("hosts", "").split()
        if names:
            return url if any(host == name or host.endswith(f".{name}") for name in names) else ""
        return url if host in self.start_hosts() else ""

    def start_hosts(self) -> set[str]:
        return {urlsplit(u).netloc for u in [*self.parameters["urls"], *filter(None, [self.parameters["sitemap"]])]}

    async def find_urls(self, fetcher: Fetcher) -> list[str]:
        urls = dict.fromkeys(self.parameters["urls"])
        if self.parameters["sitemap"]:
            self.tracker.update_step("Reading the site map", 0)
            self.add(urls, await self.read_sitemaps(fetcher, self.parameters["sitemap"]), "The site map")
        if self.parameters.get("discover"):
            await self.discover(fetcher, urls)
        return list(urls)

    def add(self, urls: dict[str, None], more: Iterable[str], what: str) -> None:
        most = self.parameters.get("pages_max", 1000) if self.parameters.get("depth") else URLS_MAX
        for url in more:
            if len(urls) >= most and url not in urls:
                self.tracker.log_warning(f"{what} names more than {most:,} pages; the first are taken")
                return
            urls[url] = None

    async def discover(self, fetcher: Fetcher, urls: dict[str, None]) -> None:
        """Site maps that robots.txt names, or at their usual place, and feeds that the first pages of each host name."""
        for origin, pages in by_origin(list(urls)).items():
            self.tracker.update_step(f"Looking for site maps and feeds of {origin[1]}", 0)
            try:
                named = await fetcher.host(pages[0]).sitemaps(fetcher) or [urljoin(pages[0], "/sitemap.xml")]
            except FetchError:
                continue
            for sitemap in named:
                self.add(urls, filter(self.allowed_link, await self.read_sitemaps(fetcher, sitemap, optional=True)), "The site map")
            self.add(urls, filter(self.allowed_link, await self.read_feeds(fetcher, pages[0])), "The feed")

    async def read_feeds(self, fetcher: Fetcher, url: str) -> list[str]:
        found: list[str] = []
        try:
            page = read_page(await fetcher.fetch(url))
            for feed in page.feeds:
                found += good_addresses(read_feed((await fetcher.fetch(normalise(feed))).content))
        except FetchError as error:
            self.tracker.log_warning(f"The feeds of {url} could not be read: {error}")
        return found

    async def read_sitemaps(self, fetcher: Fetcher, start: str, *, optional: bool = False) -> list[str]:
        """The pages of a site map, or of the site maps that an index names."""
        waiting, seen, pages = [start], set[str](), list[str]()
        while waiting and len(seen) < SITEMAPS_MAX:
            url = waiting.pop(0)
            seen.add(url)
            try:
                fetched = await fetcher.fetch(url)
                if fetched.last.status != 200:
                    raise FetchError(f"it answers {fetched.last.status} {fetched.last.reason}", transient=fetched.last.status >= 500)
                is_index, found = read_sitemap(fetched.content)
            except FetchError as error:
                if url == start and not optional:
                    kind = TransientError if error.transient else PermanentError
                    raise kind(f"The site map could not be read: {error}") from None
                self.tracker.log_warning(f"Site map {url} could not be read: {error}")
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

    def look_up(self, urls: list[str]) -> None:
        """What the servers said of pages that the subject has, so that they can answer “not modified”."""
        if self.job.subject_id is None or not self.parameters.get("recheck", True):
            return
        have = Document.objects.filter(subject_id=self.job.subject_id, is_current=True, problem="").exclude(job=self.job)
        if not have.exists():
            return
        for first in range(0, len(urls), 500):
            for url, headers in have.filter(url__in=urls[first : first + 500]).values_list("url", "headers"):
                self.known[url] = conditional(headers)

    async def fetch_all(self, fetcher: Fetcher, urls: list[str]) -> None:
        """Some hosts at once, some pages of each at once; one page's failure is its own."""
        hosts = asyncio.Semaphore(self.parameters["hosts_at_once"])

        async def one_host(host: Host, pages: list[str]) -> None:
            waiting = iter(pages)
            async with hosts, asyncio.TaskGroup() as group:
                # while some pages are parsed, the next ones are fetched; the host itself is never asked for more at once
                for _ in range(fetcher.per_host + 2 * HELPERS):
                    group.create_task(self.fetch_some(fetcher, host, waiting))

        try:
            async with asyncio.TaskGroup() as group:
                for origin, pages in by_origin(urls).items():
                    group.create_task(one_host(self.hosts.setdefault(origin, Host()), pages))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None

    async def fetch_some(self, fetcher: Fetcher, host: Host, waiting: Iterable[str]) -> None:
        for url in waiting:
            if host.is_broken:
                host.left += 1
                self.note_failure(url, FetchError(f"Not asked for: {FAILURES_IN_A_ROW} pages of this host failed in a row", transient=True))
            else:
                await self.fetch_one(fetcher, host, url)
            self.tracker.update_step(f"Fetched {short(url)}")

    async def fetch_one(self, fetcher: Fetcher, host: Host, url: str) -> None:
        self.tracker.update_step(f"Fetching {short(url)}", 0)
        try:
            fetched = await fetcher.fetch(url, self.known.get(url))
            if fetched.last.status == 304:
                self.unchanged += 1
                self.tracker.item_skipped(url, NOT_CHANGED)
            else:
                page = await self.parse(fetched)
                self.check_answer(fetched, page)
                with self.tracker.spending("writing"):
                    await self.in_store(self.save, url, fetched, page)
            host.answered(well=True)
        except FetchError as error:
            host.answered(well=not error.transient)
            self.note_failure(url, error)

    async def parse(self, fetched: Fetched) -> Page:
        """In a process apart; a page that kills it is one that cannot be read, and the others go on without."""
        try:
            with self.tracker.spending("processing"):
                return await asyncio.get_running_loop().run_in_executor(self.parsers, read_page, fetched)
        except BrokenExecutor:
            self.parsers = self.store
            raise FetchError("The page brought the process down that should read it") from None

    def check_answer(self, fetched: Fetched, page: Page) -> None:
        """Raises FetchError for an answer that is an error, but for one that says what stands in the way."""
        status = fetched.last.status
        if status >= 400 and page.problem not in (Document.Problem.CHALLENGE, Document.Problem.LOGIN):
            self.retry_after_s = max(self.retry_after_s, wait_asked_for(fetched))
            raise FetchError(f"{status} {fetched.last.reason}".strip(), transient=status in (408, 425, 429) or status >= 500)

    def note_failure(self, url: str, error: FetchError) -> None:
        self.transient |= error.transient
        self.note(url, str(error), Kind.TRANSIENT if error.transient else Kind.PERMANENT)

    def note(self, url: str, reason: str, kind: str) -> None:
        self.reasons[reason] += 1
        if len(self.failed) < 1000:
            self.failed.append({"url": url, "reason": reason})
        self.tracker.item_failed(url, reason, kind=kind)

    # -- storing (in the store's thread) ------------------------------------------------------------

    def save(self, url: str, fetched: Fetched, page: Page) -> None:
        """The evidence first, then the document that refers to it, in one transaction with the mark that it is done."""
        self.evidence.add(fetched)
        self.stored += 1
        if page.canonical_url and page.canonical_url != url and self.has_same(url, page):
            self.tracker.item_skipped(url, f"{SAME_PAGE} {page.canonical_url}"[:400])
            self.same += 1
            return
        last = fetched.last
        with transaction.atomic():
            store_document(
                self.job, url, page,
                {
                    "final_url": last.url[:2000], "http_status": last.status, "headers": [[k, clean(v)] for k, v in last.headers],
                    "size": len(last.body), "sha256": digest_of(last.body), "fetched_at": last.fetched_at,
                },
            )  # fmt: skip
            if not page.problem and not page.unreadable:
                self.tracker.done(url)
        if page.problem or page.unreadable:
            self.note(url, page.unreadable or str(Document.Problem(page.problem).label), Kind.PERMANENT)
            return
        took = f"{size(len(last.body))} {fetched.seconds * 1000:.0f} ms"
        self.tracker.log_info(f"Fetched {short(url)} {last.status} {took}", url=url)

    def has_same(self, url: str, page: Page) -> bool:
        """Whether this job stored the page that it calls itself, with the same text: many sites name a wrong one."""
        canonical = Q(url=page.canonical_url) | Q(canonical_url=page.canonical_url)
        return Document.objects.filter(canonical, job=self.job, text=page.text).exclude(url=url).exists()

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
        """The result counts what this and earlier attempts did; pages of the job that this one continues are told apart.

        While a host is not answering and tries are left, the job is tried again for what remains.
        """
        documents = Document.objects.filter(job=self.job)
        good = documents.filter(problem="").count()
        blocked = documents.exclude(problem__in=("", Document.Problem.UNREADABLE)).count()
        skipped = self.job.items.filter(outcome="skipped")
        unchanged = self.unchanged + skipped.filter(reason=NOT_CHANGED, attempt__lt=self.job.attempt).count()
        inherited = skipped.filter(reason__startswith="Done by the job").count()
        failed = sum(self.reasons.values())
        if failed and not good and not inherited and not unchanged:
            reason = self.reasons.most_common(1)[0][0]
            # with an address, by whose host failures of the same kind are told apart
            url = next((page["url"] for page in self.failed if page["reason"] == reason), "")
            text = f"{url}: {reason}" if failed == 1 else f"None of the {failed:,} pages could be read, such as {url}: {reason}"
            raise TransientError(text, retry_after_s=self.retry_after_s or None) if self.transient else PermanentError(text)
        self.wait_for_broken_hosts()
        failures = [*self.failed, *earlier_failures(self.job, settled)]
        self.tracker.log_info(f"Complete: {good:,} pages stored, {len(failures):,} could not be read")
        for failure in failures[len(self.failed) :]:
            self.reasons[failure["reason"]] += 1
        return {
            "documents": good,
            "unchanged": unchanged,
            "same": self.same + skipped.filter(reason__startswith=SAME_PAGE, attempt__lt=self.job.attempt).count(),
            "changed": documents.exclude(previous=None).exclude(diff="").count(),
            "blocked": blocked,
            "inherited": inherited,
            "failed": max(0, sum(self.reasons.values()) - blocked),
            "bytes": documents.aggregate(bytes=Sum("size"))["bytes"] or 0,
            "reasons": dict(self.reasons.most_common(20)),
            "failures": failures[:200],
            "private_allowed": allowed,
        }

    def wait_for_broken_hosts(self) -> None:
        broken = {origin[1]: host.left for origin, host in self.hosts.items() if host.is_broken and host.left}
        if broken and self.job.retry_count < self.job.max_retries:
            name, left = max(broken.items(), key=lambda item: item[1])
            text = f"{name} failed {FAILURES_IN_A_ROW} times in a row; {words.count(left, 'page')} of it wait for the next try"
            raise TransientError(text, retry_after_s=self.retry_after_s or None)


SAME_PAGE = "The same page as"
NOT_CHANGED = "Not changed since it was captured: the server answers 304"


def conditional(headers: list[list[str]]) -> dict[str, str]:
    """The headers that ask a server for a page only if it changed (RFC 9110, section 13)."""
    said = {name.lower(): value for name, value in headers}
    asked = {"If-None-Match": said.get("etag", ""), "If-Modified-Since": said.get("last-modified", "")}
    return {name: value for name, value in asked.items() if value}


def good_addresses(urls: Iterable[str]) -> Iterator[str]:
    for url in urls:
        try:
            yield normalise(url)
        except Refused:
            continue


def read_feed(content: bytes) -> list[str]:
    """The addresses that an RSS or Atom feed names; none for what is no feed."""
    try:
        root = etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False))
    except etree.XMLSyntaxError:
        return []
    rss = [(node.text or "").strip() for node in root.iterfind(".//{*}item/{*}link")]
    atom = [node.get("href", "") for node in root.iterfind(".//{*}entry/{*}link") if node.get("rel", "alternate") == "alternate"]
    return [url for url in [*rss, *atom] if url]


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
        try:
            content = decompress("gzip", content)
        except zlib.error:
            raise FetchError("it says that it is gzip, but cannot be unpacked") from None
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
