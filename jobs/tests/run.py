"""What `make test` and `make test-scaled` run: all tests, those of the browser in a process of their own.

Browser tests and asyncio tests both want the event loop of their process, so they do not share one.
`--scaled` runs the same tests on a PostgreSQL and a Redis of their own; other arguments go to pytest.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs.tests.servers import CannotHave, Servers, install

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """A chromium of the system; else Debian's package when root; else the download of Playwright."""
    for attempt in ("as it is", "installed"):
        if attempt == "installed":
            install("chromium")
        for name in BROWSERS:
            if shutil.which(name):
                return shutil.which(name)
    print("Downloading Playwright's chromium for the browser tests (once)", flush=True)
    if subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False).returncode == 0:
        return ""  # Playwright knows where it is
    return None


def run(arguments: list[str], environment: dict[str, str], browser: str | None) -> int:
    pytest = [sys.executable, "-m", "pytest", *arguments]
    ordinary = subprocess.run([*pytest, "-m", "not e2e"], env=environment, check=False).returncode
    if browser is None:
        print("No chromium could be found, installed or downloaded, so the browser tests did not run: FAILED")
        return 1
    end_to_end = subprocess.run([*pytest, "-m", "e2e"], env=environment, check=False).returncode
    return ordinary or end_to_end


def main(arguments: list[str]) -> int:
    scaled = "--scaled" in arguments
    arguments = [a for a in arguments if a != "--scaled"]
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="fieldwork-tests-") as folder:
        environment = {**os.environ, "STATE_DIR": f"{folder}/state", "CHROMIUM": browser or ""}
        for name in ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "DEBUG", "JOBS", "FETCH_ALLOW_PRIVATE"):
            environment.pop(name, None)
        if not scaled:
            return run(arguments, environment, browser)
        try:
            servers = Servers.start(Path(folder))
        except CannotHave as missing:
            print(f"The tests on PostgreSQL and Redis did not run: {missing}: FAILED")
            return 1
        try:
            return run(arguments, environment | servers.environment(), browser)
        finally:
            servers.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
