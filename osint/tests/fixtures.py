"""Run job types without a cluster, and a web server whose pages a test fills."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.utils import timezone

from jobs import registry
from jobs.manager import JobManager
from jobs.models import Job
from jobs.tracker import DirectOutlet, ProgressTracker
from osint import sample_site
from osint.models import Document, Subject


@pytest.fixture
def subject(analyst):
    return Subject.objects.create(name="Meridian", created_by=analyst)


def run_here(job_type, subject, by, **parameters):
    """The handler in this process, as its worker would start and end it; returns the job."""
    job = JobManager().create_job(job_type, parameters=parameters, created_by=by, subject_id=subject.pk)
    assert JobManager().start([job.pk], worker_id="atlas-1", host="atlas"), job.hold_reason
    job.refresh_from_db()
    with quiet_tracker(job) as tracker:
        result = registry.get(job_type).handler(tracker, job.parameters)
    assert JobManager().mark_completed(job.pk, result)
    return Job.objects.get(pk=job.pk)


class AtTheEnd(DirectOutlet):
    """Writes nothing before the handler has returned: as in a child, what it says is not at once in the database."""

    def _write_if_due(self):
        """Not yet."""


def quiet_tracker(job):
    return ProgressTracker(job.pk, attempt=job.attempt, outlet=AtTheEnd(job.pk))


def add_document(subject, text, *, url="", published="2024-05-15", language="en", **fields):
    number = Document.objects.count()
    return Document.objects.create(
        subject=subject, url=url or f"https://site.example/{number}", final_url=url or f"https://site.example/{number}", text=text, published=published,
        language=language, title=fields.pop("title", f"Page {number}"), attempt=1, http_status=200, size=len(text), sha256=f"{number:064d}",
        fetched_at=timezone.now(), **fields,
    )  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        answer = self.server.pages.get(self.path, (404, {}, b"nothing here"))
        status, headers, body = answer(self) if callable(answer) else answer
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(settings):
    """The bundled site, on loopback; its address."""
    server, base = sample_site.serve()
    settings.FETCH_ALLOW_PRIVATE = [base.removeprefix("http://")]
    yield base
    server.shutdown()
    server.server_close()


@pytest.fixture
def pages(settings):
    """A web server on loopback: `pages[path] = (status, headers, body)`; `asked` has what was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.pages, server.asked = {}, []
    server.base = f"http://127.0.0.1:{server.server_address[1]}"
    settings.FETCH_ALLOW_PRIVATE = [server.base.removeprefix("http://")]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def page(title, *paragraphs, head="", links=()):
    """HTML with enough text to be an article."""
    body = "".join(f"<p>{text}</p>" for text in (*paragraphs, *FILLER)) + "".join(f'<a href="{link}">{link}</a> ' for link in links)
    return (
        200,
        {},
        f"<!doctype html><html lang=en><head><title>{title}</title>{head}</head><body><main><article><h1>{title}</h1>{body}</article></main></body></html>",
    )


FILLER = (
    "The group was founded as a broker of grain cargoes and has owned vessels for many years, as the register of companies shows in detail.",
    "Analysts had expected the step since the previous quarter and left their estimate unchanged, while the press office gave no further comment.",
)
