"""ProgressTracker: all that a handler sees of the system.

One face, two outlets. Inside a job's child process progress goes through a page of shared memory
and log lines through a pipe, both read by the worker, so a step costs about a microsecond and what
was said last survives a SIGKILL. Elsewhere (a shell, a test, a thread) they are calls to JobManager,
coalesced. A tracker may be called from any thread or event loop.
"""

import mmap
import os
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import orjson
from django.db import transaction

from jobs import conf, items
from jobs.errors import JobCancelled, JobPaused, Kind
from jobs.manager import JobManager, without_nul
from jobs.states import Level
from jobs.timing import PHASES, STAGES_MAX, Clock, shared_out

STEP_BYTES_MAX = 900
HOSTS_TOLD_EACH_S = 5.0
STEPS_MAX = 2**31 - 1  # what the column holds


@dataclass
class Progress:
    """What a tracker has said so far. `total` is None while it is unknown."""

    step: str = ""
    completed: int = 0
    total: int | None = None
    problems: int = 0
    estimated_s: float | None = None

    @property
    def percent(self) -> float | None:
        return None if not self.total else min(100.0, 100.0 * self.completed / self.total)


class Outlet(Protocol):
    def progress(self, progress: Progress) -> None: ...
    def log(self, line: dict[str, Any]) -> None: ...
    def item(self, frame: dict[str, str]) -> None: ...
    def stage(self, name: str) -> None: ...
    def spent(self, clock: Clock) -> None: ...
    def hosts(self, slowest: list[list[Any]]) -> None: ...
    def check(self) -> None: ...
    def flush(self) -> None: ...


