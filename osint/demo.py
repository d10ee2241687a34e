"""What `manage.py demo` shows: the stack as `up` starts it, one job, its progress in the terminal."""

import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from types import FrameType

from django.contrib.auth.models import User
from django.core.management import call_command
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.manager import JobManager
from jobs.models import Job
from jobs.presentation import sentence
from jobs.states import Status
from osint import sample_site
from osint.models import Subject

START_S = 60.0
JOB_S = 300.0


class Stopped(Exception):
    """Ctrl-C, or SIGTERM."""


def run(port: int, site_port: int, once: bool) -> int:
    """Returns the exit status: 0 when the job completed (or the person stopped it later)."""
    console = Console(highlight=False)
    call_command("migrate", verbosity=0, interactive=False)
    admin, password = make_admin()
    _, base = sample_site.serve(site_port)
    if port_is_taken(port):
        port = sample_site.free_port()
    stack = subprocess.Popen([sys.executable, sys.argv[0], "up", "--port", str(port)], stdout=subprocess.DEVNULL)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    try:
        web = f"http://127.0.0.1:{port}"
        wait_for_web(web, stack)
        started = time.monotonic()
        job = start_job(admin, base, delay_s=0.0 if once else 0.5)
        console.print(f"\n  Sign in at [bold]{web}{job.get_absolute_url()}[/bold]")
        console.print(f"  user [bold]{admin.username}[/bold], password [bold]{password}[/bold]\n")
        job = follow(job, console)
        if not once:
            console.print("\n  The pages stay up. Ctrl-C stops everything.")
            stack.wait()
        return report(job, time.monotonic() - started, once)
    except Stopped:
        console.print("\n  Stopping.")
        return 0 if not once else 130
    except TimeoutError as error:
        print(f"demo: FAILED reason={error}")
        return 1
    finally:
        end(stack)


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def make_admin() -> tuple[User, str]:
    """The demo's admin, with a new password at each start: it is printed and kept nowhere."""
    password = secrets.token_urlsafe(9)
    admin, _ = User.objects.get_or_create(username="admin", defaults={"is_staff": True, "is_superuser": True})
    admin.set_password(password)
    admin.save()
    return admin, password


def start_job(admin: User, base: str, delay_s: float) -> Job:
    subject, _ = Subject.objects.get_or_create(name="Meridian Holdings", created_by=admin)
    parameters = {"sitemap": f"{base}/sitemap.xml", "delay_s": delay_s}
    return JobManager().create_job("web_scraping", parameters=parameters, created_by=admin, subject_id=subject.pk)


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for_web(web: str, stack: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if stack.poll() is not None:
            raise TimeoutError(f"the web server ended with status {stack.returncode}")
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{web}/health/", timeout=2):
            return
        time.sleep(0.1)
    raise TimeoutError(f"the web server did not answer in {START_S:.0f} s")


def follow(job: Job, console: Console) -> Job:
    """Show the job's own sentence until it has ended."""
    deadline = time.monotonic() + JOB_S
    columns = (TextColumn("  {task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=False) as progress:
        bar = progress.add_task(job.name, total=None)
        while not job.is_ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job did not end in {JOB_S:.0f} s")
            time.sleep(0.1)
            job.refresh_from_db()
            progress.update(bar, description=sentence(job)[:90], completed=job.completed_steps, total=job.total_steps)
    return job


def report(job: Job, seconds: float, once: bool) -> int:
    if job.status != Status.COMPLETED:
        print(f"demo: {job.status} reason={job.error_message or job.cancel_reason}")
        return 1
    documents = (job.result_data or {}).get("documents", 0)
    if once:
        print(f"demo: {job.status} documents={documents} seconds={seconds:.1f}")
    return 0


def end(stack: subprocess.Popen) -> None:
    """SIGTERM lets the workers put their jobs back; what does not end in time is killed."""
    if stack.poll() is None:
        stack.terminate()
    try:
        stack.wait(9)
    except subprocess.TimeoutExpired:
        stack.kill()
        stack.wait()
