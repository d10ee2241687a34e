"""A small web site to try the product on: the pages of an invented holding, served on loopback.

People, offices, press releases, filings and news that refer to each other, with dates, names,
addresses and numbers as such sites have them. All of it is invented; the domains are reserved for
documentation (RFC 2606, RFC 5737).
"""

import socket
import threading
from dataclasses import dataclass
from datetime import date
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PEOPLE = (
    ("anna-keller", "Anna Keller", "Chief Executive Officer", "Zürich", 2014, "shipping finance"),
    ("jan-lindqvist", "Jan Lindqvist", "Chief Financial Officer", "Stockholm", 2016, "corporate audit"),
    ("maria-ortega", "María Ortega", "Head of Port Operations", "Valencia", 2011, "container terminals"),
    ("tomas-novak", "Tomáš Novák", "General Counsel", "Prague", 2018, "maritime law"),
    ("kenji-sato", "Kenji Sato", "Director, Asia Pacific", "Singapore", 2019, "commodity trading"),
    ("leila-haddad", "Leila Haddad", "Head of Compliance", "Limassol", 2020, "sanctions screening"),
    ("piotr-zielinski", "Piotr Zieliński", "Fleet Manager", "Gdynia", 2013, "bulk carriers"),
    ("grace-mwangi", "Grace Mwangi", "Regional Director, East Africa", "Mombasa", 2021, "inland logistics"),
    ("david-hughes", "David Hughes", "Non-executive Director", "London", 2017, "reinsurance"),
    ("sofia-papadaki", "Sofia Papadaki", "Head of Chartering", "Piraeus", 2015, "tanker brokerage"),
)
OFFICES = (
    ("zurich", "Zürich", "Seestrasse 44, 8002 Zürich, Switzerland", "+41 44 555 01 20", "Meridian Holdings AG"),
    ("limassol", "Limassol", "12 Agiou Andreou, 3036 Limassol, Cyprus", "+357 25 555 310", "Northgate Shipping Ltd"),
    ("gdynia", "Gdynia", "ul. Portowa 7, 81-350 Gdynia, Poland", "+48 58 555 22 90", "Baltic Bulk Sp. z o.o."),
    ("singapore", "Singapore", "3 Anson Road, Singapore 079909", "+65 6555 0182", "Meridian Asia Pte Ltd"),
    ("mombasa", "Mombasa", "Moi Avenue 118, Mombasa, Kenya", "+254 41 555 6700", "Coastline Logistics Ltd"),
    ("valencia", "Valencia", "Avinguda del Port 91, 46021 València, Spain", "+34 96 555 14 08", "Terminal Levante SA"),
)
NEWS = (
    ("2019-03-14", "Meridian Holdings acquires Baltic Bulk", "acquired the Gdynia based operator Baltic Bulk Sp. z o.o. for 41 million euro", "piotr-zielinski", "gdynia"),
    ("2019-09-02", "Northgate Shipping orders four bulk carriers", "ordered four Supramax bulk carriers from a yard in Busan, for delivery between 2021 and 2022", "sofia-papadaki", "limassol"),
    ("2020-01-21", "New compliance department in Limassol", "opened a compliance department of fourteen people and named Leila Haddad as its head", "leila-haddad", "limassol"),
    ("2020-06-30", "Annual general meeting moves online", "held its annual general meeting online for the first time; all motions were carried", "david-hughes", "zurich"),
    ("2020-11-12", "Terminal Levante resumes full operation", "returned to full operation after a fire in a warehouse on 3 October 2020", "maria-ortega", "valencia"),
    ("2021-04-08", "Meridian Asia signs supply agreement", "signed a five-year supply agreement with Harbour Grain Trading of Singapore", "kenji-sato", "singapore"),
    ("2021-08-19", "First of four new carriers delivered", "took delivery of MV Northgate Dawn (IMO 9555101) on 17 August 2021", "sofia-papadaki", "limassol"),
    ("2022-02-03", "Coastline Logistics opens inland depot", "opened an inland container depot at Nairobi with a capacity of 9,000 TEU a year", "grace-mwangi", "mombasa"),
    ("2022-05-27", "Statement on the inquiry in Valencia", "confirmed that the port authority of Valencia asked for documents about two shipments of March 2022", "tomas-novak", "valencia"),
    ("2022-10-06", "Jan Lindqvist to chair the audit committee", "asked Jan Lindqvist to chair the audit committee until a successor is found", "jan-lindqvist", "zurich"),
    ("2023-03-30", "Annual results 2022", "reported revenue of 612 million euro for 2022, 8 per cent more than in 2021", "anna-keller", "zurich"),
    ("2023-06-15", "Change in the board of directors", "announced that David Hughes leaves the board on 31 July 2023", "david-hughes", "zurich"),
    ("2023-11-09", "Sale of two carriers", "sold MV Northgate Dawn and MV Northgate Tide to an undisclosed buyer in Dubai", "sofia-papadaki", "limassol"),
    ("2024-02-22", "Inquiry in Valencia closed", "was told on 20 February 2024 that the inquiry was closed without charges", "tomas-novak", "valencia"),
    ("2024-07-11", "Meridian Holdings moves its fleet register", "moved the register of eleven vessels from Cyprus to Malta", "piotr-zielinski", "gdynia"),
)  # fmt: skip
FILINGS = (
    ("2019", "CHE-355.104.221", "Meridian Holdings AG", "share capital 12,000,000 CHF, fully paid"),
    ("2020", "HE 401552", "Northgate Shipping Ltd", "charge registered in favour of Hellenic Maritime Bank on 5 May 2020"),
    ("2021", "KRS 0000551234", "Baltic Bulk Sp. z o.o.", "management board reduced to two members"),
    ("2022", "201955512K", "Meridian Asia Pte Ltd", "registered office moved to 3 Anson Road"),
    ("2023", "PVT-BEUX55512", "Coastline Logistics Ltd", "annual return filed late, on 14 September 2023"),
    ("2024", "A-46555123", "Terminal Levante SA", "capital increase of 3,500,000 EUR entered on 8 January 2024"),
)
BACKGROUND = (
    "The group was founded in 1987 as a broker of grain cargoes and has owned vessels since 1994. It employs about 1,900 people at {n} sites.",
    "Analysts of Kestrel Research in London had expected the step since the previous quarter and left their estimate unchanged.",
    "The holding publishes its reports in English and German. Older ones can be asked for at archive@meridian-holdings.example.",
    "According to the register the beneficial owner is a family foundation in Vaduz, whose council meets twice a year.",
    "Questions of the press are answered by the office in Zürich, telephone +41 44 555 01 20, on weekdays from 8:30 to 17:00.",
    "Neither the price nor the terms of payment were made public. The contract is governed by English law.",
    "Two of the vessels named were anchored off Limassol for eleven weeks in 2022, as port records show.",
)  # fmt: skip


