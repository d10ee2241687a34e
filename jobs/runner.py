"""The worker's side of a job: claim, start, watch, settle.

The worker never runs a handler; it watches the child that does, and is the one writer of all that
is recorded about a running job.
"""

import logging
import mmap
import os
import select
import signal
import struct
import time
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import psutil
from django.db import DatabaseError, InterfaceError, connection, connections
from django.db.models import Count
from django.utils import timezone

from jobs import conf, items, live, queue, words
from jobs.child import RESULT_FILE, Task
from jobs.errors import ADVICE, AllItemsFailed, Failure, JobError, Kind, RunTimeExceeded
from jobs.items import as_row
from jobs.manager import JobManager, Wish
from jobs.models import Artifact, Job, JobAttempt, JobItem
from jobs.notifications import JobNotificationService
from jobs.presentation import live_fields, unit_of
from jobs.processes import describe_process, scratch_of
from jobs.recovery import ErrorRecoveryService
from jobs.resources import ResourceManager, TreeSampler
from jobs.timing import PHASES
from jobs.tracker import Progress, SharedPage, as_log_row, clean_text, progress_fields
from jobs.zygote import Exit, Zygote, ZygoteGone

log = logging.getLogger(__name__)

FRAME = struct.Struct("=I")
SAMPLES_MAX = 240
SAMPLES_A_WRITE = 5  # the chart of an attempt is written each so many; the figures of the job each time
DATABASE_AWAY = (DatabaseError, InterfaceError)
LINES_HELD_MAX = 20_000  # while the database is away; the rest is counted
PIPE_BYTES = 1 << 20
SETTLE_S = 60.0  # an end that could not be written for so long is left to the rescuer
LIVE_LINES_MAX = 100  # more lines at once are read from the table by whoever watches


class Drain:
    """What a cluster says to its sentinel and workers, and the sentinel's sign of life.

    Bytes of shared memory, not a multiprocessing.Event: a process killed while it reads an Event
    keeps its lock.
    """

    _STOP, _RETIRE, _HOT, _BEAT = range(4)

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 4)

    def begin(self) -> None:
        """Stop: no new job, running ones get until the deadline."""
        self.memory[self._STOP] = 1

    def has_begun(self) -> bool:
        return self.memory[self._STOP] != 0

    def retire(self) -> None:
        """No new job; running ones may end in their own time."""
        self.memory[self._RETIRE] = 1

    def takes_no_more(self) -> bool:
        return self.memory[self._STOP] != 0 or self.memory[self._RETIRE] != 0

    def say_hot(self, hot: bool) -> None:
        """Whether the machine's CPU is too busy for new jobs."""
        self.memory[self._HOT] = hot

    def is_hot(self) -> bool:
        return self.memory[self._HOT] != 0

    def beat(self) -> None:
        self.memory[self._BEAT] = (self.memory[self._BEAT] + 1) % 256

    def beats(self) -> int:
        return self.memory[self._BEAT]


@dataclass
class Worker:
    name: str
    host: str
    queue: str
    drain: Drain
    page: SharedPage
    zygote: Zygote


_worker: Worker | None = None


def become_worker(worker: Worker) -> None:
    global _worker
    _worker = worker


def current_worker() -> Worker | None:
    """The worker that this process is, if it is one."""
    return _worker


def run_due_jobs() -> None:
    """What a token asks for: run jobs until nothing is due or a drain begins."""
    if _worker is None:
        raise RuntimeError("Tokens are for workers that jobcluster started.")
    while not _worker.drain.takes_no_more() and run_next(_worker):
        pass


def run_next(worker: Worker) -> bool:
    """One job from claim to end. False when nothing is due."""
    job = queue.claim(worker.queue, worker_id=worker.name, host=worker.host, hot=worker.drain.is_hot())
    if job is None:
        return False
    run = Run(worker, job)
    try:
        run.start()
        run.watch()
    except ZygoteGone:
        connections.close_all()  # the new zygote's children must not inherit ours
        worker.zygote.restart()
        run.ended = "its process was killed"
    except Exception as error:  # a fault of ours: the job must not go on unwatched
        log.exception("The watch over job %s failed", job.pk)
        run.give_up(error)
    run.settle()
    return True


