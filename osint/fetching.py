"""The guarded, polite HTTP client: the only code that opens outbound connections.

Guarded: only http and https, no credentials in URLs, usual ports, and no private address. The
check happens where the connection is made: a name is looked up once, every answer is checked, and
only a checked address is connected to, so neither a redirect nor a second DNS answer gets past it.
Polite: robots.txt (RFC 9309), a delay and a number of connections per host.
Bounded: time, bytes, decompression, redirects.
"""

import asyncio
import ipaddress
import os
import re
import socket
import ssl
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import brotli
import httpcore
import httpx
from django.conf import settings
from httpcore._backends.auto import AutoBackend
from protego import Protego

USER_AGENT = "Fieldwork/1.0 (research archive)"
PORTS = frozenset({80, 443, 8000, 8080, 8443})
URL_CHARS_MAX = 2000

CONNECT_S = 10.0
READ_S = 20.0
URL_S = 60.0  # for one URL in all, redirects included
BODY_BYTES_MAX = 20_000_000
DECODED_BYTES_MAX = 50_000_000
REDIRECTS_MAX = 5
ROBOTS_BYTES_MAX = 500_000  # RFC 9309, section 2.5, asks for at least 500 KiB
CRAWL_DELAY_MAX_S = 30.0
# Hosts that are not explicitly allowed private ones are never asked faster than this.
DELAY_MIN_S = 0.25

# Of IPv6 only this is given out as public (RFC 4291); within it, 6to4 and Teredo lead into private IPv4.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
TUNNELS = tuple(ipaddress.ip_network(n) for n in ("2002::/16", "2001::/32"))


class FetchError(Exception):
    """A URL could not be fetched. `transient`: it may work later."""

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class Refused(FetchError):
    """We do not fetch this: by our rules or by those of the site."""


@dataclass(frozen=True)
class Hop:
    """One response, as evidence: what was asked and what came back, byte for byte."""

    url: str
    status: int
    reason: str
    http_version: str
    request_headers: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    body: bytes  # as sent: still compressed if the server compressed it
    fetched_at: datetime
    seconds: float  # from the request to the last byte, without polite waiting


@dataclass(frozen=True)
class Fetched:
    url: str  # as it was asked for
    hops: list[Hop]
    content: bytes  # the last body, decompressed

    @property
    def last(self) -> Hop:
        return self.hops[-1]

    @property
    def seconds(self) -> float:
        return sum(hop.seconds for hop in self.hops)

    def header(self, name: str) -> str:
        return next((v for k, v in self.last.headers if k.lower() == name), "")


# -- what may be fetched ----------------------------------------------------------------------------


def normalise(url: str) -> str:
    """A URL in the form that we compare and fetch. Raises Refused with a reason that a person can act on."""
    url = url.strip()
    if len(url) > URL_CHARS_MAX:
        raise Refused(f"The address has {len(url):,} characters; at most {URL_CHARS_MAX:,} are taken.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Refused(f"This is not a web address: {error}.") from None
    if parts.scheme not in ("http", "https"):
        if parts.scheme and re.match(r"[a-z][a-z0-9+.-]*:", url, re.IGNORECASE):
            raise Refused(f"Only http:// and https:// can be fetched, not {parts.scheme}:")
        raise Refused("This is not a web address: it must begin with http:// or https://.")
    if parts.username is not None or parts.password is not None:
        raise Refused("Addresses with a user name or password are not fetched.")
    if not host or any(c.isspace() or ord(c) < 32 for c in url):
        raise Refused("This is not a web address: it needs a host, such as https://example.org/page.")
    if ":" not in host:
        try:
            host = host.encode("idna").decode("ascii").lower()
        except UnicodeError:
            raise Refused("This is not a web address: its host name is not valid.") from None
    default = 443 if parts.scheme == "https" else 80
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port in (None, default) else f"{shown}:{port}"
    if (port or default) not in PORTS and not is_allowed_private(host, port or default):
        raise Refused(f"Port {port} is not one that web pages use ({', '.join(map(str, sorted(PORTS)))}).")
    check_literal(host, port or default)
    return urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))