@dataclass(frozen=True)
class SamplePage:
    path: str
    title: str
    body: str
    published: str = ""
    author: str = ""


def paragraphs(*texts: str) -> str:
    return "".join(f"<p>{text}</p>" for text in texts)


def background(number: int, count: int = 3) -> list[str]:
    return [BACKGROUND[(number + k * 2) % len(BACKGROUND)].format(n=len(OFFICES)) for k in range(count)]


def link(path: str, text: str) -> str:
    return f'<a href="{path}">{escape(text)}</a>'


def build() -> dict[str, SamplePage]:
    """All pages by path."""
    names = {slug: name for slug, name, *_ in PEOPLE}
    pages = [
        SamplePage("/", "Meridian Holdings", paragraphs(
            "Meridian Holdings AG of Zürich owns companies in shipping, ports and logistics.",
            f"Read about {link('/people', 'our people')}, {link('/offices', 'our offices')}, {link('/press', 'news')} and {link('/filings', 'filings')}.",
            *background(0),
        )),
        SamplePage("/about", "About the group", paragraphs(*background(1, 5))),
        SamplePage("/contact", "Contact", paragraphs(
            "Write to press@meridian-holdings.example or to Meridian Holdings AG, Seestrasse 44, 8002 Zürich.", *background(4)
        )),
        SamplePage("/people", "People", "<ul>" + "".join(
            f"<li>{link(f'/people/{slug}', name)}, {escape(role)}</li>" for slug, name, role, *_ in PEOPLE) + "</ul>" + paragraphs(*background(2))),
        SamplePage("/offices", "Offices", "<ul>" + "".join(
            f"<li>{link(f'/offices/{slug}', city)}: {escape(address)}</li>" for slug, city, address, *_ in OFFICES) + "</ul>" + paragraphs(*background(3))),
        SamplePage("/press", "Press releases", "<ul>" + "".join(
            f"<li>{day}: {link(f'/press/{day}', title)}</li>" for day, title, *_ in NEWS) + "</ul>" + paragraphs(*background(5))),
        SamplePage("/filings", "Filings", "<ul>" + "".join(
            f"<li>{link(f'/filings/{year}', f'{company}, {year}')}</li>" for year, _, company, _ in FILINGS) + "</ul>" + paragraphs(*background(6))),
    ]  # fmt: skip
    for n, (slug, name, role, city, since, field) in enumerate(PEOPLE):
        mail = f"{slug.replace('-', '.')}@meridian-holdings.example"
        pages.append(SamplePage(f"/people/{slug}", name, paragraphs(
            f"{name} is {role} of Meridian Holdings and works from {city}. Joined the group in {since} after twelve years in {field}.",
            f"Can be reached at {mail}.",
            f"{name} spoke about {field} at the Maritime Forum in Hamburg on {1 + n * 2} June {since + 3}.",
            *background(n),
        )))  # fmt: skip
    for n, (slug, city, address, phone, company) in enumerate(OFFICES):
        pages.append(SamplePage(f"/offices/{slug}", f"{company}, {city}", paragraphs(
            f"{company} has its office at {address}. Telephone {phone}.",
            f"The office opened in {2001 + n * 3} and is led by {PEOPLE[n][1]}.",
            *background(n + 2),
        )))  # fmt: skip
    for n, (day, title, what, who, where) in enumerate(NEWS):
        when = date.fromisoformat(day)
        pages.append(SamplePage(f"/press/{day}", title, paragraphs(
            f"{OFFICES[0][1]}, {when:%-d %B %Y}. Meridian Holdings {what}.",
            f"“This is a step that we prepared with care,” said {link(f'/people/{who}', names[who])}. The matter is handled by the {link(f'/offices/{where}', where.title())} office.",
            *background(n, 4),
        ), published=day, author="Press office"))  # fmt: skip
    for n, (year, number, company, entry) in enumerate(FILINGS):
        pages.append(SamplePage(f"/filings/{year}", f"{company}: register extract {year}", paragraphs(
            f"Register number {number}. {company}: {entry}.",
            f"Extract of {3 + n} March {int(year) + 1}. Authorised to sign: {PEOPLE[n][1]} and {PEOPLE[n + 1][1]}, jointly.",
            *background(n + 1),
        ), published=f"{int(year) + 1}-03-{3 + n:02d}"))  # fmt: skip
    return {page.path: page for page in pages}


