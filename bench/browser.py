"""What a page costs the browser while much happens: CPU with 200 log lines a second, and how far rows jump when they change.
Part of `make bench`; `python -m bench.browser` alone. Without a Chromium it says so."""

import os
import shutil
import sys
import tempfile
import time
from typing import Any

import psutil

from bench.common import ROOT, say, served

LINES_A_SECOND = 200
SECONDS = 15
ROWS = 50
AIM_CPU_PERCENT = 20
# sums what layout moved by itself (https://web.dev/articles/cls); 0.1 is called good there
SHIFTS = """window.shifted = 0; new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });"""


def renderers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if any("--type=renderer" in part for part in p.cmdline())]


def cpu_seconds() -> float:
    return sum(sum(p.cpu_times()[:2]) for p in renderers())


def speak(job: Any, seconds: float) -> int:
    """What a worker does with the lines of its job, five times a second; returns how many there were."""
    from jobs import live
    from jobs.manager import JobManager

    manager, said, until = JobManager(), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        rows = [{"level": 20, "message": f"Fetched example.org/{said + n} 200 24 kB 113 ms"} for n in range(LINES_A_SECOND // 5)]
        first = manager.append_logs(job.pk, rows, attempt=1)
        lines = [[20, row["message"], time.time(), ""] for row in rows]
        live.publish(f"job.{job.pk}", {"type": "job.log", "id": str(job.pk), "first": first, "lines": lines, "missing": 0})
        said += len(rows)
        time.sleep(max(0.0, 0.2 - (time.monotonic() - began)))
    return said


def move_rows(jobs: list[Any], seconds: float) -> None:
    from jobs.manager import JobManager

    manager, until, step = JobManager(), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        step += 1
        for job in jobs:
            manager.update_progress(job.pk, min(99.0, step), f"Fetching example.org/{step * 7919 % 10007}", attempt=1, completed_steps=step)
            manager._announce(job.pk, "RUNNING", step + 10)
        time.sleep(0.5)


def browse(base: str, executable: str) -> None:
    from django.contrib.auth.models import User
    from playwright.sync_api import sync_playwright

    from jobs.manager import JobManager

    user = User.objects.create_superuser("watcher", password="pw")
    jobs = [JobManager().create_job("web_scraping", parameters={"urls": [f"https://example.org/{n}"], "delay_s": 1.0, "sitemap": ""},
                                    created_by=user, checked=True, name=f"Job {n}") for n in range(ROWS)]  # fmt: skip
    for job in jobs:
        JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(base_url=base, viewport={"width": 1280, "height": 860})
        page.goto("/sign-in/")
        page.fill("#id_username", "watcher")
        page.fill("#id_password", "pw")
        page.press("#id_password", "Enter")
        page.wait_for_url(f"{base}/")
        page.goto(jobs[0].get_absolute_url())
        page.locator("[data-live][data-state=live]").wait_for()
        speak(jobs[0], 2)
        before, began = cpu_seconds(), time.monotonic()
        said = speak(jobs[0], SECONDS)
        share = 100 * (cpu_seconds() - before) / (time.monotonic() - began)
        shown = page.evaluate("Number(document.querySelector('[data-log] li:last-child').dataset.seq)")
        lines = page.evaluate("document.querySelectorAll('[data-log] li').length")
        say(
            "browser_log",
            lines_a_second=said / SECONDS,
            cpu_percent_of_a_core=share,
            aim=AIM_CPU_PERCENT,
            last_line=shown,
            lines_in_page=lines,
        )
        page.add_init_script(SHIFTS)
        page.goto("/jobs/")
        page.locator("[data-live][data-state=live]").wait_for()
        page.evaluate("window.shifted = 0")
        move_rows(jobs, SECONDS)
        say("browser_rows", rows=ROWS, seconds=SECONDS, layout_shift=page.evaluate("window.shifted"), aim=0.0)
        browser.close()


def main() -> None:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        say("browser", skipped="no chromium here")
        return
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's loop runs in this thread; the ORM is used between its steps
    with served() as base:
        browse(base, executable)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fieldwork-bench-") as state:
        os.environ |= {"STATE_DIR": state, "DJANGO_SETTINGS_MODULE": "osint.settings"}
        os.chdir(ROOT)
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        main()
        sys.exit(0)
