"""The child's side of a job: one handler, one outcome, then the process ends.

A child has no database connection until its handler opens one, and nobody else's ever.
"""

import ctypes
import gc
import os
import pickle
import signal
import sys
import traceback
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from django.db import connections

from jobs import conf, registry
from jobs.errors import Failure, JobCancelled
from jobs.manager import check_result, shorten
from jobs.retry import RetryPolicy, kind_of
from jobs.tracker import ChildOutlet, ProgressTracker, SharedPage, clean_text

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Task:
    """All that a child needs to know. It travels as a pickle between a worker and its own fork."""

    job_id: uuid.UUID
    job_type: str
    parameters: dict[str, Any]
    total_steps: int | None

    def dumps(self) -> bytes:
        return pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies; end at once if it is dead already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def run_child(payload: bytes, pipe: int, page: SharedPage, parent: int) -> None:
    """Never returns. The outcome goes through the pipe; the exit status is 0 when one was sent."""
    os.setsid()
    die_with(parent)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    gc.enable()
    task: Task = pickle.loads(payload)
    outlet = ChildOutlet(page, pipe)
    outlet.send({"outcome": outcome_of(task, outlet)})
    for connection in connections.all(initialized_only=True):
        connection.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def outcome_of(task: Task, outlet: ChildOutlet) -> dict[str, Any]:
    """Run the handler. {"done": result, "summary": text}, {"failed": Failure} or {"cancelled": true}."""
    policy = RetryPolicy(0, (0,))
    try:
        kind = registry.get(task.job_type)
        policy = kind.retry_policy
        tracker = ProgressTracker(task.job_id, task.total_steps, outlet=outlet)
        result = check_result(kind.handler(tracker, task.parameters))
        return {"done": result, "summary": clean_text(kind.summary(result), 280)}
    except JobCancelled:
        return {"cancelled": True}
    except BaseException as error:
        text = shorten(traceback.format_exc(limit=-60), conf.get("traceback_chars_max"))
        failure = Failure.of(error, kind_of(error, policy), clean_text(text, 2 * conf.get("traceback_chars_max")))
        return {"failed": asdict(failure) | {"message": clean_text(failure.message, 5000)}}