def check_literal(host: str, port: int) -> None:
    """Refuse a host that is a private address in whatever notation, or a local name, without a look-up."""
    if is_allowed_private(host, port):
        return
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        raise Refused(f"{host} is a name of this machine or network; only public addresses are fetched.")
    try:
        # inet_aton also takes 2130706433, 0x7f.1 and 017700000001
        address = socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        address = host
    try:
        check_address(address)
    except ValueError:
        return  # a name: looked up when the connection is made


def check_address(address: str) -> None:
    """Raises Refused for an address that is not public, ValueError for what is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        ip = mapped
    odd_ipv6 = ip.version == 6 and (ip not in PUBLIC_IPV6 or any(ip in network for network in TUNNELS))
    if not ip.is_global or ip.is_multicast or ip.is_reserved or odd_ipv6:
        raise Refused(f"{address} is a private or reserved address; only public addresses are fetched.")


def is_allowed_private(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" in settings.FETCH_ALLOW_PRIVATE


def origin_of(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def allowed_private_in(urls: Iterable[str]) -> list[str]:
    """The private host:port pairs among `urls` that the settings allow: to be shown, never hidden."""
    pairs = {(host, port) for _, host, port in map(origin_of, urls)}
    return sorted(f"{host}:{port}" for host, port in pairs if is_allowed_private(host, port))


# -- connecting -------------------------------------------------------------------------------------


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Looks a name up, checks every answer, and connects only to an address that it has checked."""

    def __init__(self) -> None:
        self.inner = AutoBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        addresses = await self.look_up(host, port)
        error: Exception | None = None
        for address in addresses:
            try:
                return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        raise error or httpcore.ConnectError(f"{host} has no address")

    async def look_up(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP), CONNECT_S)
        except (socket.gaierror, UnicodeError) as error:
            raise FetchError(f"The host {host} cannot be found in the DNS", transient=is_transient(error)) from None
        except TimeoutError:
            raise FetchError(f"The DNS did not answer for {host} in {CONNECT_S:.0f} s", transient=True) from None
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if not is_allowed_private(host, port):
            for address in addresses:
                check_address(address)
        return addresses

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        raise Refused("Local sockets are not fetched.")

    async def sleep(self, seconds: float) -> None:
        await self.inner.sleep(seconds)


def is_transient(error: BaseException) -> bool:
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN


@cache
def tls_context() -> ssl.SSLContext:
    """Made once: reading the certificates of the system takes 20 ms."""
    return ssl.create_default_context()


def guarded_transport(connections: int) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    transport = httpx.AsyncHTTPTransport(http2=True, trust_env=False, limits=limits, verify=tls_context())
    # httpx has no public way to pass a network backend; a contract test pins this attribute
    transport._pool._network_backend = GuardedBackend()  # type: ignore[attr-defined]
    return transport


# -- fetching ---------------------------------------------------------------------------------------