def render(page: SamplePage) -> str:
    meta = f'<meta property="article:published_time" content="{page.published}">' if page.published else ""
    author = f'<meta name="author" content="{escape(page.author)}">' if page.author else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(page.title)} | Meridian Holdings</title>'
        f"{meta}{author}</head><body><nav>{link('/', 'Home')} {link('/people', 'People')} {link('/press', 'Press')}</nav>"
        f"<main><article><h1>{escape(page.title)}</h1>{page.body}</article></main>"
        f"<footer>© Meridian Holdings AG. Invented for demonstration.</footer></body></html>"
    )


PAGES = build()
# What real sites have as well: pages that cannot be read.
REFUSALS = {"/investors/login": (403, "Forbidden"), "/press/2018-05-04": (404, "Not Found")}


class SampleHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two small writes wait 40 ms for each other
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        host = self.headers.get("Host", "localhost")
        if path == "/robots.txt":
            self.answer(200, f"User-agent: *\nDisallow: /private/\nSitemap: http://{host}/sitemap.xml\n", "text/plain")
        elif path == "/sitemap.xml":
            entries = "".join(f"<url><loc>http://{host}{p}</loc></url>" for p in [*PAGES, *REFUSALS])
            self.answer(200, f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>', "application/xml")
        elif path in PAGES:
            self.answer(200, render(PAGES[path]))
        else:
            status, reason = REFUSALS.get(path, (404, "Not Found"))
            self.answer(status, f"<!doctype html><title>{status}</title><h1>{status} {reason}</h1>")

    def answer(self, status: int, text: str, kind: str = "text/html; charset=utf-8") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the job's own log says what was fetched."""


def serve(port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Serve in a thread on loopback; returns the server and its base address. Port 0 picks a free one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), SampleHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="sample site", daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
