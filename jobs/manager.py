"""JobManager: the one writer of `Job.status`.

A transition is one conditional UPDATE, with its attempt and its log line in the same transaction;
what follows from it (live message, token, notification) happens after the commit. Zero rows changed
means that somebody else was faster: the caller is told, nothing is overwritten.
"""

import enum
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import orjson
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.dispatch import Signal
from django.utils import timezone

from jobs import broker, conf, failures, items, live, registry, search, sql, timing, words
from jobs.errors import InvalidParameters, InvalidResult, Kind, NotAllowed, QuotaExceeded
from jobs.models import Job, JobAttempt, JobDependency, JobGroup, JobLog, JobText, as_uuid
from jobs.states import Level, Priority, Status

log = logging.getLogger(__name__)

# Sent inside the transaction that ends a job, with an `Ended`, so that the row that tells a person of an
# end is there exactly when the end is. Receivers only write rows.
job_ended = Signal()
# In the same way when the last open job of a group ends, with the group and the `Ended` of that job.
group_ended = Signal()
# In the same way when a running job is found to be stalled, with an `Ended` whose status is RUNNING.
job_stalled = Signal()

# What each published write raises, and what a new attempt begins with.
NEXT = {"log_seq": sql.plus("log_seq"), "revision": sql.plus("revision")}
FRESH: dict[str, Any] = {
    "progress_percent": 0.0,
    "completed_steps": 0,
    "current_step": "",
    "problem_count": 0,
    "memory_usage_mb": None,
    "memory_peak_mb": None,
    "cpu_usage_percent": None,
    "estimated_duration": None,
    "error_message": "",
    "error_traceback": "",
    "error_kind": "",
    "error_advice": "",
    "failure": "",
    "pause_reason": "",
    "stalled_at": None,
}
NOT_PAUSED = {"pause_requested_at": None, "pause_reason": "", "paused_by": ""}  # fmt: skip

_WISH = f"SELECT cancel_requested_at, pause_requested_at FROM {Job._meta.db_table} WHERE id = %s AND status = %s AND attempt = %s"
ENDING = ("log_seq", "revision", "attempt", "queue_name", "name", "created_by_id", "job_type", "group_id", "subject_id")

LogLine = Mapping[str, Any]  # level, message, and optionally timestamp, step_name, data, and by (a person)


class Wish(enum.Enum):
    """What people, or the machine, asked of a running job."""

    NONE = "none"
    CANCEL = "cancel"
    PAUSE = "pause"

    @classmethod
    def of(cls, cancel_requested_at: Any, pause_requested_at: Any) -> "Wish":
        if cancel_requested_at is not None:
            return cls.CANCEL
        return cls.PAUSE if pause_requested_at is not None else cls.NONE


