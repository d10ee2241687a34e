"""The front door, as a newcomer opens it."""

import os
import re
import signal
import subprocess
import sys

import psutil
import pytest

from jobs.tests.fixtures import ROOT, wait_for
from osint.sample_site import PAGES, free_port

pytestmark = pytest.mark.integration


def demo(tmp_path, *arguments):
    names = ("DATABASE_URL", "REDIS_URL", "JOBS", "DJANGO_SETTINGS_MODULE", "SECRET_KEY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.Popen(
        [sys.executable, "manage.py", "demo", "--port", str(free_port()), *arguments],
        cwd=ROOT, env={**environment, "STATE_DIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_sample_site_has_at_least_forty_pages():
    assert len(PAGES) >= 40


def test_once_ends_with_the_result_on_its_last_line(tmp_path):
    process = demo(tmp_path, "--once")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    last = r"demo: COMPLETED documents=44 entities=(\d+) events=(\d+) duplicates=(\d+) artifacts=15 seconds=\d+\.\d"
    found = re.fullmatch(last, output.splitlines()[-1])
    assert found, output.splitlines()[-1]
    assert all(int(number) > 10 for number in found.groups()[:2])
    assert re.search(r"user admin, password \S{12}", output)


def test_ctrl_c_stops_everything(tmp_path):
    process = demo(tmp_path)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops everything" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 10, "".join(lines)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stdout.close()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), "all processes to end")
