"""JobNotificationService: who is told of what, in the page and by e-mail."""

import uuid
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.mail import send_mail
from django.db import transaction
from django.dispatch import receiver
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from jobs import conf, live, sql, words
from jobs.language import told
from jobs.mailing import language_of, mail_due
from jobs.manager import Ended, JobManager, group_ended, job_ended, job_stalled, summary_of
from jobs.models import Job, JobGroup, Notification
from jobs.presentation import badge, group_end, last_seq
from jobs.states import Level, Status
from jobs.ways import ways_out

DIGEST_MAX = 20  # jobs that one mail describes
TOLD_TOGETHER = timedelta(hours=24)  # an older unread notification takes up no more failures
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

    def tell(self, ended: Ended, group: JobGroup | None = None) -> None:
        """One row per person and attempt, so that a second call for the same end adds nothing.

        With `group`, `ended` is the end of the group, of which its last job is the sign.
        """
        if ended.created_by_id is None:
            return
        row = self.told_with_others(ended) if ended.failure and group is None else None
        if row is None:
            text = f"{ended.name}: {ended.detail or ended.status.label.lower()}"[:500]
            row = Notification(
                user_id=ended.created_by_id, job_id=ended.job_id, attempt=ended.attempt, status=ended.status, text=text, group=group,
                failure=ended.failure,
            )  # fmt: skip
            subject_id = group.subject_id if group else ended.subject_id
            row.mail_due_at = mail_due(ended.created_by_id, subject_id, ended.status, row.created_at)
            sql.insert([row], ignore_conflicts=True)
        message = {
            "type": "notification", "id": str(row.pk), "job": str(ended.job_id), "status": ended.status, "text": row.text,
            "unread": unread_of(ended.created_by_id),
            "url": row.get_absolute_url(),
        }  # fmt: skip
        transaction.on_commit(lambda: live.publish(f"user.{ended.created_by_id}", message, retry=True), robust=True)

    def told_with_others(self, ended: Ended) -> Notification | None:
        """The unread notification of a failure like this one, of today, which now tells of this one too; None where there is none.

        The count is read from the jobs, so telling twice of one end changes nothing, and under the lock of the row, so that two
        ends at once are both counted. Its mail, if it was sent, is not sent again.
        """
        since = timezone.now() - TOLD_TOGETHER
        unread = Notification.objects.filter(
            user_id=str(ended.created_by_id), failure=ended.failure, group=None, read_at=None, created_at__gte=since
        ).exclude(job_id=ended.job_id)
        row = unread.select_for_update(of=("self",)).select_related("job").order_by("created_at").first()
        if row is None or row.job.completed_at is None:
            return None
        alike = Job.objects.filter(created_by=ended.created_by_id, failure=ended.failure, status=Status.FAILED, group=None)
        row.count = max(row.count, alike.filter(completed_at__gte=row.job.completed_at).count())
        row.text = f"{words.count(row.count, 'job')} failed in the same way: {ended.detail}"[:500]
        if row.mailed_at is None and row.mail_due_at is None:
            row.mail_due_at = mail_due(ended.created_by_id, ended.subject_id, ended.status, timezone.now())
        changes = {"count": row.count, "text": row.text, "mail_due_at": row.mail_due_at}
        return row if unread.filter(pk=row.pk).update(**changes) else None

    def send_email_notification(self, user_email: str, job: Job) -> int:
        """A mail about the end of `job`, as text and as HTML; returns the number of mails sent (0 or 1).

        Raises what the mail backend raises (smtplib.SMTPException, OSError).
        """
        return send(one_line(f"{told(job.get_status_display())}: {told(job.name)}"), [describe(job)], user_email)

    def send_due_mail(self) -> int:
        """One mail to each person with something due, however much; returns the number of mails sent.

        A mail that cannot be sent is tried again after `mail_delays_s`, then given up: the notification
        and the job's log say so.
        """
        due = Notification.objects.filter(mail_due_at__lte=timezone.now())
        sent = 0
        for user in get_user_model().objects.filter(pk__in=due.order_by().values("user")):
            rows = list(due.filter(user=user).select_related("job", "group").order_by("created_at"))
            try:
                if user.email and user.is_active:
                    with translation.override(language_of(user.pk)):
                        sent += self.send_digest(user.email, rows)
            except OSError as error:  # smtplib's exceptions are OSErrors too
                self.mail_failed(rows, error)
            else:
                Notification.objects.filter(pk__in=[row.pk for row in rows]).update(
                    mail_due_at=None, mail_error="", mailed_at=timezone.now()
                )
        return sent

    def send_digest(self, user_email: str, rows: list[Notification]) -> int:
        first = rows[0]
        if len(rows) == 1 and first.group is None and first.count == 1 and is_as_told(first):
            return self.send_email_notification(user_email, first.job)
        subject = one_line(f"{told(first.get_status_display())}: {told(first.group)}") if len(rows) == 1 and first.group else said_of(rows)
        parts = [describe_told(row) for row in rows[:DIGEST_MAX]]
        return send(subject, parts, user_email, more=max(0, len(rows) - DIGEST_MAX))

    def mail_failed(self, rows: list[Notification], error: OSError) -> None:
        delays = conf.get("mail_delays_s")
        for row in rows:
            row.mail_tries += 1
            row.mail_error = one_line(f"{type(error).__name__}: {error}")[:300]
            later = row.mail_tries <= len(delays)
            row.mail_due_at = timezone.now() + timedelta(seconds=delays[row.mail_tries - 1]) if later else None
            row.save(update_fields=["mail_tries", "mail_error", "mail_due_at"])
            if not later:
                JobManager().note(row.job_id, f"The mail about this could not be sent in {row.mail_tries} tries: {row.mail_error}")