@dataclass
class Fetcher:
    """Fetches URLs politely. Use as an async context manager; safe for many tasks at once."""

    delay_s: float = 1.0
    per_host: int = 2
    spending: "Spending" = lambda phase, host="": nullcontext()  # a context whose time is that of a phase, "polite" or "network"
    reserve: "Reserve | None" = None  # takes the next turn at a host for all jobs; without it each Fetcher counts for itself
    connections: int = 32
    _hosts: dict[tuple[str, str, int], "Host"] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self.client = httpx.AsyncClient(
            transport=guarded_transport(self.connections),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate, br"},
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            follow_redirects=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.aclose()

    async def fetch(self, url: str, headers: dict[str, str] | None = None) -> Fetched:
        """The response at the end of the redirects. Raises FetchError, and nothing else, with the reason.

        `headers` go with the first request alone, such as If-None-Match.
        """
        try:
            hops = await self._follow(normalise(url), headers)
        except TimeoutError:
            raise FetchError(f"Not finished in {URL_S:.0f} s", transient=True) from None
        except httpx.HTTPError as error:
            raise explain(error) from None
        return Fetched(url, hops, decode(hops[-1]))

    async def _follow(self, url: str, headers: dict[str, str] | None) -> list[Hop]:
        """The time that it may take counts without the polite waiting, which other jobs may make long."""
        hops: list[Hop] = []
        left = URL_S
        while True:
            host = self.host(url)
            began = time.monotonic()
            async with asyncio.timeout(left):
                rules = await host.rules(self)
            left -= time.monotonic() - began
            if not rules.can_fetch(url, USER_AGENT):
                raise Refused("The site's robots.txt asks not to fetch this page")
            async with host.turn(self):
                began = time.monotonic()
                async with asyncio.timeout(left):
                    hop = await self.get(url, headers=headers if not hops else None)
            left -= time.monotonic() - began
            hops.append(hop)
            location = next((v for k, v in hop.headers if k.lower() == "location"), "")
            if hop.status not in (301, 302, 303, 307, 308) or not location:
                return hops
            if len(hops) > REDIRECTS_MAX:
                raise FetchError(f"More than {REDIRECTS_MAX} redirects")
            url = normalise(urljoin(url, location))

    async def get(self, url: str, limit: int = BODY_BYTES_MAX, headers: dict[str, str] | None = None) -> Hop:
        """One request, its body bounded and untouched."""
        started = time.monotonic()
        with self.spending("network", origin_of(url)[1]):
            return await self._get(url, limit, headers, started)

    async def _get(self, url: str, limit: int, headers: dict[str, str] | None, started: float) -> Hop:
        async with self.client.stream("GET", url, headers=headers) as response:
            announced = response.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > limit:
                raise FetchError(f"The page has {int(announced):,} bytes; at most {limit:,} are taken")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > limit:
                    raise FetchError(f"The page has more than the {limit:,} bytes that are taken")
            return Hop(
                url=url,
                status=response.status_code,
                reason=response.reason_phrase,
                http_version=response.http_version,
                request_headers=text_pairs(response.request.headers.raw),
                headers=text_pairs(response.headers.raw),
                body=bytes(body),
                fetched_at=datetime.now(UTC),
                seconds=time.monotonic() - started,
            )

    def host(self, url: str) -> "Host":
        origin = origin_of(url)
        if origin not in self._hosts:
            floor = 0.0 if is_allowed_private(origin[1], origin[2]) else DELAY_MIN_S
            self._hosts[origin] = Host(origin, max(self.delay_s, floor), asyncio.Semaphore(self.per_host))
        return self._hosts[origin]


@dataclass
class Host:
    """What we know of one origin, and whose turn it is there."""

    origin: tuple[str, str, int]
    delay_s: float
    slots: asyncio.Semaphore
    next_at: float = 0.0
    _rules: Protego | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def turn(self, fetcher: Fetcher) -> AsyncIterator[None]:
        """Wait until this host may be asked again, by anybody, and hold one of its places."""
        async with self.slots:
            wait_s = await self.wait_for_turn(fetcher.reserve)
            if wait_s > 0:
                with fetcher.spending("polite"):
                    await asyncio.sleep(wait_s)
            yield

    async def wait_for_turn(self, reserve: "Reserve | None") -> float:
        """Take the next turn; the seconds until it comes."""
        if reserve is not None and self.delay_s:
            return await reserve(self.origin, self.delay_s)
        now = time.monotonic()
        mine = max(now, self.next_at)
        self.next_at = mine + self.delay_s
        return mine - now

    async def sitemaps(self, fetcher: Fetcher) -> list[str]:
        """The site maps that robots.txt names."""
        return list((await self.rules(fetcher)).sitemaps)[:20]

    async def rules(self, fetcher: Fetcher) -> Protego:
        """The origin's robots.txt, read once. None there (4xx) allows all; an error (5xx) forbids all."""
        async with self._lock:
            if self._rules is None:
                self._rules = await self._read_rules(fetcher)
                delay = self._rules.crawl_delay(USER_AGENT)
                if delay:
                    self.delay_s = max(self.delay_s, min(float(delay), CRAWL_DELAY_MAX_S))
            return self._rules

    async def _read_rules(self, fetcher: Fetcher) -> Protego:
        scheme, host, port = self.origin
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{port}/robots.txt"
        try:
            for _ in range(REDIRECTS_MAX + 1):
                hop = await fetcher.get(url, ROBOTS_BYTES_MAX)
                location = next((v for k, v in hop.headers if k.lower() == "location"), "")
                if not 300 <= hop.status < 400 or not location:
                    break
                url = normalise(urljoin(url, location))
        except httpx.HTTPError as error:
            raise explain(error) from None
        if hop.status >= 500:
            raise FetchError(f"robots.txt answers {hop.status}, so the site is left alone for now", transient=True)
        text = decode(hop).decode("utf-8", "replace") if hop.status == 200 else ""
        return Protego.parse(text)


# (origin, seconds between two requests) → seconds to wait until it is this one's turn
Reserve = Callable[[tuple[str, str, int], float], Awaitable[float]]
Spending = Callable[..., AbstractContextManager[None]]


def text_pairs(raw: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


def decode(hop: Hop) -> bytes:
    """The body without its content encoding, bounded against decompression bombs."""
    encodings = [e.strip().lower() for k, v in hop.headers if k.lower() == "content-encoding" for e in v.split(",")]
    data = hop.body
    for encoding in reversed([e for e in encodings if e and e != "identity"]):
        try:
            data = decompress(encoding, data)
        except (zlib.error, brotli.error):
            raise FetchError(f"The page says that it is {encoding}, but it cannot be unpacked") from None
    return data


def decompress(encoding: str, data: bytes) -> bytes:
    if encoding in ("gzip", "x-gzip", "deflate"):
        # 47: gzip or zlib, whichever it is; some servers send raw deflate (-15)
        for bits in (47, -15) if encoding == "deflate" else (47,):
            inflater = zlib.decompressobj(bits)
            try:
                out = inflater.decompress(data, DECODED_BYTES_MAX + 1)
                break
            except zlib.error:
                if bits == -15 or encoding != "deflate":
                    raise
    elif encoding == "br":
        unpacker = brotli.Decompressor()
        out = unpacker.process(data, output_buffer_limit=DECODED_BYTES_MAX + 1)
        while not unpacker.is_finished() and len(out) <= DECODED_BYTES_MAX:
            part = unpacker.process(b"", output_buffer_limit=DECODED_BYTES_MAX + 1)
            if not part:
                break
            out += part
    else:
        raise FetchError(f"The page is packed as {encoding}, which was not asked for")
    if len(out) > DECODED_BYTES_MAX:
        raise FetchError(f"Unpacked, the page has more than the {DECODED_BYTES_MAX:,} bytes that are taken")
    return out


def explain(error: httpx.HTTPError) -> FetchError:
    """The reason in words, in place of an exception's name."""
    text = str(error)
    if isinstance(error, httpx.ConnectTimeout):
        return FetchError(f"The host did not answer in {CONNECT_S:.0f} s", transient=True)
    if isinstance(error, httpx.TimeoutException):
        return FetchError(f"The host stopped answering for {READ_S:.0f} s", transient=True)
    if "CERTIFICATE" in text.upper():
        return FetchError(f"The certificate of the host is not valid: {text.rpartition(':')[2].strip() or text}")
    if isinstance(error, httpx.ConnectError):
        return FetchError("The connection was refused or could not be made", transient=True)
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return FetchError(f"The connection broke: {text or type(error).__name__}", transient=True)
    return FetchError(text or type(error).__name__)


def unresolved(hosts: Iterable[str], *, most: int = 50, seconds: float = 3.0) -> set[str]:
    """Which of the first `most` hosts do not exist in the DNS; those that are slow to answer are not judged."""
    names = list(dict.fromkeys(hosts))[:most]
    asked = {look_ups(os.getpid()).submit(exists_in_dns, name): name for name in names}
    done, waiting = wait(asked, timeout=seconds)
    for future in waiting:
        future.cancel()
    return {asked[future] for future in done if not future.result()}


@cache
def look_ups(process: int) -> ThreadPoolExecutor:
    """One pool in a process, whoever asks: 16 look-ups at once and no more. A fork has none of its parent's threads."""
    return ThreadPoolExecutor(max_workers=16, thread_name_prefix="dns")


def exists_in_dns(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        return is_transient(error)
    return True


def by_origin(urls: Iterable[str]) -> dict[tuple[str, str, int], list[str]]:
    groups: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for url in urls:
        groups[origin_of(url)].append(url)
    return dict(groups)