@dataclass
class Run:
    """One attempt, as its worker sees it."""

    worker: Worker
    job: Job
    manager: JobManager = field(default_factory=JobManager)
    outcome: dict[str, Any] | None = None  # what the child said of its end
    exit: Exit | None = None
    ended: str = ""  # why it was ended, when the exit does not say
    killed_for: JobError | None = None  # a limit that we enforced
    cancelled: bool = False
    drained: bool = False
    disowned: bool = False  # the row says that this attempt is over
    unrenewed: bool = False  # the lease could not be renewed, so the child was ended

    def __post_init__(self) -> None:
        now = time.monotonic()
        self.started = now
        self.pid = 0
        self.pidfd = self.pipe = -1
        self.buffer = bytearray()
        self.lines: list[dict[str, Any]] = []
        self.process: dict[str, Any] = {}
        self.items: list[dict[str, str]] = []
        self.dropped = 0
        self.version = 0
        self.progress: Progress | None = None
        self.next_flush = now + conf.get("watch_interval_s")
        self.next_beat = now + conf.get("beat_interval_s")
        self.renewed = now
        self.next_look = now
        self.next_sample = now
        self.next_write = now
        self.sampled_mb = 0.0  # at the last full measurement: memory of the tree, and resident size of the child
        self.sampled_rss = 0.0
        self.sampler: TreeSampler | None = None
        self.samples: list[list[float]] = []
        self.stages: list[list[Any]] = []  # [name, seconds from the start], …
        self.hosts: list[list[Any]] = []
        self.peak_mb: float | None = None
        self.stop_at: float | None = None  # the next step of ending it: SIGTERM, then SIGKILL
        self.stop_signal = signal.SIGTERM
        self.drain_until: float | None = None
        self.steps: deque[tuple[float, int]] = deque(maxlen=200)

    # -- start ------------------------------------------------------------------------------------

    def start(self) -> None:
        job = self.job
        limit = job.memory_limit_mb or conf.get("memory_limit_mb")
        task = Task(job.pk, job.job_type, job.parameters, job.total_steps, job.attempt, limit, str(scratch_of(job.pk)))
        self.worker.page.reset()
        self.pipe, theirs = os.pipe()
        try:
            os.set_blocking(self.pipe, False)
            self.pid, self.pidfd = self.worker.zygote.spawn(task.dumps(), theirs)
        finally:
            os.close(theirs)

    # -- watch ------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Until the child is gone: read what it says, write what changed, enforce what it may."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        poller.register(self.pipe, select.POLLIN)
        pipe_open = True
        while True:
            ready = {fd for fd, _ in poller.poll(1000 * max(0.0, self.next_flush - time.monotonic()))}
            if self.pipe in ready and pipe_open and not self.read_pipe():
                poller.unregister(self.pipe)
                pipe_open = False
            if self.pidfd in ready:
                break
            if time.monotonic() >= self.next_flush:
                self.turn()
        if pipe_open:
            self.read_pipe()  # a grandchild may hold it open: take what is there, do not wait for its end
        self.exit = self.worker.zygote.reap()

    def read_pipe(self) -> bool:
        """Take all frames that have arrived. False at the end of the pipe."""
        while True:
            try:
                data = os.read(self.pipe, PIPE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.buffer += data
            self.take_frames()

    def take_frames(self) -> None:
        at = 0
        while len(self.buffer) - at >= FRAME.size:
            (size,) = FRAME.unpack_from(self.buffer, at)
            if len(self.buffer) - at - FRAME.size < size:
                break
            frame = orjson.loads(memoryview(self.buffer)[at + FRAME.size : at + FRAME.size + size])
            at += FRAME.size + size
            if "log" in frame and len(self.lines) < LINES_HELD_MAX:
                self.lines.append(as_log_row(frame["log"]))
            elif "log" in frame:
                self.dropped += 1
            elif "dropped" in frame:
                self.dropped += frame["dropped"]
            elif "item" in frame:
                self.items.append(frame["item"])
            elif "stage" in frame:
                self.stages.append([frame["stage"], round(time.monotonic() - self.started, 3)])
            elif "hosts" in frame:
                self.hosts = frame["hosts"]
            else:
                self.outcome = frame["outcome"]
        del self.buffer[:at]

    def turn(self) -> None:
        """One round of supervision, about five times a second."""
        now = time.monotonic()
        self.next_flush = now + self.pace()
        try:
            self.flush()
            self.renew(now)
        except DATABASE_AWAY:
            # What was said is kept and written later; the child goes on for as long as the lease holds.
            log.warning("The database did not answer; job %s goes on", self.job.pk, exc_info=True)
            connection.close()
        if now >= self.next_sample or self.near_limit():
            self.sample(now)
        self.enforce(now)

    def pace(self) -> float:
        """Seconds until the next round: shorter while the job is near its memory limit."""
        return conf.get("sample_close_s") if self.near_limit() else conf.get("watch_interval_s")

    def near_limit(self) -> bool:
        """Above 70 % of the memory limit, by the last measurement and what the child took since.

        The resident size costs 20 µs to read where the whole tree costs milliseconds.
        """
        if self.sampler is None:
            return False
        rss = self.sampler.resident_mb()
        return self.sampled_mb + max(0.0, rss - self.sampled_rss) > 0.7 * (self.job.memory_limit_mb or conf.get("memory_limit_mb"))

    def flush(self) -> None:
        """Write and publish what the child said since the last time."""
        version, progress = self.worker.page.read()
        if version != self.version:
            progress.step = clean_text(progress.step, 300)
            if progress != self.progress:  # the same step named again is no progress
                self.write_progress(progress)
            self.version, self.progress = version, progress
        if self.items:
            self.manager.record_items(self.job.pk, [as_row(frame) for frame in self.items], attempt=self.job.attempt)
            self.items = []
        if self.lines or self.dropped:
            self.write_lines()

    def write_progress(self, progress: Progress) -> None:
        fields = progress_fields(progress)
        estimate = self.estimate(progress)
        if estimate is not None:
            fields["estimated_duration"] = estimate
        revision = self.manager.update_progress(self.job.pk, progress.percent, progress.step, attempt=self.job.attempt, **fields)
        if revision is None:
            self.disowned = True
            return
        job = self.job  # kept as the row is, so that it is shown as a reader of the row shows it
        job.revision, job.current_step, job.progress_at = revision, progress.step, timezone.now()
        job.progress_percent = max(job.progress_percent, min(progress.percent or 0.0, 99.9))
        for name, value in fields.items():
            setattr(job, name, value)
        JobNotificationService().notify_progress_update_sync(job.pk, {**live_fields(job), "sent": time.time()})

    def estimate(self, progress: Progress) -> float | None:
        """Seconds in all, from the pace of the last steps; None while that says nothing yet."""
        if progress.estimated_s is not None:
            return progress.estimated_s
        now = time.monotonic()
        self.steps.append((now, progress.completed))
        first_at, first = self.steps[0]
        if not progress.total or now - first_at < 1.5 or progress.completed - first < 3:
            return None
        pace = (now - first_at) / (progress.completed - first)
        return now - self.started + pace * (progress.total - progress.completed)

    def write_lines(self) -> None:
        lines, dropped = self.lines, self.dropped
        first = self.manager.append_logs(self.job.pk, lines, attempt=self.job.attempt, dropped=dropped)
        self.lines, self.dropped = [], 0
        if not first:
            self.disowned = True
            return
        if not lines:
            return
        message = {
            "type": "job.log", "id": str(self.job.pk), "first": first, "lines": [log_line(n) for n in lines[:LIVE_LINES_MAX]],
            "missing": max(0, len(lines) - LIVE_LINES_MAX),
        }  # fmt: skip
        live.publish(f"job.{self.job.pk}", message)

    def renew(self, now: float) -> None:
        """Beat, or in between only look whether somebody asked for something."""
        if now >= self.next_beat:
            wish = self.manager.heartbeat(self.job.pk, attempt=self.job.attempt)
            self.next_beat = now + conf.get("beat_interval_s")
        elif now >= self.next_look:
            wish = self.manager.wish(self.job.pk, attempt=self.job.attempt)
        else:
            return
        self.next_look = now + conf.get("watch_interval_s")
        self.renewed = now
        if wish is None:
            self.disowned = True
        elif wish is Wish.CANCEL and not self.cancelled:
            self.cancelled = True
            self.worker.page.ask_to_cancel()
            self.stop_within(conf.get("cancel_grace_s"))
        elif not self.cancelled:
            self.worker.page.ask_to_pause(wish is Wish.PAUSE)

    def record_process(self) -> None:
        """Remember the child's session, so that a rescuer can end what is left of it."""
        try:
            self.process = describe_process(self.pid)
            JobAttempt.objects.filter(job=self.job, number=self.job.attempt).update(process=self.process)
        except (*DATABASE_AWAY, psutil.Error):
            log.warning("The process of job %s was not recorded", self.job.pk, exc_info=True)

    def sample(self, now: float) -> None:
        self.next_sample = now + conf.get("sample_interval_s")
        if self.sampler is None:
            self.sampler = TreeSampler(self.pid, self.started, self.worker.zygote.pid)
            self.record_process()
        usage = self.sampler.sample()
        if usage is None:
            return
        self.sampled_mb, self.sampled_rss = usage.memory_mb, self.sampler.resident_mb()
        self.peak_mb = max(self.peak_mb or 0.0, usage.memory_mb)
        error = ResourceManager().limit_broken(self.job, usage)
        if error is not None:
            self.end_for(error)
        if now < self.next_write and self.killed_for is None:
            return  # measured more often near a limit, but written once a second
        self.next_write = now + conf.get("sample_interval_s")
        self.samples.append([round(now - self.started, 1), round(usage.memory_mb, 1), round(usage.cpu_percent, 1)])
        if len(self.samples) > SAMPLES_MAX:
            self.samples = self.samples[::2]
        self.write_sample(usage.memory_mb, usage.cpu_percent, usage.cpu_seconds)

    def write_sample(self, memory_mb: float, cpu_percent: float, cpu_seconds: float) -> None:
        try:
            self.manager.record_samples(
                self.job.pk, attempt=self.job.attempt, memory_usage_mb=memory_mb, memory_peak_mb=self.peak_mb,
                cpu_usage_percent=cpu_percent,
            )  # fmt: skip
            if len(self.samples) % SAMPLES_A_WRITE == 0:
                JobAttempt.objects.filter(job=self.job, number=self.job.attempt).update(
                    samples=self.samples, memory_peak_mb=self.peak_mb, cpu_seconds=cpu_seconds, times=self.times()
                )
        except DATABASE_AWAY:
            return  # measurements are not worth a second try: the next one comes in a second
        self.job.memory_usage_mb, self.job.cpu_usage_percent = memory_mb, cpu_percent
        shown = {"memory": words.megabytes(memory_mb), "cpu": f"{cpu_percent:.0f} %"}
        live.publish(f"job.{self.job.pk}", {"type": "job.sample", "id": str(self.job.pk), **shown})

    def enforce(self, now: float) -> None:
        """End the child when its time is over, when it is no longer ours, or when the machine stops."""
        if self.job.time_limit_s and now - self.started > self.job.time_limit_s:
            self.end_for(RunTimeExceeded(self.job.time_limit_s))
        self.unrenewed |= now - self.renewed > conf.get("lease_giveup_s")
        if self.disowned or self.unrenewed:
            self.kill(signal.SIGKILL)
        if self.worker.drain.has_begun() and self.drain_until is None:
            self.drain_until = now + conf.get("drain_s")
        if self.drain_until is not None and now >= self.drain_until and not self.drained:
            self.drained = True
            self.kill(signal.SIGKILL)
        if self.stop_at is not None and now >= self.stop_at:
            self.kill(self.stop_signal)
            self.stop_signal = signal.SIGKILL
            self.stop_at = now + conf.get("terminate_grace_s")

    def end_for(self, error: JobError) -> None:
        if self.killed_for is None:
            self.killed_for = error
            self.kill(signal.SIGKILL)

    def stop_within(self, seconds: float) -> None:
        self.stop_at = time.monotonic() + seconds

    def kill(self, signum: int) -> None:
        """Signal the child's process group (it leads its own)."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def give_up(self, error: Exception) -> None:
        """End a child that can no longer be watched, with a new zygote for the next one."""
        connections.close_all()
        self.worker.zygote.kill()
        self.worker.zygote.restart()
        text = traceback.format_exc(limit=-30)
        self.lines, self.items, self.dropped = [], [], 0
        self.outcome = {"failed": asdict(Failure.of(error, Kind.UNKNOWN, text))}

    # -- settle -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Write the end, fenced by the attempt. Tries again while the database is away."""
        for fd in (self.pipe, self.pidfd):
            if fd >= 0:
                os.close(fd)
        give_up = time.monotonic() + SETTLE_S
        while True:
            try:
                return self.write_end()
            except DATABASE_AWAY:
                log.warning("The end of job %s could not be written yet", self.job.pk, exc_info=True)
                connection.close()
                if time.monotonic() > give_up:
                    return  # the rescuer will find it
                time.sleep(0.5)

    def write_end(self) -> None:
        self.flush()
        job, measured = self.job, self.measured()
        if self.cancelled:
            ended = self.completed(measured)  # loses against an accepted cancel
        elif self.outcome and "paused" in self.outcome and not self.killed_for:
            ended = self.manager.mark_paused(job.pk, attempt=job.attempt, **measured)
        elif self.completed(measured):
            ended = True
        elif self.drained:
            ended = self.manager.put_back(job.pk, "Put back: the worker is stopping", attempt=job.attempt, **measured)
        elif self.unrenewed:
            ended = self.manager.put_back(job.pk, "Put back: the database did not answer for too long", attempt=job.attempt, **measured)
        else:
            ended = ErrorRecoveryService().handle_job_failure(job, self.failure(), **measured)
        if not ended:
            self.manager.mark_cancelled(job.pk, attempt=job.attempt, **measured)

    def completed(self, measured: dict[str, Any]) -> bool:
        """Write a good end, if the child told of one."""
        if self.outcome is None or "done" not in self.outcome or self.killed_for:
            return False
        job, result = self.job, self.outcome["done"]
        try:
            if result and "result_file" in result and not self.cancelled:
                artifact = Artifact.keep(job, scratch_of(job.pk) / RESULT_FILE, RESULT_FILE, "application/json")
                result = {**result, "artifact": str(artifact.pk)}
            check_items(job)
        except (JobError, OSError) as error:
            self.outcome = {"failed": asdict(ErrorRecoveryService().failure_of(job, error))}
            return False
        return self.manager.mark_completed(job.pk, result, attempt=job.attempt, summary=self.outcome["summary"], **measured)

    def measured(self) -> dict[str, Any]:
        """What the attempt used: from the kernel and from samples, nothing where nothing was measured."""
        found: dict[str, Any] = {"times": self.times()}
        if self.samples:
            found["samples"] = self.samples
        if self.exit is not None:
            found["cpu_seconds"] = self.exit.cpu_seconds
        if self.peak_mb is not None:
            found["memory_peak_mb"] = self.peak_mb
        return found

    def times(self) -> dict[str, Any]:
        """What the child has said of its time so far."""
        spent = zip(PHASES, self.worker.page.read_times(), strict=True)
        found: dict[str, Any] = {"until": round(time.monotonic() - self.started, 3)}
        found |= {phase: round(seconds, 3) for phase, seconds in spent if seconds > 0}
        return found | ({"stages": self.stages} if self.stages else {}) | ({"hosts": self.hosts} if self.hosts else {})

    def failure(self) -> Failure:
        if self.killed_for is not None:
            return Failure.of(self.killed_for, self.killed_for.kind)
        if self.outcome and "failed" in self.outcome:
            return Failure(**self.outcome["failed"])
        how = self.ended or str(self.exit)
        _, progress = self.worker.page.read()
        step = f" at “{progress.step}”" if progress.step else ""
        return Failure(Kind.LOST, f"The job's process ended without a word{step} ({how})", ADVICE[Kind.LOST])


def check_items(job: Job) -> None:
    """Raises AllItemsFailed when items failed and not one is done: that is no success."""
    found = items.counts(job.pk)
    if not found["failed"] or found["ok"] or found["skipped"]:
        return
    failed = JobItem.objects.filter(job=job, outcome=JobItem.Outcome.FAILED)
    reason, times = failed.order_by().values_list("reason").annotate(n=Count("pk")).order_by("-n", "reason")[0]
    kinds = set(failed.order_by().values_list("kind", flat=True).distinct())
    unit = words.count(found["failed"], unit_of(job))
    error = AllItemsFailed(f"All {unit} failed; most often: {reason} ({times:,} of them)" if found["failed"] > 1 else reason)
    error.kind = next((kind for kind in (Kind.TRANSIENT, Kind.UNKNOWN) if kind in kinds), Kind.PERMANENT)
    raise error


def log_line(row: dict[str, Any]) -> list[Any]:
    """A line as browsers get it: [level, message, seconds since the epoch, step]."""
    return [row["level"], row["message"], row["timestamp"].timestamp(), row["step_name"]]