class ProgressTracker:
    """Reports the progress of one job, and keeps what it has done for its next attempt.

    `total_steps` may be None: then no percentage is invented. Every call raises JobCancelled once a
    cancel was asked for (inside a child), in whichever thread it is made; `update_step`, `done` and
    `checkpoint` raise JobPaused once a pause was asked for, after the transaction around them committed.
    """

    def __init__(
        self, job_id: uuid.UUID | str, total_steps: int | None = None, *, attempt: int | None = None, outlet: Outlet | None = None
    ):
        self.job_id = uuid.UUID(str(job_id))
        self.attempt = attempt
        self.state = Progress(total=check_total(total_steps))
        self._outlet = outlet or DirectOutlet(self.job_id)
        self._lock = threading.Lock()
        self._stage = ""
        self._stages = 0
        self._tell_hosts_at = 0.0
        self.clock = Clock(self._outlet.spent)

    def update_step(self, step_name: str, increment: int = 1) -> None:
        """Name the step and count `increment` steps as done (0: it only begins; less is a ValueError)."""
        if increment < 0:
            raise ValueError(f"Steps are not undone: increment cannot be {increment}.")
        state = self.state
        with self._lock:
            state.step = step_name
            state.completed += increment
            if state.total is not None and state.completed > state.total:
                state.completed = state.total
            self._outlet.progress(state)

    def set_total(self, total_steps: int | None) -> None:
        """Say how many steps there are, once it is known or when it has changed."""
        with self._lock:
            self.state.total = check_total(total_steps)
            if self.state.total is not None:
                self.state.completed = min(self.state.completed, self.state.total)
            self._outlet.progress(self.state)

    def set_estimated_duration(self, seconds: float) -> None:
        """Override the estimate of the whole duration, in seconds from the start."""
        if not seconds >= 0:
            raise ValueError(f"A duration is a number of seconds from 0, not {seconds!r}.")
        with self._lock:
            self.state.estimated_s = float(seconds)
            self._outlet.progress(self.state)

    def stage(self, name: str) -> None:
        """Name a part of the work, which lasts until the next one is named; the page shows how long each took. Up to 50."""
        if name != self._stage and self._stages < STAGES_MAX:
            self._stage, self._stages = name, self._stages + 1
            self._outlet.stage(clean_text(name, 100))

    @contextmanager
    def spending(self, phase: str, host: str = "") -> Iterator[None]:
        """A context whose time is "polite" (waiting for a turn), "network", "writing" or "processing"; the rest is processing.

        What happens at once shares the time. `host` is counted with its requests and their seconds.
        """
        with self.clock.spending(phase, host):
            yield
        now = time.monotonic()
        if host and now >= self._tell_hosts_at:  # now and then: a job that is killed has told of them too
            self._tell_hosts_at = now + HOSTS_TOLD_EACH_S
            self.tell_hosts()

    def tell_hosts(self) -> None:
        slowest = self.clock.slowest_hosts()
        if slowest:
            self._outlet.hosts(slowest)

    def log_debug(self, message: str, **data: Any) -> None:
        self._log(Level.DEBUG, message, data)

    def log_info(self, message: str, **data: Any) -> None:
        self._log(Level.INFO, message, data)

    def log_warning(self, message: str, **data: Any) -> None:
        self._log(Level.WARNING, message, data)

    def log_error(self, message: str, **data: Any) -> None:
        self._log(Level.ERROR, message, data)

    # -- items and checkpoints ------------------------------------------------------------------------

    def settled(self) -> dict[str, str]:
        """Items that need no second look: what earlier attempts did, skipped, or met a lasting error at.

        Maps each item to ok, failed or skipped, and counts them as completed steps. Uses the handler's
        database connection.
        """
        found = items.settled(self.job_id)
        with self._lock:
            self.state.completed = min(len(found), self.state.total if self.state.total is not None else STEPS_MAX)
            self.state.problems = sum(outcome == items.Outcome.FAILED for outcome in found.values())
            self._outlet.progress(self.state)
        return found

    def done(self, item: str) -> None:
        """The item is done and stays done. Call it in the transaction that writes the item's output.

        Raises ValueError for a key that cannot be stored, JobCancelled when the attempt is over.
        """
        items.done(self.job_id, self._attempt(), items.check_key(item))
        self._pause_after_commit()

    def checkpoint(self, key: str, value: Any) -> None:
        """Keep a JSON value for the next attempt, in the transaction of the work that it stands for."""
        items.keep_checkpoint(self.job_id, self._attempt(), key, value)
        self._pause_after_commit()

    def restored(self, key: str, default: Any = None) -> Any:
        """The value that an earlier attempt kept under `key`."""
        return items.checkpoint_of(self.job_id, key, default)

    def item_failed(self, item: str, reason: str, *, kind: str = Kind.UNKNOWN, **data: Any) -> None:
        """The item could not be done and the job goes on: stored with its reason, logged, counted as a problem.

        A lasting kind (permanent, limit) is not taken up again by an automatic retry.
        """
        self._outlet.item({"key": items.check_key(item), "outcome": "failed", "kind": kind, "reason": clean_text(reason, 480)})
        with self._lock:
            self.state.problems += 1
            self._outlet.progress(self.state)
        self._log(Level.ERROR, f"{item}: {reason}", data)

    def item_skipped(self, item: str, reason: str) -> None:
        """The item needs no work, and why."""
        self._outlet.item({"key": items.check_key(item), "outcome": "skipped", "kind": "", "reason": clean_text(reason, 480)})

    def _attempt(self) -> int:
        if self.attempt is None:
            self.attempt = JobManager().current_attempt(self.job_id)
        return self.attempt

    def _pause_after_commit(self) -> None:
        # raised out of the `with atomic()` of the handler, once what it wrote is there
        transaction.on_commit(self._outlet.check)

    def _log(self, level: Level, message: str, data: dict[str, Any]) -> None:
        self._outlet.log(
            {
                "level": int(level),
                "message": clean_text(str(message), conf.get("log_line_chars_max")),
                "timestamp": time.time(),
                "step_name": clean_text(self.state.step, 280),
                "data": data,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._outlet.flush()


def check_total(total: int | None) -> int | None:
    if total is not None and not 0 <= total <= STEPS_MAX:
        raise ValueError(f"The number of steps cannot be {total}.")
    return total


def clean_text(text: str, limit: int) -> str:
    """Text that can be stored and shown: no control characters but newline and tab, no lone surrogates."""
    if len(text) > limit:
        text = f"{text[:limit]} … ({len(text) - limit:,} characters left out)"
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    return text


class SharedPage:
    """The page between a child and its worker: progress one way, the wish to cancel the other.

    A sequence counter guards it: odd while it is written; a reader that saw it change reads again.
    """

    SIZE = 4096
    _WISH = 0  # one byte, written by the worker: 0 go on, 1 cancel, 2 pause
    _SEQ = struct.Struct("=Q")
    _BODY = struct.Struct("=qqqdH")  # completed, total (-1 unknown), problems, estimate (-1 none), step bytes
    _SEQ_AT = 8
    _BODY_AT = 16
    _STEP_AT = 16 + struct.calcsize("=qqqdH")

    _TIMES = struct.Struct(f"={len(PHASES)}d{len(PHASES)}qd")  # seconds of each phase, how often each is open, since when
    _TIMES_AT = 1024

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, self.SIZE)  # anonymous and shared: seen by every later fork
        self._seq = 0  # of the one writer
        self._step, self._step_bytes = "", b""

    def reset(self) -> None:
        """By the worker, before it asks for a child; the child begins with a counter of 0 as well."""
        self.memory[: self.SIZE] = bytes(self.SIZE)

    def write(self, progress: Progress) -> None:
        memory, seq = self.memory, self._seq
        self._SEQ.pack_into(memory, self._SEQ_AT, seq + 1)
        if progress.step is not self._step:
            self._step, self._step_bytes = progress.step, progress.step.encode("utf-8", "replace")[:STEP_BYTES_MAX]
            memory[self._STEP_AT : self._STEP_AT + len(self._step_bytes)] = self._step_bytes
        total, estimate = progress.total, progress.estimated_s
        self._BODY.pack_into(
            memory,
            self._BODY_AT,
            progress.completed,
            -1 if total is None else total,
            progress.problems,
            -1.0 if estimate is None else estimate,
            len(self._step_bytes),
        )
        self._seq = seq + 2
        self._SEQ.pack_into(memory, self._SEQ_AT, seq + 2)

    def read(self) -> tuple[int, Progress]:
        """(version, progress). The version is 0 until something was written."""
        for _ in range(1000):
            (before,) = self._SEQ.unpack_from(self.memory, self._SEQ_AT)
            completed, total, problems, estimate, size = self._BODY.unpack_from(self.memory, self._BODY_AT)
            step = bytes(self.memory[self._STEP_AT : self._STEP_AT + size])
            (after,) = self._SEQ.unpack_from(self.memory, self._SEQ_AT)
            if before == after and not before & 1:
                break
        # A child killed in the middle of a write leaves the counter odd: what is there is the best there is.
        return before, Progress(
            step=step.decode("utf-8", "replace"),
            completed=completed,
            total=None if total < 0 else total,
            problems=problems,
            estimated_s=None if estimate < 0 else estimate,
        )

    def write_times(self, clock: Clock) -> None:
        self._TIMES.pack_into(self.memory, self._TIMES_AT, *clock.spent, *clock.open, clock.at)

    def read_times(self) -> list[float]:
        """Seconds of each of PHASES until now, those that are open included. One may be a change ahead of the others."""
        found = self._TIMES.unpack_from(self.memory, self._TIMES_AT)
        spent, open_now, at = found[: len(PHASES)], found[len(PHASES) : -1], found[-1]
        return shared_out(spent, open_now, max(0.0, time.monotonic() - at))  # CLOCK_MONOTONIC is one for all processes

    def ask_to_cancel(self) -> None:
        self.memory[self._WISH] = 1

    def ask_to_pause(self, wanted: bool) -> None:
        """A wish to cancel is never taken back by this."""
        if self.memory[self._WISH] != 1:
            self.memory[self._WISH] = 2 if wanted else 0

    def check(self, *, may_pause: bool = True) -> None:
        """By the child: raises what was asked for."""
        wish = self.memory[self._WISH]
        if wish == 1:
            raise JobCancelled
        if wish == 2 and may_pause:
            raise JobPaused


class ChildOutlet:
    """From inside the child: the shared page and the pipe."""

    HEADER = struct.Struct("=I")

    def __init__(self, page: SharedPage, pipe: int, *, resumable: bool = False) -> None:
        self.page = page
        self.pipe = pipe
        self.resumable = resumable
        self.lock = threading.Lock()
        self.lines = 0
        self.lines_max = conf.get("log_lines_max")

    def progress(self, progress: Progress) -> None:
        self.page.write(progress)
        self.check()

    def check(self) -> None:
        self.page.check(may_pause=self.resumable)

    def item(self, frame: dict[str, str]) -> None:
        self.send({"item": frame})

    def stage(self, name: str) -> None:
        self.send({"stage": name})

    def spent(self, clock: Clock) -> None:
        self.page.write_times(clock)

    def hosts(self, slowest: list[list[Any]]) -> None:
        self.send({"hosts": slowest})

    def log(self, line: dict[str, Any]) -> None:
        self.lines += 1
        # Over the limit a line is counted by the worker, not sent as text.
        self.send({"log": line} if self.lines <= self.lines_max else {"dropped": 1})
        self.page.check(may_pause=False)

    def send(self, frame: dict[str, Any]) -> None:
        try:
            body = orjson.dumps(frame, default=repr, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:  # integers over 64 bits, lone surrogates
            if "log" not in frame:
                raise
            frame["log"]["data"] = {"repr": repr(frame["log"]["data"]).encode("ascii", "replace").decode()}
            body = orjson.dumps(frame)
        data = memoryview(self.HEADER.pack(len(body)) + body)
        with self.lock:
            while data:
                data = data[os.write(self.pipe, data) :]

    def flush(self) -> None:
        """Nothing is kept back."""


class DirectOutlet:
    """Outside a child: JobManager calls, at most one per `watch_interval_s`, and one at the end."""

    def __init__(self, job_id: uuid.UUID) -> None:
        self.job_id = job_id
        self.manager = JobManager()
        self.lines: list[dict[str, Any]] = []
        self.items: list[dict[str, str]] = []
        self.latest: Progress | None = None
        self.written_at = float("-inf")

    def progress(self, progress: Progress) -> None:
        self.latest = progress
        self._write_if_due()

    def log(self, line: dict[str, Any]) -> None:
        self.lines.append(as_log_row(line))
        self._write_if_due()

    def item(self, frame: dict[str, str]) -> None:
        self.items.append(frame)
        self._write_if_due()

    def stage(self, name: str) -> None:
        """Kept with an attempt, which code outside a child has none of."""

    def spent(self, clock: Clock) -> None:
        """As above."""

    def hosts(self, slowest: list[list[Any]]) -> None:
        """As above."""

    def check(self) -> None:
        """Nobody asks code outside a child to stop."""

    def _write_if_due(self) -> None:
        if time.monotonic() - self.written_at >= conf.get("watch_interval_s"):
            self.flush()

    def flush(self) -> None:
        self.written_at = time.monotonic()
        latest, self.latest = self.latest, None
        lines, self.lines = self.lines, []
        frames, self.items = self.items, []
        if frames:
            items.record_many(self.job_id, self.manager.current_attempt(self.job_id), [items.as_row(frame) for frame in frames])
        if latest is not None:
            self.manager.update_progress(self.job_id, latest.percent, latest.step, **progress_fields(latest))
        if lines:
            self.manager.append_logs(self.job_id, lines)


def progress_fields(progress: Progress) -> dict[str, Any]:
    """The columns of a Job that a Progress fills."""
    fields: dict[str, Any] = {
        "completed_steps": progress.completed,
        "total_steps": progress.total,
        "problem_count": progress.problems,
    }
    if progress.estimated_s is not None:
        fields["estimated_duration"] = progress.estimated_s
    return fields


def as_log_row(line: dict[str, Any]) -> dict[str, Any]:
    """A line as it travels (seconds since the epoch) as JobManager takes it (aware datetime)."""
    return {**line, "timestamp": datetime.fromtimestamp(line["timestamp"], UTC), "data": without_nul(line["data"])}
