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

from jobs.models import Artifact, JobGroup
from jobs.presentation import GroupState, group_state
from osint import sample_site
from osint.investigation import investigate
from osint.models import Subject

SUBJECT = "Meridian Holdings"
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
        group = start_investigation(admin, base, delay_s=0.0 if once else 0.5)
        console.print(f"\n  Sign in at [bold]{web}{group.get_absolute_url()}[/bold]")
        console.print(f"  user [bold]{admin.username}[/bold], password [bold]{password}[/bold]\n")
        state = follow(group, console)
        if not once:
            console.print("\n  The pages stay up. Ctrl-C stops everything.")
            stack.wait()
        return report(group, state, time.monotonic() - started, once)
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


def start_investigation(admin: User, base: str, delay_s: float) -> JobGroup:
    subject, _ = Subject.objects.get_or_create(name=SUBJECT, created_by=admin)
    return investigate(subject, scrape={"sitemap": f"{base}/sitemap.xml", "delay_s": delay_s}, by=admin)


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


def follow(group: JobGroup, console: Console) -> GroupState:
    """Show the group's own sentence until it has ended."""
    deadline = time.monotonic() + JOB_S
    columns = (TextColumn("  {task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=False) as progress:
        bar = progress.add_task(group.name, total=100)
        while True:
            state = group_state(group)
            progress.update(bar, description=state.sentence[:90], completed=state.percent)
            if all(job.is_ended for job in state.jobs):
                return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"the investigation did not end in {JOB_S:.0f} s")
            time.sleep(0.1)


def report(group: JobGroup, state: GroupState, seconds: float, once: bool) -> int:
    status = state.badge.key.upper()
    if status != "COMPLETED":
        print(f"demo: {status} reason={state.sentence}")
        return 1
    if once:
        subject = Subject.objects.get(name=SUBJECT)
        counts = {
            "documents": subject.documents.filter(is_current=True).count(),
            "entities": subject.entities.count(),
            "events": subject.events.count(),
            "duplicates": subject.duplicate_pairs.count(),
            "artifacts": Artifact.objects.filter(job__group=group).count(),
        }
        print(f"demo: {status} {' '.join(f'{name}={n}' for name, n in counts.items())} seconds={seconds:.1f}")
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