@dataclass(frozen=True)
class Ended:
    """A job that reached an end, for those who tell people. `detail` is the result or the error in one line."""

    job_id: uuid.UUID
    status: Status
    attempt: int
    name: str
    created_by_id: int | None
    detail: str
    group_id: uuid.UUID | None = None
    failure: str = ""
    subject_id: uuid.UUID | None = None


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
        cpu_limit_s: int | None = None,
        continues: Job | None = None,
        estimated_duration: float | None = None,
        run_after: datetime | None = None,
        group: JobGroup | None = None,
        depends_on: Sequence[uuid.UUID] = (),
        run_if_failed: bool = False,
        checked: bool = False,
    ) -> Job:
        """A new PENDING job; a worker is woken once the surrounding transaction commits.

        `continues` is an ended job whose finished items this one does not do again. It is held until the jobs
        `depends_on` are complete, and cancelled when one of them fails for good or is cancelled; with
        `run_if_failed` it is held until they are over. `checked` parameters come from the type's own `clean`.
        Raises UnknownJobType, InvalidParameters (a message per field) or QuotaExceeded; nothing is made then.
        """
        kind = registry.get(job_type)
        cleaned = dict(parameters or {}) if checked else kind.clean(dict(parameters or {}))
        if kind.needs_subject and subject_id is None:
            raise InvalidParameters({"subject": [f"{kind.label} works on what was found about a subject: choose one."]})
        if kind.check_subject:
            kind.check_subject(cleaned, subject_id)
        check_limits(memory_limit_mb=memory_limit_mb, time_limit_s=time_limit_s, cpu_limit_s=cpu_limit_s, max_retries=max_retries)
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
            cpu_limit_s=cpu_limit_s or kind.cpu_limit_s,
            continues_id=continues.pk if continues else None,
            estimated_duration=estimated_duration,
            group=group,
            run_if_failed=run_if_failed,
            revision=1,
            log_seq=1,
        )
        job.run_after = run_after or job.created_at
        job.queued_s = job.held_s = 0.0
        with transaction.atomic():
            needed = self._lock_needed(depends_on, run_if_failed)
            waits_for = [n for n in needed if not n.is_ended]
            job.blocked_by, job.hold_reason = len(waits_for), waits_for_text([n.name for n in waits_for])
            job.waiting_since = (job.created_at if job.hold_reason else job.run_after).timestamp()
            sql.insert([job])
            sql.insert([search.text_of(job)])
            if needed:
                sql.insert(JobDependency(job=job, needs=n, met=n.is_ended) for n in needed)
            text = f"Created by {name_of(created_by)}"
            if continues is not None:
                text += f", goes on where job {continues.pk} ended: {items.inherit(continues, job):,} items are done"
            self._write_log(job.pk, 1, 0, [{"level": Level.INFO, "message": text, "by": person(created_by)}])
            self._announce(job.pk, Status.PENDING, 1)
            self._wake(job.queue_name)
        return job

    def create_group(self, name: str, *, created_by: Any = None, subject_id: uuid.UUID | None = None) -> JobGroup:
        """A group without jobs; make them in the same transaction with `create_job(group=…)`."""
        return JobGroup.objects.create(name=name[:200], created_by=created_by, subject_id=subject_id)

    def _lock_needed(self, ids: Sequence[uuid.UUID], run_if_failed: bool) -> list[Job]:
        """The jobs that a new one depends on, locked, so that none of them ends unseen before it is stored."""
        if not ids:
            return []
        found = list(Job.objects.select_for_update().filter(pk__in=ids).order_by("pk"))
        problems = [f"There is no job with the id {pk}." for pk in set(ids) - {job.pk for job in found}]
        if not run_if_failed:
            lost = [job for job in found if job.status in (Status.FAILED, Status.CANCELLED)]
            problems += [f"“{job.name}” is {job.get_status_display().lower()}, so it will never be complete." for job in lost]
        if problems:
            raise InvalidParameters({"depends_on": problems})
        return found

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
            {"id": job_id, "status": Status.PENDING, "hold_reason": ""},
            {
                "status": Status.RUNNING, "worker_id": worker_id, "started_at": now, "progress_at": now, "beat": 0,
                "attempt": sql.plus("attempt"), **timing.until(now), "waiting_since": None, **NEXT, **FRESH,
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
        fields |= {"progress_at": timezone.now(), "stalled_at": None, "revision": sql.plus("revision")}
        changed = sql.update(Job, running(job_id, attempt), fields, ("revision",))
        return changed[0] if changed else None

    def mark_stalled(self, job: Job, silent_s: float) -> bool:
        """A running job makes no progress: said in its log and told to its creator, once until it moves on. False if it has."""
        text = f"No progress for {words.duration(silent_s)}"
        mine = {"status": Status.RUNNING, "attempt": job.attempt, "stalled_at": None, "progress_at": job.progress_at}
        with transaction.atomic():
            if not self._say(job.pk, mine, {"stalled_at": timezone.now()}, text, Level.WARNING):
                return False
            told = Ended(job.pk, Status.RUNNING, job.attempt, job.name, job.created_by_id, text)
            job_stalled.send(sender=JobManager, ended=told)
        return True

    def record_samples(self, job_id: uuid.UUID, *, attempt: int, **fields: Any) -> bool:
        """Write measurements, which are not a new revision. False if the attempt is over."""
        return sql.update(Job, running(job_id, attempt), fields) is not None

    def heartbeat(self, job_id: uuid.UUID, *, attempt: int) -> Wish | None:
        """Renew the lease, and say what was asked of the job. None: the attempt is over."""
        changed = sql.update(Job, running(job_id, attempt), {"beat": sql.plus("beat")}, ("cancel_requested_at", "pause_requested_at"))
        return None if changed is None else Wish.of(*changed)

    def wish(self, job_id: uuid.UUID, *, attempt: int) -> Wish | None:
        """What was asked of a running job, without renewing its lease. None: the attempt is over."""
        with connection.cursor() as cursor:  # asked five times a second for each running job, so without the ORM
            cursor.execute(_WISH, [items.bound(Job._meta.pk, job_id), Status.RUNNING.value, attempt])
            found = cursor.fetchone()
        return None if found is None else Wish.of(*found)

    def current_attempt(self, job_id: uuid.UUID) -> int:
        """Raises Job.DoesNotExist."""
        return Job.objects.values_list("attempt", flat=True).get(pk=job_id)

    def record_items(self, job_id: uuid.UUID, rows: Sequence[tuple[str, str, str, str]], *, attempt: int) -> None:
        """Store (key, outcome, kind, reason) of items that were not done. Nothing once the attempt is over."""
        with transaction.atomic():
            items.record_many(job_id, attempt, rows)

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
            if lines:
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
        mark = failures.mark_of(kind, message, traceback=traceback)
        changes: dict[str, Any] = {
            "failure": mark.fingerprint,
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
            changes |= back(retry_at)
            when = timezone.localtime(retry_at).strftime("%H:%M:%S %Z")
            line = {"level": Level.WARNING, "message": f"{message}. Tried again at {when}"[:2000]}
            outcome = JobAttempt.Outcome.LOST if kind == Kind.LOST else JobAttempt.Outcome.FAILED
        attempt_fields |= {"error_kind": kind, "error_message": message[:5000]}
        failures.keep([mark])
        return self._end(running(job_id, attempt) | NOT_CANCELLED, outcome, changes, line, attempt_fields, message)

    def put_back(
        self, job_id: uuid.UUID, reason: str, *, attempt: int, outcome: str = JobAttempt.Outcome.PUT_BACK, **attempt_fields: Any
    ) -> bool:
        """RUNNING → PENDING, due at once, the retry budget untouched (a drain, a pause, a lost worker)."""
        return self._end(
            running(job_id, attempt) | NOT_CANCELLED,
            outcome,
            back(timezone.now()),
            {"level": Level.WARNING, "message": reason},
            attempt_fields,
        )

    def mark_paused(self, job_id: uuid.UUID, *, attempt: int, **attempt_fields: Any) -> bool:
        """RUNNING → PENDING, for the worker, once its child has stopped at a checkpoint.

        It stays paused until somebody resumes it, or goes on by itself if it only made way.
        """
        reason = Job.objects.filter(pk=job_id).values_list("pause_reason", flat=True).first()
        return self.put_back(
            job_id, reason or "Stopped at a checkpoint", attempt=attempt, outcome=JobAttempt.Outcome.PAUSED, **attempt_fields
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
        changes["stalled_at"] = None
        if changes["status"] != Status.PENDING:
            changes |= NOT_PAUSED
        with transaction.atomic():
            self._lock_group(job_id)
            changed = sql.update(Job, mine, changes | NEXT, ENDING)
            if changed is None:
                return False
            seq, revision, attempt, queue_name, name, created_by_id, job_type, group_id, subject_id = changed
            ended = {"outcome": outcome, "ended_at": timezone.now(), **attempt_fields}
            sql.update(JobAttempt, {"job_id": job_id, "number": attempt}, ended)
            status = changes["status"]
            if status == Status.COMPLETED:
                detail = detail or summary_of(job_type, changes["result_data"])
                line = {**line, "message": f"Completed. {detail}".strip()}
            self._write_log(job_id, seq, attempt, [line])
            self._announce(job_id, status, revision)
            if status != Status.PENDING:
                told = Ended(
                    job_id, status, attempt, name, created_by_id, detail, group_id and as_uuid(group_id), changes.get("failure", ""),
                    subject_id and as_uuid(subject_id),
                )  # fmt: skip
                job_ended.send(sender=JobManager, ended=told)
                self._settle_others(told)
            elif changes["run_after"] <= timezone.now():
                self._wake(queue_name)
        return True

    def _lock_group(self, job_id: uuid.UUID) -> None:
        """Before the row of a job that may end: so all ends in a group come one after the other, whoever asks for them."""
        group_id = Job.objects.filter(pk=job_id).order_by().values_list("group_id", flat=True).first()
        if group_id is not None:
            sql.update(JobGroup, {"id": group_id}, {"revision": sql.plus("revision")})

    def _settle_others(self, ended: Ended) -> None:
        """After the end of a job, in its transaction: those that wait for it, and the group that it is in."""
        waiting = JobDependency.objects.filter(needs_id=ended.job_id, met=False).order_by("job_id")
        for pk, dependent, tolerant in list(waiting.values_list("pk", "job_id", "job__run_if_failed")):
            if ended.status == Status.COMPLETED or tolerant:
                if JobDependency.objects.filter(pk=pk, met=False).update(met=True):
                    self._release(dependent)
            else:
                was = "failed" if ended.status == Status.FAILED else "was cancelled"
                reason = f"“{ended.name[:150]}”, which it depends on, {was}"
                self._cancel_waiting(dependent, {"cancel_requested_at": timezone.now(), "cancel_reason": reason, "cancelled_by": ""})
        if ended.group_id is not None and not Job.objects.open().filter(group_id=ended.group_id).exists():
            over = sql.update(JobGroup, {"id": ended.group_id, "completed_at": None}, {"completed_at": timezone.now()})
            if over is not None:
                group_ended.send(sender=JobManager, group=JobGroup.objects.get(pk=ended.group_id), last=ended)

    def _release(self, job_id: uuid.UUID) -> None:
        """One job fewer that this one waits for; due now when it was the last."""
        open_names = JobDependency.objects.filter(job_id=job_id, met=False).order_by("pk").values_list("needs__name", flat=True)
        reason = waits_for_text(list(open_names))
        now = sql.adapted(Job, "run_after", timezone.now())
        changed = sql.update(
            Job,
            {"id": job_id, "status": Status.PENDING, "blocked_by": sql.Expr("> 0")},
            {
                "blocked_by": sql.plus("blocked_by", -1),
                "hold_reason": sql.Expr("CASE WHEN pause_requested_at IS NULL THEN %s ELSE hold_reason END", (reason,)),
                "run_after": sql.Expr("CASE WHEN blocked_by > 1 THEN run_after ELSE %s END", (now,)),
                **timing.until(timezone.now()),
                **NEXT,
            },
            ("blocked_by", "log_seq", "revision", "attempt", "queue_name"),
        )  # fmt: skip
        if changed is None:
            return
        blocked_by, seq, revision, attempt, queue_name = changed
        text = reason or "What it depends on is over: it may start"
        self._write_log(job_id, seq, attempt, [{"level": Level.INFO, "message": text}])
        self._announce(job_id, Status.PENDING, revision)
        if not blocked_by:
            self._wake(queue_name)

    # -- what people ask for ----------------------------------------------------------------------

    def cancel_job(self, job_id: uuid.UUID, reason: str = "", *, by: Any = None) -> bool:
        """Ask a job to stop. True means accepted: it will end CANCELLED, whatever else happens.

        A waiting job is cancelled at once; a running one by its worker, which sees the request within
        its next beat. False: it has ended already, or was asked before.
        """
        who = person(by)
        said = {"cancel_requested_at": timezone.now(), "cancel_reason": reason[:300], "cancelled_by": who}
        return self._cancel_waiting(job_id, said) or self._cancel_running(job_id, said)

    def _cancel_waiting(self, job_id: uuid.UUID, said: dict[str, Any]) -> bool:
        now = timezone.now()
        # without a start: it did not run until now, and its attempts keep their own times
        ended = {"status": Status.CANCELLED, "started_at": None, "completed_at": now}
        with transaction.atomic():
            self._lock_group(job_id)
            changed = sql.update(
                Job,
                {"id": job_id, "status": Status.PENDING},
                {**said, **ended, **timing.until(now), "waiting_since": None, **NEXT},
                ("log_seq", "revision", "attempt", "name", "created_by_id", "group_id"),
            )
            if changed is None:
                return False
            seq, revision, attempt, name, created_by_id, group_id = changed
            text = cancelled_line(said["cancelled_by"], said["cancel_reason"])
            self._write_log(job_id, seq, attempt, [{"level": Level.WARNING, "message": text, "by": said["cancelled_by"]}])
            self._announce(job_id, Status.CANCELLED, revision)
            self._settle_others(Ended(job_id, Status.CANCELLED, attempt, name, created_by_id, text, group_id and as_uuid(group_id)))
        return True

    def _cancel_running(self, job_id: uuid.UUID, said: dict[str, Any]) -> bool:
        with transaction.atomic():
            changed = sql.update(Job, running(job_id) | NOT_CANCELLED, {**said, **NEXT}, ("log_seq", "revision", "attempt"))
            if changed is None:
                return False
            seq, revision, attempt = changed
            asked = f"{said['cancelled_by'] or 'The system'} asked to cancel"
            text = f"{asked}: {said['cancel_reason']}" if said["cancel_reason"] else asked
            self._write_log(job_id, seq, attempt, [{"level": Level.WARNING, "message": text, "by": said["cancelled_by"]}])
            self._announce(job_id, Status.RUNNING, revision)
        return True

    def retry_job(self, job_id: uuid.UUID, *, by: Any = None, parameters: Mapping[str, Any] | None = None, **limits: int | None) -> Job:
        """FAILED → PENDING, due at once, with one try granted beyond the budget.

        What is done is kept, and items that failed are taken up again. Other `parameters` begin from the
        start, because what was done was done with the old ones. `limits` are memory_limit_mb, time_limit_s
        and cpu_limit_s. Raises NotAllowed, in words, for a job that is not FAILED, InvalidParameters,
        UnknownJobType and Job.DoesNotExist; nothing changes then.
        """
        limits = {name: value for name, value in limits.items() if value is not None}
        job = Job.objects.get(pk=job_id)
        check_limits(**limits)
        check_rights(job, limits, by)
        changes: dict[str, Any] = {**back(timezone.now()), "completed_at": None, **limits}
        if parameters is not None:
            kind = registry.get(job.job_type)
            changes["parameters"] = kind.clean(dict(parameters))
            changes["total_steps"] = kind.total_steps(changes["parameters"]) if kind.total_steps else None
            changes |= {"progress_percent": 0.0, "completed_steps": 0, "problem_count": 0}
        with transaction.atomic():
            changed = sql.update(
                Job, {"id": job_id, "status": Status.FAILED}, changes | NEXT, ("log_seq", "revision", "attempt", "queue_name")
            )
            if changed is None:
                job.refresh_from_db()
                raise NotAllowed(f"Only a failed job can be retried; this one is {job.get_status_display().lower()}.")
            self._reopen(job.group_id)
            seq, revision, attempt, queue_name = changed
            (items.try_failed_again if parameters is None else items.start_over)(job_id)
            if parameters is not None:
                search.describe_again(Job.objects.get(pk=job_id))
            text = f"Retry asked for by {name_of(by)}"
            changed_what = [what for what, given in (("limits", limits), ("parameters", parameters is not None)) if given]
            if changed_what:
                text += f", with other {' and '.join(changed_what)}"
            self._write_log(job_id, seq, attempt, [{"level": Level.INFO, "message": text, "by": person(by)}])
            self._announce(job_id, Status.PENDING, revision)
            self._wake(queue_name)
        return Job.objects.get(pk=job_id)

    def retry_items(self, job_id: uuid.UUID, *, by: Any = None) -> Job:
        """A new job for the items that failed in a COMPLETED or FAILED one, linked to it.

        Raises NotAllowed when the job has not ended in one of these ways or no item of it failed.
        """
        job = Job.objects.get(pk=job_id)
        if job.status not in (Status.COMPLETED, Status.FAILED):
            raise NotAllowed(f"The failed items of a job can be retried once it has ended; this one is {job.get_status_display().lower()}.")
        keys = items.failed_keys(job_id)
        if not keys:
            raise NotAllowed("No item of this job failed.")
        kind = registry.get(job.job_type)
        if kind.for_items is None:
            return self._go_on(job, job.parameters, by, continues=job)
        return self._go_on(job, kind.for_items(job.parameters, keys), by)

    def continue_job(self, job_id: uuid.UUID, *, by: Any = None) -> Job:
        """A new job that takes a CANCELLED one on from what it had done. Raises NotAllowed for any other."""
        job = Job.objects.get(pk=job_id)
        if job.status != Status.CANCELLED:
            raise NotAllowed(f"Only a cancelled job can be continued; this one is {job.get_status_display().lower()}.")
        return self._go_on(job, job.parameters, by, continues=job)

    def retry_group(self, group: JobGroup, *, by: Any = None) -> list[Job]:
        """Take up again what failed or was cancelled in a group, and what was made without it.

        Failed jobs go on, cancelled ones are continued by new ones, and complete ones that depend on any of these are
        done again by new ones. Raises InvalidParameters or UnknownJobType when one cannot be made, and NotAllowed
        while a job of the group is open, or when none failed or was cancelled.
        """
        with transaction.atomic():
            JobGroup.objects.select_for_update().get(pk=group.pk)
            jobs = list(current_jobs(group))
            if any(not job.is_ended for job in jobs):
                raise NotAllowed("Some of its jobs are not over yet. Cancel them first, or wait.")
            replaced: dict[uuid.UUID, uuid.UUID] = {}
            taken_up = []
            anew: set[uuid.UUID] = set()  # what is not as it was
            for job in jobs:  # in the order in which they were made, so what a job needs comes before it
                needed = list(Job.objects.filter(needed_by__job=job).values_list("pk", flat=True))  # without archived ones
                if job.status == Status.FAILED:
                    taken_up.append(self.retry_job(job.pk, by=by))
                    anew.add(job.pk)
                elif job.status == Status.CANCELLED or anew & set(needed):
                    needs = [replaced.get(pk, pk) for pk in needed]
                    goes_on = job if job.status == Status.CANCELLED else None
                    new = self._go_on(
                        job, job.parameters, by, continues=goes_on, name=job.name, group=group, depends_on=needs,
                        run_if_failed=job.run_if_failed,
                    )  # fmt: skip
                    replaced[job.pk] = new.pk
                    anew.add(job.pk)
                    taken_up.append(new)
            if not taken_up:
                raise NotAllowed("None of its jobs failed or was cancelled.")
            self._reopen(group.pk)
        return taken_up

    def cancel_group(self, group: JobGroup, reason: str = "", *, by: Any = None) -> int:
        """Ask all open jobs of a group to stop; returns how many accepted. Those that wait for others come first."""
        text = reason or f"with the group “{group.name}”"
        return sum(self.cancel_job(job.pk, text, by=by) for job in reversed(list(current_jobs(group))) if not job.is_ended)

    def _reopen(self, group_id: uuid.UUID | None) -> None:
        if group_id is not None:
            sql.update(JobGroup, {"id": group_id}, {"completed_at": None, "revision": sql.plus("revision")})

    def _go_on(self, job: Job, parameters: Mapping[str, Any], by: Any, continues: Job | None = None, **place: Any) -> Job:
        """`place` is its name and where it stands among others: name, group, depends_on, run_if_failed."""
        with transaction.atomic():
            new = self.create_job(
                job.job_type, parameters=parameters, created_by=by or job.created_by, subject_id=job.subject_id, priority=job.priority,
                max_retries=job.max_retries, memory_limit_mb=job.memory_limit_mb, time_limit_s=job.time_limit_s,
                cpu_limit_s=job.cpu_limit_s, continues=continues, **place,
            )  # fmt: skip
            if continues is None:
                Job.objects.filter(pk=new.pk).update(continues_id=job.pk)
                new.continues_id = job.pk
            self.note(job.pk, f"Taken on by job {new.pk}, asked for by {name_of(by)}", by=by)
        return new

    def run_now(self, job_id: uuid.UUID, *, by: Any = None) -> Job:
        """A job that waits for its next try is due at once. Raises NotAllowed for any other."""
        now = timezone.now()
        with transaction.atomic():
            changed = sql.update(
                Job,
                {"id": job_id, "status": Status.PENDING, "run_after": sql.Expr("> %s", (sql.adapted(Job, "run_after", now),))},
                {"run_after": now, **timing.until(now), "waiting_since": now.timestamp(), **NEXT},
                ("log_seq", "revision", "attempt", "queue_name"),
            )
            if changed is None:
                raise NotAllowed("This job does not wait for a time: there is nothing to bring forward.")
            seq, revision, attempt, queue_name = changed
            line = {"level": Level.INFO, "message": f"Next try brought forward by {name_of(by)}", "by": person(by)}
            self._write_log(job_id, seq, attempt, [line])
            self._announce(job_id, Status.PENDING, revision)
            self._wake(queue_name)
        return Job.objects.get(pk=job_id)

    def pause_job(self, job_id: uuid.UUID, reason: str = "", *, by: Any = None) -> bool:
        """Hold a waiting job, or ask a running one to stop at its next checkpoint; until it is resumed.

        False: it has ended, is paused already, or is being cancelled. Raises NotAllowed for a running job of
        a type that keeps no checkpoints.
        """
        who = name_of(by)
        text = f"Paused by {who}: {reason}" if reason else f"Paused by {who}"
        said = {"pause_requested_at": timezone.now(), "pause_reason": text[:300], "paused_by": who[:150]}
        held = {**said, "hold_reason": text[:200], **timing.until(timezone.now())}
        if self._say(job_id, {"status": Status.PENDING, "pause_requested_at": None}, held, text, by=by):
            return True
        job = Job.objects.get(pk=job_id)
        kind = registry.find(job.job_type)
        if job.status == Status.RUNNING and not (kind and kind.resumable):
            raise NotAllowed("This type of job keeps no checkpoints, so it cannot be paused while it runs.")
        mine = {"status": Status.RUNNING, "cancel_requested_at": None}
        # a job that was about to make way for another is now paused by a person, and stays so
        asked = f"{who} asked to pause"
        return any(self._say(job_id, {**mine, **how}, said, asked, by=by) for how in ({"pause_requested_at": None}, {"paused_by": ""}))

    def make_way(self, job_id: uuid.UUID, urgent: Job) -> bool:
        """Ask a running job to stop at its next checkpoint so that an urgent one gets its place. It goes on by itself."""
        text = f"Made way for “{urgent.name}”"
        said = {"pause_requested_at": timezone.now(), "pause_reason": text[:300], "paused_by": ""}
        mine = {"status": Status.RUNNING, "cancel_requested_at": None, "pause_requested_at": None}
        return self._say(job_id, mine, said, f"Asked to make way for “{urgent.name}”, which is urgent")

    def resume_job(self, job_id: uuid.UUID, *, by: Any = None) -> bool:
        """Let a paused job go on. False: it is not paused."""
        text = f"Resumed by {name_of(by)}"
        with transaction.atomic():
            queue_name = Job.objects.filter(pk=job_id).values_list("queue_name", flat=True).first()
            waiting = {"status": Status.PENDING, "pause_requested_at": sql.NOT_NULL}
            blocked = JobDependency.objects.filter(job_id=job_id, met=False).order_by("pk").values_list("needs__name", flat=True)
            let_go = {**NOT_PAUSED, "hold_reason": waits_for_text(list(blocked)), **timing.until(timezone.now())}
            if self._say(job_id, waiting, let_go, text, by=by):
                self._wake(str(queue_name))
                return True
            return self._say(job_id, {"status": Status.RUNNING, "pause_requested_at": sql.NOT_NULL}, NOT_PAUSED, text, by=by)

    def set_keep(self, job_id: uuid.UUID, keep: bool, *, by: Any = None) -> bool:
        """Protect a job from cleanup, or no longer. False: it is so already."""
        text = f"{name_of(by)} {'keeps this job: cleanup leaves it alone' if keep else 'no longer keeps this job'}"
        return self._say(job_id, {"keep": not keep}, {"keep": keep}, text, by=by)

    def set_priority(self, job_id: uuid.UUID, priority: int | None, *, by: Any = None) -> None:
        """Of a waiting job. Raises NotAllowed for any other, and for URGENT without the right to it."""
        if priority not in Priority.values:
            raise NotAllowed("Choose a priority.")
        wanted = Priority(priority)
        if wanted == Priority.URGENT and by is not None and not by.has_perm("jobs.start_urgent_jobs"):
            raise NotAllowed("You may not make jobs urgent.")
        text = f"{name_of(by)} changed the priority to {wanted.label.lower()}"
        if not self._say(job_id, {"status": Status.PENDING}, {"priority": wanted}, text, by=by):
            raise NotAllowed("Only a job that waits can get another priority.")

    def note(self, job_id: uuid.UUID, text: str, *, by: Any = None) -> None:
        """A line in the log of a job, in whatever state it is."""
        self._say(job_id, {}, {}, text, by=by)

    def _say(
        self, job_id: uuid.UUID, where: dict[str, Any], changes: dict[str, Any], text: str, level: int = Level.INFO, by: Any = None
    ) -> bool:
        """A change that is no change of status, with its log line; False if the job is not as `where` says."""
        with transaction.atomic():
            changed = sql.update(Job, {"id": job_id, **where}, changes | NEXT, ("log_seq", "revision", "attempt", "status"))
            if changed is None:
                return False
            seq, revision, attempt, status = changed
            self._write_log(job_id, seq, attempt, [{"level": level, "message": text[:2000], "by": person(by)}])
            self._announce(job_id, status, revision)
        return True

    def hold(self, job_ids: Iterable[uuid.UUID], reason: str) -> int:
        """Say why waiting jobs do not start ('' releases them). Writes only rows whose reason changes; paused ones stay."""
        waiting = Job.objects.waiting().filter(pk__in=list(job_ids), pause_requested_at=None, blocked_by=0).filter(~Q(hold_reason=reason))
        counted = {name: RawSQL(part.sql, part.params) for name, part in timing.until(timezone.now()).items()}  # noqa: S611 - our own
        return waiting.update(hold_reason=reason, revision=F("revision") + 1, **counted)

    # -- helpers ----------------------------------------------------------------------------------

    def _write_log(self, job_id: uuid.UUID, first: int, attempt: int, lines: Sequence[LogLine]) -> None:
        rows = [JobLog(job_id=job_id, seq=first + n, attempt=attempt, **line) for n, line in enumerate(lines)]
        sql.insert(rows)
        serious = [row.message for row in rows if row.level >= Level.WARNING]
        if serious:
            scope = search.scope_words(*Job.objects.filter(pk=job_id).order_by().values_list("created_by_id", "subject_id").get())
            sql.insert(JobText(job_id=job_id, scope=scope, text=message) for message in serious)

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
# What a job that goes back to waiting looks like. One that a person paused is held; one that made way is not.
BACK: dict[str, Any] = {
    "worker_id": "",
    "memory_usage_mb": None,
    "cpu_usage_percent": None,
    "hold_reason": sql.Expr("CASE WHEN paused_by <> '' THEN SUBSTR(pause_reason, 1, 200) ELSE '' END"),
    "pause_requested_at": sql.Expr("CASE WHEN paused_by <> '' THEN pause_requested_at ELSE NULL END"),
}


def back(run_after: datetime) -> dict[str, Any]:
    """The changes that let a job wait again, until then at least."""
    return {"status": Status.PENDING, "run_after": run_after, "waiting_since": run_after.timestamp(), **BACK}


def running(job_id: uuid.UUID, attempt: int | None = None) -> dict[str, Any]:
    """The condition of a write about a running job; with `attempt`, the fence."""
    mine = {"id": job_id, "status": Status.RUNNING}
    return mine if attempt is None else {**mine, "attempt": attempt}


def waits_for_text(names: Sequence[str]) -> str:
    """Why a job that depends on others is held; empty when it waits for none."""
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"Waits for “{names[0][:120]}”{more}"


def current_jobs(group: JobGroup) -> QuerySet:
    """The jobs of a group in the order in which they were made, without those that a later one of it continues."""
    continued = Job.objects.filter(group=group, continues_id__isnull=False).order_by().values("continues_id")
    return Job.objects.filter(group=group).exclude(pk__in=continued).order_by("created_at", "pk")


def name_of(user: Any) -> str:
    return person(user) or "the system"


def person(user: Any) -> str:
    """Empty for the system."""
    return user.get_username() if user else ""


def check_limits(**limits: int | None) -> None:
    """Raises InvalidParameters for limits below what a child needs to start, or absurd ones. None is no wish."""
    least = {"memory_limit_mb": conf.get("memory_limit_min_mb"), "time_limit_s": 1, "cpu_limit_s": 1, "max_retries": 0}
    most = {
        "memory_limit_mb": conf.get("memory_limit_max_mb"), "time_limit_s": conf.get("time_limit_max_s"),
        "cpu_limit_s": conf.get("time_limit_max_s"), "max_retries": 100,
    }  # fmt: skip
    problems = {
        name: [f"Must be a whole number from {least[name]:,} to {most[name]:,}, not {value!r}."]
        for name, value in limits.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least[name] <= value <= most[name])
    }
    if problems:
        raise InvalidParameters(problems)


def check_rights(job: Job, limits: Mapping[str, int | None], by: Any) -> None:
    """Raises NotAllowed when `by` may not raise a limit of the job so far. The system may."""
    if by is None or by.has_perm("jobs.raise_limits"):
        return
    kind = registry.find(job.job_type)
    allowed = {
        "memory_limit_mb": max((kind and kind.memory_limit_mb) or 0, conf.get("memory_limit_mb"), job.memory_limit_mb or 0),
        "time_limit_s": (kind and kind.time_limit_s) or 0,
        "cpu_limit_s": (kind and kind.cpu_limit_s) or 0,
    }
    for name, value in limits.items():
        if value is not None and allowed[name] and value > allowed[name]:
            what, unit = name.rsplit("_", 1)
            shown = f"{allowed[name]:,} {unit.upper() if unit == 'mb' else unit}"
            raise NotAllowed(f"You may raise the {what.replace('_', ' ')} up to {shown}; more takes the right “raise limits”.")


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


def plain(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A result as plain JSON values. Dates and UUIDs become text; anything else raises InvalidResult."""
    if result is None:
        return None
    if not isinstance(result, Mapping):
        raise InvalidResult(f"A result is an object of names and values, not {type(result).__name__}.")
    try:
        data = orjson.dumps(dict(result), option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise InvalidResult(f"The result cannot be stored as JSON: {error}.") from None
    limit = conf.get("result_file_bytes_max")
    if len(data) > limit:
        raise InvalidResult(f"The result has {len(data):,} bytes; at most {limit:,} are kept.")
    return without_nul(orjson.loads(data))


def check_result(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A result that the row can hold. Raises InvalidResult."""
    checked = plain(result)
    limit = conf.get("result_bytes_max")
    if checked is not None and len(orjson.dumps(checked)) > limit:
        raise InvalidResult(f"The result has more than the {limit:,} bytes that a row holds. Keep it as an artifact.")
    return checked


def without_nul(value: Any) -> Any:
    """JSON values without NUL characters, which PostgreSQL cannot store in text."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {without_nul(name): without_nul(item) for name, item in value.items()}
    return [without_nul(item) for item in value] if isinstance(value, list) else value
