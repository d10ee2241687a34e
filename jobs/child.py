"""The child's side of a job: one handler, one outcome, then the process ends.

A child has no database connection until its handler opens one, and nobody else's ever.
"""

import ctypes
import gc
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import traceback
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from django.db import connections

from jobs import conf, registry
from jobs.errors import Failure, JobCancelled, JobPaused
from jobs.manager import plain, shorten
from jobs.retry import RetryPolicy, kind_of
from jobs.tracker import ChildOutlet, ProgressTracker, SharedPage, clean_text

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
RESULT_FILE = "result.json"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Task:
    """All that a child needs to know. It travels as a pickle between a worker and its own fork."""

    job_id: uuid.UUID
    job_type: str
    parameters: dict[str, Any]
    total_steps: int | None
    attempt: int
    memory_limit_mb: int
    scratch: str  # a folder for what is not yet finished, made when it is first used

    def dumps(self) -> bytes:
        return pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)


def limit_memory(limit_mb: int) -> None:
    """The kernel's backstop, should the worker be late: what is mapped now, twice the limit, and room for threads.

    RLIMIT_DATA alone: an RLIMIT_AS of 512 MB was met by 13 threads with 16 MB in use.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    most = pages * resource.getpagesize() + (2 * limit_mb + 256) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def keep_small(result: dict[str, Any] | None, summary: str, scratch: Path) -> dict[str, Any] | None:
    """A result too large for the row goes to a file, which the worker makes an artifact; the row refers to it."""
    data = orjson.dumps(result)
    if len(data) <= conf.get("result_bytes_max"):
        return result
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = scratch / RESULT_FILE
    path.write_bytes(data)
    return {"summary": summary, "result_file": RESULT_FILE, "bytes": len(data)}


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies; end at once if it is dead already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Have the kernel give this process the orphans among its descendants, instead of init."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def run_child(payload: bytes, pipe: int, page: SharedPage, parent: int) -> None:
    """Never returns. The outcome goes through the pipe; the exit status is 0 when one was sent."""
    os.setsid()
    die_with(parent)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    gc.enable()
    multiprocessing.current_process().daemon = False  # django-q2's workers are daemonic, but a handler may have processes of its own
    task: Task = pickle.loads(payload)
    limit_memory(task.memory_limit_mb)
    kind = registry.find(task.job_type)
    outlet = ChildOutlet(page, pipe, resumable=bool(kind and kind.resumable))
    tracker = ProgressTracker(task.job_id, task.total_steps, attempt=task.attempt, outlet=outlet)
    outcome = outcome_of(task, tracker)
    tracker.tell_hosts()
    outlet.send({"outcome": outcome})
    for connection in connections.all(initialized_only=True):
        connection.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def outcome_of(task: Task, tracker: ProgressTracker) -> dict[str, Any]:
    """Run the handler. {"done": result, "summary": text}, {"failed": Failure} or {"cancelled": true}."""
    policy = RetryPolicy(0, (0,))
    try:
        kind = registry.get(task.job_type)
        policy = kind.retry_policy
        result = plain(kind.handler(tracker, task.parameters))
        summary = clean_text(kind.summary(result), 280)
        return {"done": keep_small(result, summary, Path(task.scratch)), "summary": summary}
    except JobPaused:
        return {"paused": True}
    except JobCancelled:
        return {"cancelled": True}
    except BaseException as error:
        text = shorten(traceback.format_exc(limit=-60), conf.get("traceback_chars_max"))
        failure = Failure.of(error, kind_of(error, policy), clean_text(text, 2 * conf.get("traceback_chars_max")))
        return {"failed": asdict(failure) | {"message": clean_text(failure.message, 5000)}}
