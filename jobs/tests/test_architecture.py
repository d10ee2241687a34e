"""Rules about the code itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.states import TRANSITIONS, Status
from jobs.tests.fixtures import ROOT


def sources(*folders: str) -> list[Path]:
    return [
        p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")) if "tests" not in p.parts and "migrations" not in p.parts
    ]


def test_imports_point_down():
    """The layers and contracts of pyproject.toml hold."""
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_manager_is_the_one_writer_of_status():
    writes = re.compile(r"""(\.status\s*=\s*(Status|Job)\.|update\([^)]*\bstatus\s*=|["']status["']\s*:\s*Status\.)""")
    found = [
        f"{p.name}: {line.strip()}"
        for p in sources("jobs", "osint")
        for line in p.read_text().splitlines()
        if p.name != "manager.py" and writes.search(line)
    ]
    assert found == []


def test_the_search_for_writers_finds_one():
    """The rule above would see what it looks for."""
    text = (ROOT / "jobs/manager.py").read_text()
    assert text.count('"status": Status.') >= 6


def test_only_fetching_opens_connections():
    clients = re.compile(r"^\s*(import|from) (httpx|httpcore|requests|urllib\.request|aiohttp|http\.client)\b", re.MULTILINE)
    users = {p.name for p in sources("jobs", "osint") if clients.search(p.read_text())}
    assert users == {"fetching.py", "demo.py"}, "demo.py asks its own web server whether it is up"


def test_the_drawing_of_the_lifecycle_shows_every_transition():
    drawn = set(re.findall(r"^\| ([A-Z]+) \| ([A-Z]+) \|", (ROOT / "docs/lifecycle.md").read_text(), re.MULTILINE))
    assert drawn == {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets}


@pytest.mark.parametrize("folder", ["templates", "static/js", "static/css"])
def test_nothing_is_fetched_from_elsewhere(folder):
    for path in (ROOT / folder).rglob("*.*"):
        for address in re.findall(r"https?://[\w.-]+", path.read_text()):
            assert address in ("http://www.w3", "https://example.org"), f"{path.name}: {address}"


def test_vendored_files_have_their_licence():
    for folder in (ROOT / "static/vendor").iterdir():
        assert (folder / "LICENSE").exists(), folder.name


def test_statuses_are_those_of_the_specification():
    assert {s.value for s in Status} == {"PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"}
