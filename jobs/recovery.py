"""ErrorRecoveryService: what happens after a failure, and the rescue of lost jobs.

Rescue takes the ordinary failure path, each job in a transaction of its own, so that one odd row
cannot stop the sweep.
"""

import logging
import random
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from jobs import archive, broker, conf, registry
from jobs.errors import TRIED_AGAIN, Failure, Kind, WorkerLost
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt
from jobs.processes import kill_session
from jobs.retry import RetryPolicy, delay_s, is_retryable, kind_of, next_try
from jobs.states import Status

log = logging.getLogger(__name__)

POISON = "Its process vanished {} times in a row, so it is not tried again by itself. Look at the last log lines and at memory, then retry."


class ErrorRecoveryService:
    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random()

    def policy_of(self, job: Job) -> RetryPolicy:
        """The rule of the job's type, with the job's own number of retries."""
        kind = registry.find(job.job_type)
        declared = kind.retry_policy if kind else RetryPolicy(job.max_retries, tuple(conf.get("retry_delays_s")))
        return replace(declared, max_retries=job.max_retries)

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
        """Retry later or fail for good, by the rule. False if the attempt was over already.

        A worker that was lost (WorkerLost) is not the job's fault: it is due again at once and its budget is
        untouched. But a job that takes its process down `poison_max` times is not tried again by itself,
        whoever was counted guilty.
        """
        failure = self.failure_of(job, error)
        blameless = isinstance(error, WorkerLost)
        if failure.kind == Kind.LOST and self.lost_before(job) + 1 >= conf.get("poison_max"):
            retry_at = None
            failure = replace(failure, advice=POISON.format(conf.get("poison_max")))
        elif blameless:
            retry_at = timezone.now()
        else:
            retry_at = next_try(self.policy_of(job), failure.kind, job.retry_count, timezone.now(), self.rng, failure.retry_after_s)
        if retry_at is None:
            failure = replace(failure, advice=failure.advice.removeprefix(TRIED_AGAIN).strip())
        with transaction.atomic():
            changed = JobManager().mark_failed(
                job.pk, failure.message, failure.traceback, kind=failure.kind, advice=failure.advice, counted=not blameless,
                attempt=job.attempt if attempt is None else attempt, retry_at=retry_at, **attempt_fields,
            )  # fmt: skip
            if changed and retry_at is not None and not blameless:
                schedule_wake(job.queue_name, retry_at)
        return changed

    def lost_before(self, job: Job) -> int:
        """Attempts in a row, before the one that runs, whose process vanished."""
        kinds = job.attempts.exclude(number=job.attempt).exclude(outcome=JobAttempt.Outcome.PUT_BACK)
        lost = 0
        for kind in kinds.order_by("-number").values_list("error_kind", flat=True)[: conf.get("poison_max")]:
            if kind != Kind.LOST:
                break
            lost += 1
        return lost

    def cleanup_failed_jobs(self, older_than_days: int = 7) -> int:
        """Archive the FAILED jobs that ended longer ago; returns how many. Their evidence stays."""
        return archive.clean_up({Status.FAILED: older_than_days}).jobs


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

    def rescue_from(self, workers: Collection[str]) -> list[uuid.UUID]:
        """The jobs of workers that are known to be dead, at once."""
        rows = Job.objects.running().filter(worker_id__in=workers).values_list("id", "attempt", "beat")
        return [job_id for job_id, attempt, beat in list(rows) if self.rescue(job_id, attempt, beat)]

    def rescue(self, job_id: uuid.UUID, attempt: int, beat: int) -> bool:
        try:
            if not Job.objects.running(job_id, attempt).filter(beat=beat).exists():
                return False  # its worker is back, and wants its child alive
            row = JobAttempt.objects.filter(job_id=job_id, number=attempt).first()
            if row and row.process:
                kill_session(row.process)
            job = Job.objects.running(job_id, attempt).filter(beat=beat).first()
            if job is None:
                return False
            if job.cancel_requested_at is not None:
                return JobManager().mark_cancelled(job_id, attempt=attempt)
            error = WorkerLost(f"The worker {job.worker_id} is gone")
            log.warning("Rescuing job %s: the worker %s is gone", job_id, job.worker_id)
            return ErrorRecoveryService().handle_job_failure(job, error, attempt=attempt)
        except Exception:
            log.exception("Could not rescue job %s", job_id)
            return False
