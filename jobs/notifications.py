"""JobNotificationService: who is told of what, in the page and by e-mail."""

import uuid
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.dispatch import receiver

from jobs import live, sql
from jobs.manager import Ended, JobManager, job_ended, summary_of
from jobs.models import Job, Notification
from jobs.states import Status

TOLD = (Status.COMPLETED, Status.FAILED)


class JobNotificationService:
    """Sends to connected clients, and mail for important events.

    The three `notify_…` methods are coroutines; their twins ending in `_sync` are for code without
    an event loop.
    """

    async def notify_progress_update(self, job_id: uuid.UUID, progress_data: dict[str, Any]) -> None:
        await sync_to_async(self.notify_progress_update_sync)(job_id, progress_data)

    async def notify_job_completed(self, job_id: uuid.UUID, result_summary: str) -> None:
        await sync_to_async(self.notify_job_completed_sync)(job_id, result_summary)

    async def notify_job_failed(self, job_id: uuid.UUID, error_info: str) -> None:
        await sync_to_async(self.notify_job_failed_sync)(job_id, error_info)

    def notify_progress_update_sync(self, job_id: uuid.UUID, progress_data: dict[str, Any]) -> None:
        """`progress_data` holds the fields of a `job.progress` message (docs/live.md).

        Without a `revision` browsers could not tell whether it is stale; they are told to read again.
        """
        kind = "job.progress" if "revision" in progress_data else "job.reread"
        live.publish(f"job.{job_id}", {**progress_data, "type": kind, "id": str(job_id)})
        live.publish("jobs", {"type": kind, "id": str(job_id)})

    def notify_job_completed_sync(self, job_id: uuid.UUID, result_summary: str) -> None:
        self._tell_of(job_id, Status.COMPLETED, result_summary)

    def notify_job_failed_sync(self, job_id: uuid.UUID, error_info: str) -> None:
        self._tell_of(job_id, Status.FAILED, error_info)

    def _tell_of(self, job_id: uuid.UUID, status: Status, detail: str) -> None:
        job = Job.objects.only("id", "name", "created_by_id", "attempt").get(pk=job_id)
        self.tell(Ended(job.pk, status, job.attempt, job.name, job.created_by_id, detail))

    def tell(self, ended: Ended) -> None:
        """One row per person and attempt, so that a second call for the same end adds nothing."""
        if ended.created_by_id is None:
            return
        text = f"{ended.name}: {ended.detail or ended.status.label.lower()}"[:500]
        row = Notification(user_id=ended.created_by_id, job_id=ended.job_id, attempt=ended.attempt, status=ended.status, text=text)
        sql.insert([row], ignore_conflicts=True)
        message = {
            "type": "notification", "id": str(row.pk), "job": str(ended.job_id), "status": ended.status, "text": text
        }  # fmt: skip
        transaction.on_commit(lambda: live.publish(f"user.{ended.created_by_id}", message), robust=True)

    def send_email_notification(self, user_email: str, job: Job) -> int:
        """A plain mail about the end of `job`; returns the number of mails sent (0 or 1).

        Raises what the mail backend raises (smtplib.SMTPException, OSError).
        """
        subject = " ".join(f"{job.get_status_display()}: {job.name}".split())[:180]
        where = f"{settings.PUBLIC_URL}{job.get_absolute_url()}" if settings.PUBLIC_URL else ""
        body = "\n\n".join(part for part in (describe_end(job), job.error_advice, where) if part)
        return send_mail(subject, body, None, [user_email])


def describe_end(job: Job) -> str:
    """What came of a job, in one line."""
    if job.status == Status.FAILED:
        return job.error_message
    return summary_of(job.job_type, job.result_data)


@receiver(job_ended, sender=JobManager)
def tell_creator(sender: Any, ended: Ended, **_: Any) -> None:
    if ended.status in TOLD:
        JobNotificationService().tell(ended)
