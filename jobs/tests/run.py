"""What `make test` runs: all tests, those of the browser in a process of their own.

Browser tests and asyncio tests both want the event loop of their process, so they do not share one.
"""

import os
import shutil
import subprocess
import sys
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """A chromium of the system; else Debian's package when root; else the download of Playwright."""
    for name in BROWSERS:
        if shutil.which(name):
            return shutil.which(name)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing chromium for the browser tests (once)")
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=False, **quiet)
        if shutil.which("chromium"):
            return shutil.which("chromium")
    print("Downloading Playwright's chromium for the browser tests (once)")
    if subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False).returncode == 0:
        return ""  # Playwright knows where it is
    return None


def main() -> int:
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="fieldwork-tests-") as state:
        environment = {**os.environ, "STATE_DIR": state, "CHROMIUM": browser or ""}
        for name in ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "DEBUG", "JOBS", "FETCH_ALLOW_PRIVATE"):
            if "--keep-environment" not in sys.argv:
                environment.pop(name, None)
        arguments = [a for a in sys.argv[1:] if a != "--keep-environment"]
        pytest = [sys.executable, "-m", "pytest", *arguments]
        ordinary = subprocess.run([*pytest, "-m", "not e2e"], env=environment, check=False).returncode
        if browser is None:
            print("No chromium could be found, installed or downloaded, so the browser tests did not run: FAILED")
            return 1
        end_to_end = subprocess.run([*pytest, "-m", "e2e"], env=environment, check=False).returncode
    return ordinary or end_to_end


if __name__ == "__main__":
    sys.exit(main())
