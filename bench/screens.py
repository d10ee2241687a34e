"""The pictures of docs/screens, made anew: a real investigation of the sample site, made-up jobs beside it in every state, a browser.
`make screens`; `make screens ONLY="dashboard list"` makes these alone."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from typing import Any

from bench.common import ROOT, free_port, served

FOLDER = ROOT / "docs" / "screens"
SIZES = ((1280, 860), (360, 760))
PASSWORD = "correct horse battery staple"

SCRAPE = {
    "sitemap": "", "discover": False, "depth": 0, "hosts": "", "pages_max": 1000, "delay_s": 1.0, "hosts_at_once": 8, "recheck": True, "skip_refused": False
}  # fmt: skip


@dataclass
class Shot:
    """A page to be pictured: where it is, who looks, in which language, and what they do there first."""

    name: str
    title: str
    path: str
    who: str = "ortega"
    locale: str = "en-GB"
    act: Callable[[Any], None] = lambda page: None


class MadeUp:
    """Jobs in every state, put there by the calls that a worker and a person make; only clocks are turned back."""

    def __init__(self, user: Any, subject: Any) -> None:
        from jobs.manager import JobManager

        self.manager, self.user, self.subject = JobManager(), user, subject

    def scrape(self, pages: int, host: str = "example.org", **options: Any) -> Any:
        urls = [f"https://{host}/{n}" for n in range(pages)]
        # not looked at by the form, which would ask the DNS for the host
        return self.manager.create_job(
            "web_scraping", parameters={"urls": urls, **SCRAPE}, created_by=self.user, subject_id=self.subject.pk, checked=True, **options
        )

    def run(self, job: Any, worker: str, seconds: float) -> Any:
        """It has run for `seconds`, with measurements and a log."""
        from django.utils import timezone

        from jobs.models import Job, JobAttempt

        rng = random.Random(3)
        self.manager.start([job.pk], worker_id=worker, host="atlas")
        began = timezone.now() - timedelta(seconds=seconds)
        Job.objects.filter(pk=job.pk).update(started_at=began, created_at=began - timedelta(seconds=14), queued_s=8.0, held_s=6.0)
        hosts = [["example.org", 210, 38.2], ["news.example.net", 64, 21.7]]
        stages = [["Finding the pages", 0.4], ["Fetching and reading pages", seconds * 0.06]]
        JobAttempt.objects.filter(job=job, number=1).update(
            started_at=began, memory_peak_mb=160, cpu_seconds=seconds * 0.4,
            samples=[[n * seconds / 120, 80 + n * 0.6 + rng.random() * 8, 40 + rng.random() * 30] for n in range(121)],
            times={"polite": seconds * 0.55, "network": seconds * 0.18, "writing": seconds * 0.06, "stages": stages, "hosts": hosts},
        )  # fmt: skip
        address = job.parameters["urls"][0].removeprefix("https://").rpartition("/")[0]
        lines = [
            {"level": 30, "message": f"https://{address}/{n}: Not finished in 60 s"}
            if n % 17 == 0
            else {"level": 10, "message": f"Fetched {address}/{n} 200 24 kB {n * 7 % 300} ms"}
            for n in range(140)
        ]
        self.manager.append_logs(
            job.pk, [{**line, "timestamp": began + timedelta(seconds=n * seconds / 140)} for n, line in enumerate(lines)], attempt=1
        )
        return job

    def everything(self) -> dict[str, Any]:
        """The keys of what the pictures need."""
        from django.utils import timezone

        from jobs import archive
        from jobs.models import Job, WorkerProcess

        manager, made = self.manager, {}
        now = timezone.now()
        for n in range(4):
            WorkerProcess.objects.create(
                name=f"atlas-{n + 1}", queue_name="default", host="atlas", pid=os.getpid(), cluster=self.subject.pk, seen_at=now
            )
        old = self.scrape(40)
        self.manager.start([old.pk], worker_id="atlas-1", host="atlas")
        manager.mark_completed(old.pk, {"documents": 38, "failed": 2}, attempt=1)
        long_ago = now - timedelta(days=400)
        Job.objects.filter(pk=old.pk).update(created_at=long_ago, started_at=long_ago, completed_at=long_ago + timedelta(seconds=80))
        archive.clean_up(archive.default_days())
        made["archived"] = old.pk

        job = self.run(self.scrape(1000), "atlas-2", 160)
        manager.update_progress(
            job.pk, 41.2, "Fetching example.org/412", attempt=1, completed_steps=412, problem_count=7,
            estimated_duration=390, memory_usage_mb=152, cpu_usage_percent=48,
        )  # fmt: skip
        made["running"] = job.pk

        job = self.run(self.scrape(300, "news.example.net"), "atlas-3", 400)
        manager.update_progress(job.pk, 20, "Fetching news.example.net/61", attempt=1, completed_steps=61)
        manager.mark_stalled(Job.objects.get(pk=job.pk), 190)
        Job.objects.filter(pk=job.pk).update(progress_at=now - timedelta(seconds=200))
        made["stalled"] = job.pk

        job = self.run(self.scrape(200, "shipping.example.com", memory_limit_mb=512), "atlas-4", 95)
        manager.record_items(
            job.pk, [(f"https://shipping.example.com/{n}", "failed", "transient", "Not finished in 60 s") for n in range(23)], attempt=1
        )
        manager.update_progress(job.pk, 60, "Fetching shipping.example.com/120", attempt=1, completed_steps=120, problem_count=23)
        manager.mark_failed(
            job.pk, "Needed more memory than the 512 MB it may use (peak 530 MB)", kind="limit", attempt=1,
            advice="Raise the memory limit for this job, or split its input.",
        )  # fmt: skip
        made["failed"] = job.pk

        for hours in (26, 9, 8, 8, 4, 3, 3, 3, 0):
            job = self.run(self.scrape(20, "shipping.example.com"), "atlas-1", 30)
            manager.mark_failed(
                job.pk, "The host did not answer in 30 s", kind="transient", attempt=1, advice="If it keeps failing, check that the host is reachable."
            )  # fmt: skip
            ended = now - timedelta(hours=hours)
            Job.objects.filter(pk=job.pk).update(started_at=ended - timedelta(seconds=30), completed_at=ended)
        made["failure"] = Job.objects.get(pk=job.pk).failure

        job = self.run(self.scrape(80, "harbour.example.net"), "atlas-1", 50)
        manager.update_progress(job.pk, 50, "Fetching harbour.example.net/40", attempt=1, completed_steps=40)
        manager.mark_failed(job.pk, "The host did not answer in 30 s", kind="transient", attempt=1, retry_at=now + timedelta(seconds=252))
        made["retrying"] = job.pk

        job = self.run(self.scrape(1000, "registry.example.net"), "atlas-1", 300)
        manager.update_progress(job.pk, 41.2, "Fetching registry.example.net/412", attempt=1, completed_steps=412)
        manager.pause_job(job.pk, by=self.user)
        manager.mark_paused(job.pk, attempt=1)
        made["paused"] = job.pk

        job = self.scrape(60)
        manager.hold([job.pk], "Waits for memory: 1.1 GB needed, 0.6 GB free")
        made["held"] = job.pk
        made["waiting"] = [self.scrape(50 + n) for n in range(4)][2].pk
        job = self.scrape(12)
        manager.cancel_job(job.pk, "wrong site", by=self.user)
        made["cancelled"] = job.pk
        return made


def shots(user: Any, subject: Any) -> list[Shot]:
    from django.test import RequestFactory
    from django.views.defaults import server_error

    from jobs.models import Artifact, Job, JobGroup

    made = MadeUp(user, subject).everything()
    job = {name: f"/jobs/{key}/" for name, key in made.items()}
    group = JobGroup.objects.get()
    of_group = Job.objects.filter(group=group)
    table, report = (Artifact.objects.get(name=name).pk for name in ("entities.csv", "report.pdf"))
    about = f"/subjects/{subject.pk}/"
    entity = subject.entities.get(name="Meridian Holdings")
    document = subject.documents.filter(is_current=True).exclude(text="").first()

    def fill_badly(page: Any) -> None:
        page.fill("[name=urls]", "https://example.org/\nnot an address\nftp://example.org/file")
        page.locator("main form button.primary").first.click()
        page.locator(".errors, [aria-invalid]").first.wait_for()

    def sign_in_badly(page: Any) -> None:
        sign_in(page, password="guessed")
        page.get_by_role("alert").wait_for()

    def choose(page: Any) -> None:
        for n in range(3):
            page.locator("tr[data-job] input[type=checkbox]").nth(n).check()

    def lose_cookies(page: Any) -> None:
        page.context.clear_cookies()
        sign_in(page)
        page.get_by_role("heading").wait_for()

    def meet_fault(page: Any) -> None:
        body = server_error(RequestFactory().get("/")).content.decode()
        page.route("**/jobs/", lambda route: route.fulfill(status=500, content_type="text/html", body=body))
        page.goto("/jobs/")

    def lose_connection(page: Any) -> None:
        page.route_web_socket("**/ws/**", lambda socket: socket.close())
        page.reload()
        page.locator("[data-live][data-state=stale]").wait_for()

    return [
        Shot("sign-in", "Sign in", "/sign-in/", who=""),
        Shot("sign-in-refused", "Sign in, refused", "/sign-in/", who="", act=sign_in_badly),
        Shot("dashboard", "Dashboard", "/"),
        Shot("dashboard-german", "Dashboard, German", "/", locale="de-DE"),
        Shot("dashboard-first", "Dashboard, the first time", "/", who="newcomer"),
        Shot("list", "Jobs", "/jobs/"),
        Shot("list-chosen", "Jobs, three chosen", "/jobs/", act=choose),
        Shot("list-empty", "Jobs, nothing found", "/jobs/?q=nothing"),
        Shot("list-odd", "Jobs, by an address edited by hand", "/jobs/?state=dead&sort=colour&by=nobody&ended=24h"),
        Shot("list-first", "Jobs, the first time", "/jobs/", who="newcomer"),
        Shot("job-running", "Job, running", job["running"]),
        Shot("job-running-german", "Job, running, German", job["running"], locale="de-DE"),
        Shot("job-not-live", "Job, connection lost", job["running"], act=lose_connection),
        Shot("job-stalled", "Job, stalled", job["stalled"]),
        Shot("job-waiting", "Job, waiting", job["waiting"]),
        Shot("job-held", "Job, held", job["held"]),
        Shot("job-retrying", "Job, waits for its next try", job["retrying"]),
        Shot("job-paused", "Job, paused", job["paused"]),
        Shot("job-failed", "Job, failed", job["failed"]),
        Shot("job-completed", "Job, completed", f"/jobs/{of_group.get(job_type='web_scraping').pk}/"),
        Shot("job-cancelled", "Job, cancelled", job["cancelled"]),
        Shot("job-archived", "Job, archived", job["archived"]),
        Shot("items", "Items of a job", f"{job['failed']}items/"),
        Shot("group", "Investigation, a group of jobs", group.get_absolute_url()),
        Shot("preview", "A look into a table", f"/artifacts/{table}/preview/"),
        Shot("preview-report", "A look into the report", f"/artifacts/{report}/preview/", act=lambda page: page.wait_for_timeout(4000)),
        Shot("failures", "Kinds of failure", "/failures/"),
        Shot("failure", "Kind of failure", f"/failures/{made['failure']}/"),
        Shot("slow", "What is slow", "/slow/"),
        Shot("notifications", "Notifications", "/notifications/"),
        Shot("notifications-first", "Notifications, the first time", "/notifications/", who="newcomer"),
        Shot("mail", "Mail", "/notifications/mail/"),
        Shot("new-type", "New job, which type", "/jobs/new/"),
        Shot("new-job", "New job", "/jobs/new/web_scraping/"),
        Shot("new-job-refused", "New job, refused", "/jobs/new/web_scraping/", act=fill_badly),
        Shot("subjects", "Subjects", "/subjects/"),
        Shot("subjects-first", "Subjects, the first time", "/subjects/", who="newcomer"),
        Shot("subject", "Subject", about),
        Shot("documents", "Documents of a subject", f"{about}documents/"),
        Shot("document", "Document", f"/documents/{document.pk}/"),
        Shot("entities", "Entities of a subject", f"{about}entities/"),
        Shot("entity", "Entity", f"/entities/{entity.pk}/"),
        Shot("timeline", "Timeline of a subject", f"{about}timeline/"),
        Shot("duplicates", "Duplicates of a subject", f"{about}duplicates/"),
        Shot("files", "Files of a subject", f"{about}files/"),
        Shot("search", "Search in a subject", f"{about}search/?q=meridian"),
        Shot("investigate", "Investigate", f"{about}investigate/"),
        Shot("upload", "Upload", f"{about}upload/"),
        Shot("keys", "Keys", "/jobs/", act=lambda page: page.keyboard.press("?")),
        Shot("not-found", "Not found, or not yours", job["running"], who="newcomer"),
        Shot("not-allowed", "Not allowed", "/admin/auth/user/", who="newcomer"),
        Shot("out-of-date", "Page out of date", "/sign-in/", who="", act=lose_cookies),
        Shot("fault", "Fault of the server", "/health/", who="", act=meet_fault),
        Shot("styleguide", "Styleguide (only with DEBUG)", "/styleguide/"),
    ]


def sign_in(page: Any, name: str = "ortega", password: str = PASSWORD) -> None:
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.press("#id_password", "Enter")


def picture(browser: Any, base: str, wanted: list[Shot]) -> None:
    from django.utils import timezone

    from jobs.models import WorkerProcess

    for who, locale in sorted({(shot.who, shot.locale) for shot in wanted}):
        for width, height in SIZES:
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    base_url=base, viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, timezone_id="Europe/Berlin"
                )  # fmt: skip
                if who:
                    page = context.new_page()
                    page.goto("/sign-in/")
                    sign_in(page, who)
                    page.wait_for_url(f"{base}/")
                    page.close()
                for shot in wanted:
                    if (shot.who, shot.locale) == (who, locale):
                        WorkerProcess.objects.update(seen_at=timezone.now())  # nothing runs behind them
                        page = context.new_page()
                        page.goto(shot.path)
                        page.wait_for_timeout(400)  # live values and charts have come
                        shot.act(page)
                        keep(page.screenshot(), f"{shot.name}-{width}-{scheme}")
                        page.close()
                context.close()


def keep(png: bytes, name: str) -> None:
    """In 64 colours, which takes half the bytes and is not seen."""
    from PIL import Image

    few_colours = Image.open(BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    few_colours.convert("RGB").save(FOLDER / f"{name}.webp", lossless=True, method=6)


def write_page(wanted: list[Shot]) -> None:
    parts = [
        "# How the pages look",
        "",
        "Made-up jobs beside an investigation of the sample site, in Debian's Chromium; made by `make screens`.",
        "",
    ]
    for shot in wanted:
        parts += [f"## {shot.title}", "", "| light | dark |", "| --- | --- |"]
        for width, _ in SIZES:
            cells = (f"![{shot.title}, {width} px, {scheme}](screens/{shot.name}-{width}-{scheme}.webp)" for scheme in ("light", "dark"))
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    (FOLDER.parent / "screens.md").write_text("\n".join(parts))


def main(only: list[str]) -> None:
    import django

    django.setup()
    from django.contrib.auth.models import User
    from playwright.sync_api import sync_playwright

    from osint.models import Subject

    ortega = User.objects.get(username="admin")
    ortega.username = "ortega"
    ortega.set_password(PASSWORD)
    ortega.save()
    User.objects.create_user("newcomer", password=PASSWORD, is_staff=True)
    every = shots(ortega, Subject.objects.get())
    write_page(every)
    for path in FOLDER.iterdir():
        if path.stem.rsplit("-", 2)[0] not in {shot.name for shot in every}:
            path.unlink()
    wanted = [shot for shot in every if not only or shot.name in only]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for debug in (False, True):
            os.environ["DEBUG"] = str(debug)
            with served() as base:
                picture(browser, base, [shot for shot in wanted if (shot.name == "styleguide") == debug])


if __name__ == "__main__":
    os.chdir(ROOT)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fieldwork-screens-") as state:
        environment = {**os.environ, "STATE_DIR": state}
        subprocess.run([sys.executable, "manage.py", "demo", "--once", "--port", str(free_port())], check=True, env=environment)
        os.environ |= {"STATE_DIR": f"{state}/demo", "DJANGO_SETTINGS_MODULE": "osint.settings", "DJANGO_ALLOW_ASYNC_UNSAFE": "true"}
        main(sys.argv[1:])