def unread_of(user: Any) -> int:
    """Of a person, or of their id."""
    return Notification.objects.filter(user=user, read_at=None).count()


def mark_read(user: Any, **which: Any) -> None:
    """The unread notifications of a person that are like `which`; their other pages are told how many are left."""
    unread = Notification.objects.filter(user=user, read_at=None)
    ids = list(unread.filter(**which).values_list("pk", flat=True))
    if ids:
        unread.filter(pk__in=ids).update(read_at=timezone.now())
        message = {"type": "notification.read", "unread": unread_of(user)}
        transaction.on_commit(lambda: live.publish(f"user.{user.pk}", message, retry=True), robust=True)


def one_line(text: str) -> str:
    """No line ends, which would be headers of their own in a mail."""
    return " ".join(text.split())[:180]


@dataclass(frozen=True)
class Part:
    """One end in a mail. `place` is the address that leads to what matters: the result, or the line of the error."""

    name: str
    status: str
    is_failed: bool
    says: str
    advice: str
    ways: list[str]
    place: str

    def __str__(self) -> str:
        ways = f"{_('What can be done:')} {'; '.join(self.ways)}" if self.ways else ""
        return "\n\n".join(part for part in (self.name, self.says, self.advice, ways, self.place) if part)


def describe(job: Job) -> Part:
    """The end of a job for a mail: what came of it, what helps, where it is."""
    is_failed = job.status == Status.FAILED
    error = last_seq(job, Level.ERROR) if is_failed else None
    line = f"#L{error}" if error else ""
    ways = [told(way.label) for way in ways_out(job, job.created_by)] if is_failed else []
    says, advice = told(describe_end(job)), told(job.error_advice)
    return Part(told(job.name), told(job.get_status_display()), is_failed, says, advice, ways, place(job.get_absolute_url() + line))


def describe_told(row: Notification) -> Part:
    """What a notification tells of: the end of a job, if it still stands as it was told; else what was told, and how it is now."""
    if row.group is None and row.count == 1 and is_as_told(row):
        return describe(row.job)
    now = "" if row.group or row.count > 1 else " " + told(f"Now it is {badge(row.job).label.lower()}.")
    name, status = told(row.group or row.job), told(row.get_status_display())
    return Part(name, status, row.status == Status.FAILED, f"{told(row.text)}{now}", "", [], place(row.get_absolute_url()))


def is_as_told(row: Notification) -> bool:
    """Not retried since, which quiet hours leave time for."""
    return (row.job.attempt, row.job.status) == (row.attempt, row.status)


def place(path: str) -> str:
    return f"{settings.PUBLIC_URL}{path}" if settings.PUBLIC_URL else ""


def said_of(rows: list[Notification]) -> str:
    """4 jobs failed, 2 completed."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[str(row.get_status_display()).lower()] += row.count
    (first, number), *others = sorted(counts.items(), key=lambda item: item[0] != "failed")
    return ", ".join([told(f"{words.count(number, 'job')} {first}"), *(told(f"{number:,} {status}") for status, number in others)])


def send(subject: str, parts: list[Part], user_email: str, more: int = 0) -> int:
    text = "\n\n\n".join([*map(str, parts), *([told(f"And {more:,} more.")] if more else [])])
    page = render_to_string("jobs/mail.html", {"parts": parts, "more": more, "settings_url": place(reverse("mail-settings"))})
    return send_mail(subject, text, None, [user_email], html_message=page)


def describe_end(job: Job) -> str:
    """What came of a job, in one line."""
    if job.status == Status.FAILED:
        return job.error_message
    return summary_of(job.job_type, job.result_data)


@receiver(job_ended, sender=JobManager)
def tell_creator(sender: Any, ended: Ended, **_: Any) -> None:
    if ended.status in TOLD and ended.group_id is None:
        JobNotificationService().tell(ended)


@receiver(job_stalled, sender=JobManager)
def tell_of_stall(sender: Any, ended: Ended, **_: Any) -> None:
    JobNotificationService().tell(ended)


@receiver(group_ended, sender=JobManager)
def tell_of_group(sender: Any, group: JobGroup, last: Ended, **_: Any) -> None:
    """The jobs of a group are told of together, once the last of them is over."""
    status, detail = group_end(group)
    JobGroup.objects.filter(pk=group.pk).update(outcome=status, summary=detail[:1000])
    if status not in TOLD and last.status in TOLD:
        status = last.status  # one of its jobs was retried by itself, while others stay cancelled
    if status in TOLD:
        JobNotificationService().tell(
            replace(last, status=status, name=group.name, created_by_id=group.created_by_id, detail=detail), group
        )
