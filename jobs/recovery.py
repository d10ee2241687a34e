"""ErrorRecoveryService: what happens after a failure, and the rescue of lost jobs.

Rescue takes the ordinary failure path, each job in a transaction of its own, so that one odd row
cannot stop the sweep.
"""

import logging
import os
import random
import signal
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from django.db import transaction
from django.utils import timezone

from jobs import broker, conf, registry
from jobs.errors import Failure, WorkerLost
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt
from jobs.retry import RetryPolicy, delay_s, is_retryable, kind_of, next_try

log = logging.getLogger(__name__)


class ErrorRecoveryService:
    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random()

    def policy_of(self, job: Job) -> RetryPolicy:
        """The rule of the job's type, with the job's own number of retries."""
        kind = registry.find(job.job_type)
        declared = kind.retry_policy if kind else RetryPolicy(job.max_retries, tuple(conf.get("retry_delays_s")))
        return RetryPolicy(job.max_retries, declared.delays_s, declared.jitter, declared.transient, declared.permanent)

    def failure_of(self, job: Job, error: BaseException | Failure) -> Failure:
        if isinstance(error, Failure):
            return error
        return Failure.of(error, kind_of(error, self.policy_of(job)))

    def should_retry(self, job: Job, error: BaseException | Failure) -> bool:
        """Whether this kind of error may pass and the budget of retries is not spent."""
        return is_retryable(self.failure_of(job, error).kind) and job.retry_count < job.max_retries

    def calculate_retry_delay(self, retry_count: int) -> int:
        """Seconds until the next try after `retry_count` counted failures: 60, 300, 900, then 3600."""
        return delay_s(RetryPolicy(0, tuple(conf.get("retry_delays_s"))), retry_count)

    def handle_job_failure(self, job: Job, error: BaseException | Failure, *, attempt: int | None = None, **attempt_fields: Any) -> bool:
        """Retry later or fail for good, by the rule. False if the attempt was over already."""
        failure = self.failure_of(job, error)
        retry_at = next_try(self.policy_of(job), failure.kind, job.retry_count, timezone.now(), self.rng)
        with transaction.atomic():
            changed = JobManager().mark_failed(
                job.pk, failure.message, failure.traceback, kind=failure.kind, advice=failure.advice,
                attempt=job.attempt if attempt is None else attempt, retry_at=retry_at, **attempt_fields,
            )  # fmt: skip
            if changed and retry_at is not None:
                schedule_wake(job.queue_name, retry_at)
        return changed


def schedule_wake(queue: str, when: datetime) -> None:
    """Beside the row's `run_after`, which decides, a django-q2 schedule that wakes a worker for it."""
    transaction.on_commit(lambda: broker.schedule_token(queue, when), robust=True)


@dataclass
class Rescuer:
    """Finds jobs whose lease stands still.

    It acts when it has seen the same (attempt, beat) for `lease_s` of its own monotonic clock while
    its own reads succeeded, so neither a clock jump nor a database outage makes a mass rescue.
    """

    seen: dict[uuid.UUID, tuple[int, int, float]] = field(default_factory=dict)

    def sweep(self) -> list[uuid.UUID]:
        """Look once; returns the ids of the jobs that were rescued."""
        now = time.monotonic()
        running = {job_id: (attempt, beat) for job_id, attempt, beat in Job.objects.running().values_list("id", "attempt", "beat")}
        before, self.seen = self.seen, {}
        lost = []
        for job_id, lease in running.items():
            known = before.get(job_id)
            since = known[2] if known and known[:2] == lease else now
            self.seen[job_id] = (*lease, since)
            if now - since >= conf.get("lease_s"):
                lost.append(job_id)
        return [job_id for job_id in lost if self.rescue(job_id, *running[job_id])]

    def rescue(self, job_id: uuid.UUID, attempt: int, beat: int) -> bool:
        try:
            row = JobAttempt.objects.filter(job_id=job_id, number=attempt).first()
            if row and row.process:
                kill_session(row.process)
            job = Job.objects.running(job_id, attempt).filter(beat=beat).first()
            if job is None:
                return False
            if job.cancel_requested_at is not None:
                return JobManager().mark_cancelled(job_id, attempt=attempt)
            error = WorkerLost(f"The worker {job.worker_id} is gone")
            return ErrorRecoveryService().handle_job_failure(job, error, attempt=attempt)
        except Exception:
            log.exception("Could not rescue job %s", job_id)
            return False


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def describe_process(pid: int) -> dict[str, Any]:
    """Enough to find a child again and to be sure that it is the same one."""
    return {"pid": pid, "started": psutil.Process(pid).create_time(), "boot": boot_id(), "host": os.uname().nodename}


def kill_session(process: dict[str, Any]) -> None:
    """SIGKILL what is left of a recorded session on this host; no other process is ever touched."""
    if process.get("host") != os.uname().nodename or process.get("boot") != boot_id():
        return
    for other in psutil.process_iter():
        try:
            in_session = os.getsid(other.pid) == process["pid"]
            if in_session and other.create_time() >= process["started"] - 1:
                os.kill(other.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
