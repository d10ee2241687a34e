"""What the benchmarks and the measure of quality share: processes on a state folder of their own, and how figures are said."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]


def say(name: str, **figures: Any) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"bench": name, **rounded}), flush=True)


def percentiles(values: list[float], *wanted: int) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{p}_ms": 1000 * ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in wanted}


def wait(condition: Callable[[], Any], deadline_s: float = 120) -> Any:
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.01)
    raise TimeoutError(condition)


@contextmanager
def running(*arguments: str, workers: int = 2) -> Iterator[subprocess.Popen]:
    # a flood of no-ops is a full CPU by intent, which must not be held
    jobs = {"max_concurrent_jobs": workers, "drain_s": 2, "cpu_threshold": 1000}
    environment = {**os.environ, "JOBS": json.dumps(jobs), "LOG_LEVEL": "CRITICAL"}
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def served() -> Iterator[str]:
    """The web process alone, once it answers: its address."""
    base = f"http://127.0.0.1:{free_port()}"

    def answers() -> bool:
        try:
            return httpx.get(f"{base}/health/").status_code == 200
        except httpx.HTTPError:
            return False

    with running("up", "--no-workers", "--port", base.rpartition(":")[2]):
        wait(answers)
        yield base


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def peak_mb(pid: int) -> float:
    """Its largest resident size so far. Not rusage's: that of a child begins with the size of its parent."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def serve_articles(folder: Path) -> ThreadingHTTPServer:
    """The gold pages by their id, unpacked beforehand."""
    pages = {path.name.removesuffix(".html.gz"): gzip.decompress(path.read_bytes()) for path in folder.glob("*.html.gz")}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = pages.get(self.path.strip("/"), b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
