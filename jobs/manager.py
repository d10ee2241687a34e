"""JobManager: the one writer of `Job.status`.

A transition is one conditional UPDATE, with its attempt and its log line in the same transaction;
what follows from it (live message, token, notification) happens after the commit. Zero rows changed
means that somebody else was faster: the caller is told, nothing is overwritten.
"""

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import orjson
from django.db import transaction
from django.db.models import F, Q
from django.dispatch import Signal
from django.utils import timezone

from jobs import broker, conf, live, registry, sql
from jobs.errors import InvalidResult, Kind, NotAllowed, QuotaExceeded
from jobs.models import Job, JobAttempt, JobLog
from jobs.states import Level, Priority, Status

log = logging.getLogger(__name__)

# Sent inside the transaction that ends a job, with an `Ended`, so that the row that tells a person of an
# end is there exactly when the end is. Receivers only write rows.
job_ended = Signal()

# What each published write raises, and what a new attempt begins with.
NEXT = {"log_seq": sql.plus("log_seq"), "revision": sql.plus("revision")}
FRESH: dict[str, Any] = {
    "progress_percent": 0.0, "completed_steps": 0, "current_step": "", "problem_count": 0, "memory_usage_mb": None,
    "memory_peak_mb": None, "cpu_usage_percent": None, "estimated_duration": None, "error_message": "",
    "error_traceback": "", "error_kind": "", "error_advice": "",
}  # fmt: skip

ENDING = ("log_seq", "revision", "attempt", "queue_name", "name", "created_by_id", "job_type")

LogLine = Mapping[str, Any]  # level, message, and optionally timestamp, step_name, data


@dataclass(frozen=True)
class Ended:
    """A job that reached an end, for those who tell people. `detail` is the result or the error in one line."""

    job_id: uuid.UUID
    status: Status
    attempt: int
    name: str
    created_by_id: int | None
    detail: str


