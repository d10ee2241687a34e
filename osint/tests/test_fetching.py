"""The guarded client, against real sockets on loopback."""

import asyncio
import gzip
import socket
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli
import httpcore
import pytest

from osint import fetching
from osint.fetching import Fetcher, FetchError, GuardedBackend, Refused, normalise


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, time.monotonic()))
        answer = self.server.pages.get(self.path, (404, {}, b"nothing here"))
        status, headers, body = answer(self) if callable(answer) else answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(settings):
    """A server whose `pages` a test fills; its exact address is allowed, as the demo does it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.pages, server.asked = {}, []
    server.host = f"127.0.0.1:{server.server_address[1]}"
    server.base = f"http://{server.host}"
    settings.FETCH_ALLOW_PRIVATE = [server.host]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(*urls, **options):
    async def run():
        async with Fetcher(**{"delay_s": 0.0, **options}) as fetcher:
            return await asyncio.gather(*(fetcher.fetch(url) for url in urls), return_exceptions=True)

    return asyncio.run(run())


PRIVATE = (
    "127.0.0.1", "[::1]", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "[fe80::1]", "[fc00::1]",
    "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "2130706433", "0x7f.1", "017700000001", "localhost", "localhost.", "a.localhost",
    "printer.local", "db.internal", "100.64.0.1", "224.0.0.1", "255.255.255.255", "[2002:7f00:1::]", "[::]", "[fec0::1]", "[::127.0.0.1]", "[2001:0:7f00:1::]",
)  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_s01_private_addresses_are_refused_before_a_connection(host, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a connection was tried"))
    with pytest.raises(Refused, match="public|machine"):
        normalise(f"http://{host}/")
    [error] = fetch(f"http://{host}/")
    assert isinstance(error, Refused)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.8", "::1", "::ffff:192.168.0.1", "169.254.169.254"])
def test_s01_a_name_that_leads_to_a_private_address_is_refused(address, monkeypatch):
    answers(monkeypatch, [address])
    [error] = fetch("http://rebind.example/")
    assert isinstance(error, Refused)
    assert address in str(error)


def answers(monkeypatch, addresses):
    """The DNS says this. (It is outside the machine, so it is the one thing that is pretended.)"""

    async def getaddrinfo(self, host, port, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def test_s01_one_private_answer_among_public_ones_is_enough(monkeypatch):
    answers(monkeypatch, ["93.184.216.34", "10.0.0.8"])
    [error] = fetch("http://mixed.example/")
    assert isinstance(error, Refused)


def test_s02_the_checked_address_is_the_one_connected_to(monkeypatch):
    """There is one look-up, and what is connected to is its answer, not the name."""
    connected = []

    class Inner(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host, port, *args, **kwargs):
            connected.append(host)
            raise httpcore.ConnectError("far enough")

    answers(monkeypatch, ["93.184.216.34"])
    backend = GuardedBackend()
    backend.inner = Inner()
    with pytest.raises(httpcore.ConnectError):
        asyncio.run(backend.connect_tcp("site.example", 443))
    assert connected == ["93.184.216.34"]


def test_s02_a_redirect_to_a_private_address_is_refused(site):
    site.pages["/go"] = (302, {"Location": "http://10.0.0.1/"}, b"")
    site.pages["/here"] = (302, {"Location": "http://127.0.0.1:1/"}, b"")
    for error in fetch(f"{site.base}/go", f"{site.base}/here"):
        assert isinstance(error, Refused)


def test_the_guard_is_where_httpx_connects():
    """Pins the one attribute of httpx that we set and it does not promise."""
    transport = fetching.guarded_transport(4)
    assert isinstance(transport._pool, httpcore.AsyncConnectionPool)
    assert isinstance(transport._pool._network_backend, GuardedBackend)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "file:"), ("ftp://example.org/", "ftp:"), ("gopher://example.org/", "gopher:"),
        ("data:text/html,x", "data:"), ("javascript:alert(1)", "javascript:"), ("https://a:b@example.org/", "password"),
        ("https://a@example.org/", "password"), ("https://example.org:22/", "Port 22"), ("https://example.org:99999/", "not a web address"),
        ("example.org", "must begin"), ("https://", "host"), ("https:///x", "host"), ("https://exa mple.org/", "host"),
        ("https://" + "a" * 70 + ".org/", "host name"), ("https://example.org/" + "x" * 3000, "characters"), ("", "must begin"),
    ],
)  # fmt: skip
def test_s03_odd_addresses_are_refused_with_the_reason(url, why):
    with pytest.raises(Refused, match=why):
        normalise(url)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("HTTPS://Example.ORG:443/a#b", "https://example.org/a"), ("http://example.org", "http://example.org/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"), (" https://example.org/a?b=c ", "https://example.org/a?b=c"),
    ],
)  # fmt: skip
def test_one_page_has_one_address(url, same):
    assert normalise(url) == same


BOMB = b"\0" * 60_000_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(BOMB)), ("deflate", zlib.compress(BOMB)), ("br", brotli.compress(BOMB, quality=1))],
)
def test_s04_a_decompression_bomb_is_ended_at_the_limit(site, encoding, body):
    site.pages["/bomb"] = (200, {"Content-Encoding": encoding}, body)
    [error] = fetch(f"{site.base}/bomb")
    assert isinstance(error, FetchError)
    assert "Unpacked" in str(error)


def test_s04_an_endless_body_is_ended(site, monkeypatch):
    monkeypatch.setattr(fetching, "BODY_BYTES_MAX", 100_000)
    monkeypatch.setattr(Fetcher.get, "__defaults__", (100_000, None))

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        except OSError:
            handler.close_connection = True
            raise

    site.pages["/endless"] = endless
    site.handle_error = lambda *a: None
    site.pages["/announced"] = (200, {"Content-Length": "200000"}, b"x" * 200_000)
    for error in fetch(f"{site.base}/endless", f"{site.base}/announced"):
        assert isinstance(error, FetchError)
        assert "bytes" in str(error)


def test_s04_a_slow_drip_is_ended(site, monkeypatch):
    monkeypatch.setattr(fetching, "URL_S", 0.5)
    stop = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not stop.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                break
        raise OSError("gone")

    site.pages["/drip"] = drip
    site.handle_error = lambda *a: None
    [error] = fetch(f"{site.base}/drip")
    stop.set()
    assert isinstance(error, FetchError)
    assert error.transient
    assert "Not finished" in str(error)


def test_s04_endless_redirects_end(site):
    site.pages["/loop"] = (302, {"Location": "/loop"}, b"")
    [error] = fetch(f"{site.base}/loop")
    assert "redirects" in str(error)


def test_s04_a_megabyte_of_headers_is_an_error(site):
    site.pages["/headers"] = (200, {f"X-{n}": "x" * 10_000 for n in range(100)}, b"")
    [error] = fetch(f"{site.base}/headers")
    assert isinstance(error, FetchError)


def test_robots_txt_is_obeyed_and_read_once(site):
    site.pages["/robots.txt"] = (200, {}, b"User-agent: *\nDisallow: /private/\n")
    site.pages["/private/a"] = site.pages["/b"] = (200, {}, b"text")
    no, yes, again = fetch(f"{site.base}/private/a", f"{site.base}/b", f"{site.base}/b")
    assert isinstance(no, Refused)
    assert "robots.txt" in str(no)
    assert yes.content == again.content == b"text"
    assert [path for path, _ in site.asked].count("/robots.txt") == 1
    assert "/private/a" not in [path for path, _ in site.asked]


@pytest.mark.parametrize(("status", "allowed"), [(404, True), (403, True), (500, False), (503, False)])
def test_a_robots_txt_that_is_not_there_allows_and_one_that_breaks_forbids(site, status, allowed):
    site.pages["/robots.txt"] = (status, {}, b"")
    site.pages["/a"] = (200, {}, b"text")
    [result] = fetch(f"{site.base}/a")
    assert isinstance(result, FetchError) is not allowed


def test_the_crawl_delay_of_a_site_counts_if_it_is_longer(site):
    site.pages["/robots.txt"] = (200, {}, b"User-agent: *\nCrawl-delay: 1\n")
    site.pages |= {f"/{n}": (200, {}, b"x") for n in range(3)}
    fetch(*(f"{site.base}/{n}" for n in range(3)))
    times = sorted(at for path, at in site.asked if path != "/robots.txt")
    assert all(later - earlier >= 0.6 for earlier, later in zip(times, times[1:], strict=False))


def test_public_hosts_are_never_asked_faster_than_the_floor(site):
    fetcher = Fetcher(delay_s=0.0)
    assert fetcher.host("https://example.org/").delay_s == fetching.DELAY_MIN_S
    assert fetcher.host(site.base).delay_s == 0.0


def test_redirects_are_kept_hop_by_hop(site):
    site.pages["/old"] = (301, {"Location": "/new"}, b"moved")
    site.pages["/new"] = (200, {"Content-Type": "text/plain"}, b"here")
    [fetched] = fetch(f"{site.base}/old")
    assert [hop.status for hop in fetched.hops] == [301, 200]
    assert (fetched.last.url, fetched.content, fetched.url) == (f"{site.base}/new", b"here", f"{site.base}/old")


@pytest.mark.parametrize(("url", "why"), [("http://nosuch.invalid/", "cannot be found in the DNS"), ("closed", "refused")])
def test_what_cannot_be_reached_is_said_in_words(site, settings, url, why):
    if url == "closed":
        site.shutdown()
        site.server_close()
        url = site.base
    [error] = fetch(url)
    assert why in str(error)


def test_private_hosts_that_the_settings_allow_are_named(settings):
    settings.FETCH_ALLOW_PRIVATE = ["127.0.0.1:8001"]
    assert fetching.allowed_private_in(["http://127.0.0.1:8001/a", "https://example.org/"]) == ["127.0.0.1:8001"]
    with pytest.raises(Refused):
        normalise("http://127.0.0.1:8002/")
    with pytest.raises(Refused):
        normalise("http://127.0.0.1/")