class JobManager:
    """Creates jobs and moves them through their life. Stateless; make one wherever it is needed.

    Writes about a running job take `attempt`, the fence: with it, a worker that lost its lease matches
    nothing. Without it the write means whichever attempt runs now.
    """

    # -- creation ---------------------------------------------------------------------------------

    def create_job(
        self,
        job_type: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        created_by: Any = None,
        subject_id: uuid.UUID | None = None,
        name: str = "",
        priority: int = Priority.NORMAL,
        max_retries: int | None = None,
        memory_limit_mb: int | None = None,
        time_limit_s: int | None = None,
        estimated_duration: float | None = None,
        run_after: datetime | None = None,
    ) -> Job:
        """A new PENDING job; a worker is woken once the surrounding transaction commits.

        Raises UnknownJobType, InvalidParameters (a message per field) or QuotaExceeded; nothing is
        made then.
        """
        kind = registry.get(job_type)
        cleaned = kind.clean(dict(parameters or {}))
        self._check_quota(created_by)
        job = Job(
            job_type=job_type,
            name=(name or (kind.describe(cleaned) if kind.describe else kind.label))[:200],
            subject_id=subject_id,
            priority=Priority(priority),
            queue_name=kind.queue,
            created_by=created_by,
            parameters=cleaned,
            total_steps=kind.total_steps(cleaned) if kind.total_steps else None,
            max_retries=kind.max_retries if max_retries is None else max_retries,
            memory_limit_mb=memory_limit_mb or kind.memory_limit_mb or conf.get("memory_limit_mb"),
            time_limit_s=time_limit_s or kind.time_limit_s,
            estimated_duration=estimated_duration,
            revision=1,
            log_seq=1,
        )
        job.run_after = run_after or job.created_at
        with transaction.atomic():
            sql.insert([job])
            who = created_by.get_username() if created_by else "the system"
            self._write_log(job.pk, 1, 0, [{"level": Level.INFO, "message": f"Created by {who}"}])
            self._announce(job.pk, Status.PENDING, 1)
            self._wake(job.queue_name)
        return job

    def _check_quota(self, user: Any) -> None:
        if user is None:
            return
        limit = conf.get("open_jobs_per_user_max")
        if Job.objects.open().filter(created_by=user).order_by()[limit - 1 : limit].exists():
            raise QuotaExceeded(
                f"You have {limit:,} jobs waiting or running, which is as many as one person may have. Cancel some or wait until they end."
            )

    # -- start ------------------------------------------------------------------------------------

    def start(self, candidates: Sequence[uuid.UUID], *, worker_id: str, host: str) -> Job | None:
        """PENDING → RUNNING for the first candidate that nobody else takes; None if all are taken."""
        for job_id in candidates:
            with transaction.atomic():
                job = self._start(job_id, worker_id, host)
            if job is not None:
                return job
        return None

    def _start(self, job_id: uuid.UUID, worker_id: str, host: str) -> Job | None:
        now = timezone.now()
        row = sql.update(
            Job,
            {"id": job_id, "status": Status.PENDING},
            {
                "status": Status.RUNNING, "worker_id": worker_id, "started_at": now, "progress_at": now, "beat": 0,
                "attempt": sql.plus("attempt"), **NEXT, **FRESH,
            },
            sql.column_names(Job),
        )  # fmt: skip
        if row is None:
            return None
        job = cast(Job, sql.load(Job, row))
        sql.insert([JobAttempt(job=job, number=job.attempt, worker_id=worker_id, host=host, started_at=now)])
        line = {"level": Level.INFO, "message": f"Started on {worker_id}, attempt {job.attempt}"}
        self._write_log(job.pk, job.log_seq, job.attempt, [line])
        self._announce(job.pk, Status.RUNNING, job.revision)
        return job

    # -- while it runs ----------------------------------------------------------------------------

    def update_progress(
        self, job_id: uuid.UUID, progress: float | None = None, current_step: str | None = None, *,
        attempt: int | None = None, **fields: Any,
    ) -> int | None:  # fmt: skip
        """Write how far a running job is; returns the new revision, or None if it no longer runs.

        `progress` is in percent; it never goes backwards within an attempt and stays below 100 until
        the job is complete. `fields` are other columns of the running job: `completed_steps`,
        `total_steps`, `problem_count`, `estimated_duration`, `memory_usage_mb`, `cpu_usage_percent`.
        """
        if progress is not None:
            if not 0 <= progress <= 100:
                raise ValueError(f"Progress is a percentage from 0 to 100, not {progress!r}.")
            stays_below = min(progress, 99.9)
            fields["progress_percent"] = sql.Expr(
                "CASE WHEN progress_percent < %s THEN %s ELSE progress_percent END", (stays_below, stays_below)
            )
        if current_step is not None:
            fields["current_step"] = current_step[:300]
        if "completed_steps" in fields and "total_steps" not in fields:
            done = fields["completed_steps"]  # the constraint holds whatever a handler counts
            fields["completed_steps"] = sql.Expr(
                "CASE WHEN total_steps IS NULL OR total_steps >= %s THEN %s ELSE total_steps END", (done, done)
            )
        fields |= {"progress_at": timezone.now(), "revision": sql.plus("revision")}
        changed = sql.update(Job, running(job_id, attempt), fields, ("revision",))
        return changed[0] if changed else None

    def record_samples(self, job_id: uuid.UUID, *, attempt: int, **fields: Any) -> bool:
        """Write measurements, which are not a new revision. False if the attempt is over."""
        return sql.update(Job, running(job_id, attempt), fields) is not None

    def heartbeat(self, job_id: uuid.UUID, *, attempt: int) -> bool | None:
        """Renew the lease. None: the attempt is over. True: a cancel was asked for."""
        changed = sql.update(Job, running(job_id, attempt), {"beat": sql.plus("beat")}, ("cancel_requested_at",))
        return None if changed is None else changed[0] is not None

    def append_logs(self, job_id: uuid.UUID, lines: Sequence[LogLine], *, attempt: int | None = None, dropped: int = 0) -> int:
        """Store lines with the next numbers of the job; returns the number of the first one.

        Numbers are reserved in the same transaction, so a log has no holes. Returns 0 when the attempt
        is over and nothing was written.
        """
        with transaction.atomic():
            changed = sql.update(
                Job,
                {"id": job_id} if attempt is None else running(job_id, attempt),
                {"log_seq": sql.plus("log_seq", len(lines)), "log_dropped": sql.plus("log_dropped", dropped)},
                ("log_seq", "attempt"),
            )
            if changed is None:
                return 0
            first = changed[0] - len(lines) + 1
            self._write_log(job_id, first, changed[1], lines)
            return first

    # -- ends -------------------------------------------------------------------------------------

    def mark_completed(
        self, job_id: uuid.UUID, result_data: Mapping[str, Any] | None = None, *, attempt: int | None = None,
        summary: str = "", **attempt_fields: Any,
    ) -> bool:  # fmt: skip
        """RUNNING → COMPLETED. False if the attempt was already over or a cancel was accepted.

        Raises InvalidResult for what is not JSON or too large; nothing is changed then.
        """
        result = check_result(result_data)
        return self._end(
            running(job_id, attempt) | NOT_CANCELLED,
            JobAttempt.Outcome.COMPLETED,
            {
                "status": Status.COMPLETED, "result_data": result, "progress_percent": 100.0,
                "completed_at": timezone.now(), "progress_at": timezone.now(),
            },
            {"level": Level.INFO},
            attempt_fields,
            summary,
        )  # fmt: skip

    def mark_failed(
        self, job_id: uuid.UUID, error: BaseException | str, traceback: str = "", *, attempt: int | None = None,
        kind: str = Kind.UNKNOWN, advice: str = "", retry_at: datetime | None = None, counted: bool = True,
        **attempt_fields: Any,
    ) -> bool:  # fmt: skip
        """End the attempt: PENDING until `retry_at`, or FAILED without it.

        False if the attempt was already over or a cancel was accepted. ErrorRecoveryService alone
        chooses `retry_at`. `counted=False` puts the job back without spending its budget.
        """
        message = str(error) or type(error).__name__
        changes: dict[str, Any] = {
            "error_message": message[:5000],
            "error_traceback": shorten(traceback, conf.get("traceback_chars_max")),
            "error_kind": kind,
            "error_advice": advice[:300],
        }
        if counted:
            changes["retry_count"] = sql.plus("retry_count")
        if retry_at is None:
            changes |= {"status": Status.FAILED, "completed_at": timezone.now()}
            line = {"level": Level.ERROR, "message": f"Failed: {message}"[:2000]}
            outcome = JobAttempt.Outcome.FAILED
        else:
            changes |= {"status": Status.PENDING, "run_after": retry_at, "worker_id": ""}
            when = timezone.localtime(retry_at).strftime("%H:%M:%S %Z")
            line = {"level": Level.WARNING, "message": f"{message}. Tried again at {when}"[:2000]}
            outcome = JobAttempt.Outcome.LOST if kind == Kind.LOST else JobAttempt.Outcome.FAILED
        attempt_fields |= {"error_kind": kind, "error_message": message[:5000]}
        return self._end(running(job_id, attempt) | NOT_CANCELLED, outcome, changes, line, attempt_fields, message)

    def put_back(self, job_id: uuid.UUID, reason: str, *, attempt: int, **attempt_fields: Any) -> bool:
        """RUNNING → PENDING, due at once, the retry budget untouched (a drain, a restart)."""
        return self._end(
            running(job_id, attempt) | NOT_CANCELLED,
            JobAttempt.Outcome.PUT_BACK,
            {"status": Status.PENDING, "run_after": timezone.now(), "worker_id": ""},
            {"level": Level.WARNING, "message": f"Put back: {reason}"},
            attempt_fields,
        )

    def mark_cancelled(self, job_id: uuid.UUID, *, attempt: int, **attempt_fields: Any) -> bool:
        """RUNNING → CANCELLED, for the worker, once its child is gone after an accepted cancel."""
        job = Job.objects.filter(pk=job_id).values("cancel_reason", "cancelled_by").first()
        if job is None:
            return False
        return self._end(
            running(job_id, attempt) | {"cancel_requested_at": sql.NOT_NULL},
            JobAttempt.Outcome.CANCELLED,
            {"status": Status.CANCELLED, "completed_at": timezone.now()},
            {"level": Level.WARNING, "message": cancelled_line(job["cancelled_by"], job["cancel_reason"])},
            attempt_fields,
        )

    def _end(
        self, mine: dict[str, Any], outcome: str, changes: dict[str, Any], line: LogLine,
        attempt_fields: Mapping[str, Any], detail: str = "",
    ) -> bool:  # fmt: skip
        """The one UPDATE that ends an attempt, with its attempt row and its log line."""
        job_id = mine["id"]
        with transaction.atomic():
            changed = sql.update(Job, mine, changes | NEXT, ENDING)
            if changed is None:
                return False
            seq, revision, attempt, queue_name, name, created_by_id, job_type = changed
            ended = {"outcome": outcome, "ended_at": timezone.now(), **attempt_fields}
            sql.update(JobAttempt, {"job_id": job_id, "number": attempt}, ended)
            status = changes["status"]
            if status == Status.COMPLETED:
                detail = detail or summary_of(job_type, changes["result_data"])
                line = {**line, "message": f"Completed. {detail}".strip()}
            self._write_log(job_id, seq, attempt, [line])
            self._announce(job_id, status, revision)
            if status != Status.PENDING:
                told = Ended(job_id, status, attempt, name, created_by_id, detail)
                job_ended.send(sender=JobManager, ended=told)
            elif changes["run_after"] <= timezone.now():
                self._wake(queue_name)
        return True

    # -- what people ask for ----------------------------------------------------------------------

    def cancel_job(self, job_id: uuid.UUID, reason: str = "", *, by: Any = None) -> bool:
        """Ask a job to stop. True means accepted: it will end CANCELLED, whatever else happens.

        A waiting job is cancelled at once; a running one by its worker, which sees the request within
        its next beat. False: it has ended already, or was asked before.
        """
        who = by.get_username() if by else ""
        said = {"cancel_requested_at": timezone.now(), "cancel_reason": reason[:300], "cancelled_by": who}
        return self._cancel_waiting(job_id, said) or self._cancel_running(job_id, said)

    def _cancel_waiting(self, job_id: uuid.UUID, said: dict[str, Any]) -> bool:
        with transaction.atomic():
            changed = sql.update(
                Job,
                {"id": job_id, "status": Status.PENDING},
                {**said, "status": Status.CANCELLED, "completed_at": timezone.now(), **NEXT},
                ("log_seq", "revision", "attempt"),
            )
            if changed is None:
                return False
            seq, revision, attempt = changed
            text = cancelled_line(said["cancelled_by"], said["cancel_reason"])
            self._write_log(job_id, seq, attempt, [{"level": Level.WARNING, "message": text}])
            self._announce(job_id, Status.CANCELLED, revision)
        return True

    def _cancel_running(self, job_id: uuid.UUID, said: dict[str, Any]) -> bool:
        with transaction.atomic():
            changed = sql.update(Job, running(job_id) | NOT_CANCELLED, {**said, **NEXT}, ("log_seq", "revision", "attempt"))
            if changed is None:
                return False
            seq, revision, attempt = changed
            asked = f"{said['cancelled_by'] or 'The system'} asked to cancel"
            text = f"{asked}: {said['cancel_reason']}" if said["cancel_reason"] else asked
            self._write_log(job_id, seq, attempt, [{"level": Level.WARNING, "message": text}])
            self._announce(job_id, Status.RUNNING, revision)
        return True

    def retry_job(self, job_id: uuid.UUID, *, by: Any = None) -> Job:
        """FAILED → PENDING, due at once, with one try granted beyond the budget.

        Raises NotAllowed, in words, for a job that is not FAILED, and Job.DoesNotExist.
        """
        with transaction.atomic():
            changed = sql.update(
                Job,
                {"id": job_id, "status": Status.FAILED},
                {"status": Status.PENDING, "completed_at": None, "run_after": timezone.now(), "worker_id": "", **NEXT},
                ("log_seq", "revision", "attempt", "queue_name"),
            )
            if changed is None:
                job = Job.objects.get(pk=job_id)
                raise NotAllowed(f"Only a failed job can be retried; this one is {job.get_status_display().lower()}.")
            seq, revision, attempt, queue_name = changed
            who = by.get_username() if by else "the system"
            self._write_log(job_id, seq, attempt, [{"level": Level.INFO, "message": f"Retry asked for by {who}"}])
            self._announce(job_id, Status.PENDING, revision)
            self._wake(queue_name)
        return Job.objects.get(pk=job_id)

    def hold(self, job_ids: Iterable[uuid.UUID], reason: str) -> int:
        """Say why waiting jobs do not start ('' releases them). Writes only rows whose reason changes."""
        waiting = Job.objects.waiting().filter(pk__in=list(job_ids)).filter(~Q(hold_reason=reason))
        return waiting.update(hold_reason=reason, revision=F("revision") + 1)

    # -- helpers ----------------------------------------------------------------------------------

    def _write_log(self, job_id: uuid.UUID, first: int, attempt: int, lines: Sequence[LogLine]) -> None:
        rows = [JobLog(job_id=job_id, seq=first + n, attempt=attempt, **line) for n, line in enumerate(lines)]
        sql.insert(rows)

    def _announce(self, job_id: uuid.UUID, status: str, revision: int) -> None:
        """After the commit, the live message."""

        def tell() -> None:
            message = {"type": "job.status", "id": str(job_id), "status": str(status), "revision": revision}
            live.publish(f"job.{job_id}", message, retry=True)
            live.publish("jobs", message, retry=True)

        transaction.on_commit(tell, robust=True)

    def _wake(self, queue_name: str) -> None:
        # robust: a broker that is down must not turn a stored job into an error page; the tick makes up
        transaction.on_commit(lambda: broker.send_token(queue_name), robust=True)


NOT_CANCELLED = {"cancel_requested_at": None}


def running(job_id: uuid.UUID, attempt: int | None = None) -> dict[str, Any]:
    """The condition of a write about a running job; with `attempt`, the fence."""
    mine = {"id": job_id, "status": Status.RUNNING}
    return mine if attempt is None else {**mine, "attempt": attempt}


def cancelled_line(who: str, reason: str) -> str:
    text = f"Cancelled by {who or 'the system'}"
    return f"{text}: {reason}" if reason else text


def summary_of(job_type: str, result: dict[str, Any] | None) -> str:
    kind = registry.find(job_type)
    return kind.summary(result) if kind else ""


def shorten(text: str, limit: int) -> str:
    """The beginning and the end of a text that is too long, with a note of what was cut."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def check_result(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A result as plain JSON values. Dates and UUIDs become text; anything else raises InvalidResult."""
    if result is None:
        return None
    if not isinstance(result, Mapping):
        raise InvalidResult(f"A result is an object of names and values, not {type(result).__name__}.")
    try:
        data = orjson.dumps(dict(result), option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise InvalidResult(f"The result cannot be stored as JSON: {error}.") from None
    limit = conf.get("result_bytes_max")
    if len(data) > limit:
        raise InvalidResult(f"The result has {len(data):,} bytes; at most {limit:,} are kept. Store it as an artifact.")
    return without_nul(orjson.loads(data))


def without_nul(value: Any) -> Any:
    """JSON values without NUL characters, which PostgreSQL cannot store in text."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {without_nul(name): without_nul(item) for name, item in value.items()}
    return [without_nul(item) for item in value] if isinstance(value, list) else value
