"""What is stored about a job: the job itself, its attempts, its log, its files, and who was told.

The Job table is the queue and the truth. `Job.status` is written by `jobs.manager` alone.
"""

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.files import File
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from jobs.ids import uuid7
from jobs.queries import JobQuerySet, OfJobQuerySet, OfSubjectQuerySet
from jobs.states import ENDED, Level, Priority, Status

CLAIMABLE = Q(status=Status.PENDING, hold_reason="")


class JobGroup(models.Model):
    """Jobs that were started as one: with one page, one progress, one cancel and retry, and one notification at the end."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    subject_id = models.UUIDField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="job_groups")
    created_at = models.DateTimeField(default=timezone.now)
    completed_at = models.DateTimeField(null=True, blank=True, help_text="When the last of its jobs ended; empty while one is open.")
    outcome = models.CharField(max_length=9, choices=Status.choices, blank=True, help_text="How it ended, kept when its jobs are archived.")
    summary = models.CharField(max_length=1000, blank=True, help_text="Its end in one line.")
    revision = models.PositiveBigIntegerField(default=0, help_text="Raised by each end of a job; its row lock puts these in order.")

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (models.Index(fields=("subject_id", "-created_at"), name="group_subject_created"),)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("group-detail", args=[self.pk])


class Job(models.Model):
    Status = Status
    Priority = Priority

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job_type = models.CharField(max_length=64)
    name = models.CharField(max_length=200, help_text="What people read; made from the parameters.")
    subject_id = models.UUIDField(null=True, blank=True)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    priority = models.SmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    queue_name = models.CharField(max_length=64, default="default")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="jobs")
    parameters = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)

    progress_percent = models.FloatField(default=0.0)
    current_step = models.CharField(max_length=300, blank=True)
    total_steps = models.PositiveIntegerField(null=True, blank=True, help_text="Empty when it is not known.")
    completed_steps = models.PositiveIntegerField(default=0)
    problem_count = models.PositiveIntegerField(default=0, help_text="Items that failed while the job went on.")

    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True, help_text="Start of the latest attempt.")
    completed_at = models.DateTimeField(null=True, blank=True, help_text="When it ended, in whatever way.")
    progress_at = models.DateTimeField(null=True, blank=True, help_text="When work last moved on.")
    stalled_at = models.DateTimeField(null=True, blank=True, help_text="Since when it is known to be stalled; empty while it moves on.")
    run_after = models.DateTimeField(default=timezone.now, help_text="Not claimed before.")
    hold_reason = models.CharField(max_length=200, blank=True)
    waiting_since = models.FloatField(null=True, blank=True, help_text="Seconds since the epoch; counted up to then (jobs.timing).")
    queued_s = models.FloatField(null=True, blank=True, help_text="Seconds that it was due and waited; empty for jobs from before this.")
    held_s = models.FloatField(null=True, blank=True, help_text="Seconds that it was held.")
    estimated_duration = models.FloatField(null=True, blank=True, help_text="Seconds in all; empty when unknown.")

    memory_usage_mb = models.FloatField(null=True, blank=True)
    memory_peak_mb = models.FloatField(null=True, blank=True)
    cpu_usage_percent = models.FloatField(null=True, blank=True, help_text="Of one core.")
    memory_limit_mb = models.PositiveIntegerField(null=True, blank=True)
    time_limit_s = models.PositiveIntegerField(null=True, blank=True)
    cpu_limit_s = models.PositiveIntegerField(null=True, blank=True)

    result_data = models.JSONField(null=True, blank=True)
    error_message = models.TextField(blank=True)
    error_traceback = models.TextField(blank=True)
    error_kind = models.CharField(max_length=16, blank=True)
    error_advice = models.CharField(max_length=300, blank=True)
    failure = models.CharField(max_length=16, blank=True, help_text="Fingerprint of its error; empty when it has none.")
    retry_count = models.PositiveIntegerField(default=0, help_text="Counted failures; the budget of max_retries.")
    max_retries = models.PositiveIntegerField(default=4)

    worker_id = models.CharField(max_length=120, blank=True)
    attempt = models.PositiveIntegerField(default=0, help_text="Only grows: the fence against a late worker.")
    beat = models.PositiveIntegerField(default=0, help_text="The lease: raised every 2 s while a worker watches.")
    revision = models.PositiveBigIntegerField(default=0, help_text="Raised by each write that is published.")
    log_seq = models.PositiveIntegerField(default=0, help_text="Number of the last log line.")
    log_dropped = models.PositiveIntegerField(default=0, help_text="Lines over the limit: counted, not kept.")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_reason = models.CharField(max_length=300, blank=True)
    cancelled_by = models.CharField(max_length=150, blank=True)
    pause_requested_at = models.DateTimeField(null=True, blank=True, help_text="Asked to pause; on a waiting job: paused.")
    pause_reason = models.CharField(max_length=300, blank=True)
    paused_by = models.CharField(max_length=150, blank=True, help_text="Empty: it made way and goes on by itself.")
    continues_id = models.UUIDField(null=True, blank=True, help_text="The job whose work this one goes on with.")
    group = models.ForeignKey(JobGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="jobs")
    depends_on: Any = models.ManyToManyField(
        "self", symmetrical=False, through="JobDependency", through_fields=("job", "needs"), related_name="dependents"
    )
    blocked_by = models.PositiveIntegerField(default=0, help_text="How many jobs that it depends on are not over.")
    run_if_failed = models.BooleanField(default=False, help_text="Starts also when a job that it depends on failed or was cancelled.")
    keep = models.BooleanField(default=False, help_text="Cleanup leaves it alone.")

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        permissions = (
            ("view_all_jobs", "Can see the jobs of everybody"),
            ("start_urgent_jobs", "Can start jobs with the priority urgent"),
            ("raise_limits", "Can raise the limits of a job above those of its type"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(progress_percent__gte=0) & Q(progress_percent__lte=100), name="job_percent_0_to_100"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="job_status_is_legal"),
            models.CheckConstraint(condition=Q(priority__in=Priority.values), name="job_priority_is_legal"),
            models.CheckConstraint(
                condition=Q(status__in=sorted(ENDED), completed_at__isnull=False)
                | (~Q(status__in=sorted(ENDED)) & Q(completed_at__isnull=True)),
                name="job_ended_has_end_time",
            ),
            models.CheckConstraint(
                condition=Q(total_steps__isnull=True) | Q(completed_steps__lte=models.F("total_steps")),
                name="job_steps_within_total",
            ),
        )
        indexes = (
            models.Index(fields=("status", "-created_at"), name="job_status_created"),
            models.Index(fields=("job_type", "-created_at"), name="job_type_created"),
            models.Index(fields=("created_by", "-created_at"), name="job_creator_created"),
            models.Index(fields=("subject_id", "-created_at"), name="job_subject_created"),
            models.Index(fields=("-created_at", "-id"), name="job_created"),
            models.Index(fields=("-completed_at",), name="job_completed", condition=Q(completed_at__isnull=False)),
            # of those who see a part of the jobs: SQLite looks each part up by these, instead of walking all jobs of a status
            # the type is last: what is of another one is passed over without its row being read
            models.Index(fields=("created_by", "status", "-created_at", "job_type"), name="job_creator_state"),
            models.Index(fields=("subject_id", "status", "-created_at", "job_type"), name="job_subject_state"),
            models.Index(fields=("priority", "id"), name="job_priority"),
            models.Index(fields=("name", "id"), name="job_name"),
            models.Index(fields=("continues_id",), name="job_continues", condition=Q(continues_id__isnull=False)),
            models.Index(fields=("completed_at", "failure"), name="job_failed", condition=Q(status=Status.FAILED)),
            models.Index(fields=("queue_name", "priority", "run_after"), name="job_due", condition=CLAIMABLE),
            models.Index(
                fields=("queue_name", "priority", "created_by", "run_after"),
                name="job_due_by_creator",
                condition=CLAIMABLE,
            ),
        )

    # How it is shown, filled by jobs.presentation.decorate for the rows of a page; not stored.
    badge: Any
    sentence: str
    percent: float | None
    elapsed: float | None
    left: float | None
    type_label: str
    way: Any

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("job-detail", args=[self.pk])

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED


class JobDependency(models.Model):
    """`job` is held until `needs` is complete; `met` says that it waits for it no longer."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="dependencies", db_index=False)
    # keeps the id of an archived job, whose row is gone
    needs = models.ForeignKey(Job, on_delete=models.DO_NOTHING, db_constraint=False, related_name="needed_by")
    met = models.BooleanField(default=False)

    objects = OfJobQuerySet.as_manager()

    class Meta:
        ordering = ("job", "id")
        constraints = (models.UniqueConstraint(fields=("job", "needs"), name="dependency_once"),)

    def __str__(self) -> str:
        return f"{self.job_id} needs {self.needs_id}"


class JobAttempt(models.Model):
    """One run of a job by one worker."""

    class Outcome(models.TextChoices):
        RUNNING = "running", "Running"
        COMPLETED = "completed", "Completed"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"
        PUT_BACK = "put_back", "Put back"
        PAUSED = "paused", "Paused"
        LOST = "lost", "Lost"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.RUNNING)
    worker_id = models.CharField(max_length=120)
    host = models.CharField(max_length=120)
    process = models.JSONField(default=dict, blank=True, help_text="Session of the child: pid, start time, boot id.")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    error_kind = models.CharField(max_length=16, blank=True)
    error_message = models.TextField(blank=True)
    memory_peak_mb = models.FloatField(null=True, blank=True)
    cpu_seconds = models.FloatField(null=True, blank=True)
    samples = models.JSONField(default=list, blank=True, help_text="[seconds since start, MB, CPU % of a core], …")
    times = models.JSONField(default=dict, blank=True, help_text="Seconds by phase, stages and slowest hosts (jobs.timing).")

    objects = OfJobQuerySet.as_manager()

    class Meta:
        ordering = ("job", "number")
        constraints = (models.UniqueConstraint(fields=("job", "number"), name="attempt_once_per_number"),)

    chart: dict[str, Any]  # filled for its page; not stored

    def __str__(self) -> str:
        return f"Attempt {self.number} of {self.job_id}"

    @property
    def ran_s(self) -> float | None:
        """Seconds, of an attempt that has ended; never negative, whatever the clock did."""
        return max(0.0, (self.ended_at - self.started_at).total_seconds()) if self.ended_at else None


class JobItem(models.Model):
    """What became of one item of a job: a page, a document, a record. Written once per item and changed by a later try."""

    class Outcome(models.TextChoices):
        OK = "ok", "Done"
        FAILED = "failed", "Failed"
        SKIPPED = "skipped", "Skipped"

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="items", db_index=False)
    key = models.CharField(max_length=2000, help_text="Names the item within its job, such as an address.")
    outcome = models.CharField(max_length=7, choices=Outcome.choices)
    kind = models.CharField(max_length=16, blank=True, help_text="Kind of the error; empty unless failed.")
    reason = models.CharField(max_length=500, blank=True)
    failure = models.CharField(max_length=16, blank=True, help_text="Fingerprint of the reason; empty unless failed.")
    attempt = models.PositiveIntegerField(default=0)
    at = models.DateTimeField(default=timezone.now)

    objects = OfJobQuerySet.as_manager()

    class Meta:
        ordering = ("job", "id")
        constraints = (models.UniqueConstraint(fields=("job", "key"), name="item_once_per_key"),)
        indexes = (
            models.Index(fields=("job", "outcome", "id"), name="item_by_outcome"),
            models.Index(fields=("at", "failure"), name="item_failed", condition=Q(outcome="failed")),
        )

    def __str__(self) -> str:
        return f"{self.key[:80]}: {self.outcome}"


class FailureGroup(models.Model):
    """Failures of jobs and items that are alike (`jobs.failures`). What it says may come from a job of anybody, so it is
    shown only to people who may see a job that failed in this way."""

    fingerprint = models.CharField(primary_key=True, max_length=16, editable=False)
    kind = models.CharField(max_length=16)
    exception = models.CharField(max_length=100, blank=True)
    place = models.CharField(max_length=200, blank=True, help_text="The remote host, or the topmost frame of our own code.")
    text = models.CharField(max_length=300, help_text="The message, with … for what varies.")
    first_seen = models.DateTimeField(default=timezone.now)
    acknowledged_at = models.DateTimeField(null=True, blank=True, help_text="It needs nobody until it comes back after this.")
    acknowledged_by = models.CharField(max_length=150, blank=True)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ("-first_seen",)

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place and "/" not in self.place else self.text

    def get_absolute_url(self) -> str:
        return reverse("failure-detail", args=[self.pk])


class JobCheckpoint(models.Model):
    """A value that a handler keeps for its next attempt, written in the transaction of the work it stands for."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="checkpoints", db_index=False)
    key = models.CharField(max_length=200)
    value = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    attempt = models.PositiveIntegerField(default=0)
    at = models.DateTimeField(default=timezone.now)

    objects = OfJobQuerySet.as_manager()

    class Meta:
        ordering = ("job", "key")
        constraints = (models.UniqueConstraint(fields=("job", "key"), name="checkpoint_once_per_key"),)

    def __str__(self) -> str:
        return f"{self.job_id} {self.key}"


class JobLog(models.Model):
    """One line. `seq` counts within the job, over all its attempts, without holes."""

    Level = Level

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="logs", db_index=False)
    seq = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=0)
    level = models.PositiveSmallIntegerField(choices=Level.choices, default=Level.INFO)
    message = models.TextField()
    timestamp = models.DateTimeField(default=timezone.now)
    step_name = models.CharField(max_length=300, blank=True)
    data = models.JSONField(default=dict, blank=True)
    by = models.CharField(max_length=150, blank=True, help_text="The person who did what the line says, if one did.")

    objects = OfJobQuerySet.as_manager()

    class Meta:
        ordering = ("job", "seq")
        constraints = (models.UniqueConstraint(fields=("job", "seq"), name="log_once_per_seq"),)
        indexes = (
            models.Index(fields=("job", "level", "seq"), name="log_by_level"),
            models.Index(fields=("job", "seq"), name="log_of_people", condition=~Q(by="")),
        )

    def __str__(self) -> str:
        return f"{self.seq} {self.get_level_display()} {self.message[:80]}"


class JobText(models.Model):
    """What a search over all jobs finds: the name and parameters of a job, or a warning or error of its log."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="texts")
    scope = models.CharField(max_length=100, blank=True, help_text="Words for its creator and its subject (jobs.search).")
    text = models.TextField()

    objects = OfJobQuerySet.as_manager()

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.text[:80]


def artifact_path(artifact: "Artifact", filename: str) -> str:
    """Below the artifact folder by ids alone: a name given by a job never becomes part of a path."""
    return f"{artifact.job_id}/{artifact.id}"


class Artifact(models.Model):
    """A file that a job made: evidence, export, report. Its bytes are fixed by `sha256`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # keeps the id of an archived job, whose row is gone
    job = models.ForeignKey(Job, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="artifacts")
    subject_id = models.UUIDField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=200)
    media_type = models.CharField(max_length=100, default="application/octet-stream")
    file = models.FileField(upload_to=artifact_path, max_length=200)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OfSubjectQuerySet.as_manager()

    class Meta:
        ordering = ("created_at", "id")
        constraints = (models.UniqueConstraint(fields=("job", "name"), name="artifact_once_per_name"),)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("artifact", args=[self.pk])

    @classmethod
    def keep(cls, job: Job, path: Path, name: str, media_type: str) -> "Artifact":
        """Move a finished local file into the artifact store and record it.

        The row comes last, so that no half file is ever offered. A second file of the same name
        replaces the first (a retry writes the same output again).
        """
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = path.stat().st_size
            stream.seek(0)
            artifact = cls(
                job=job, subject_id=job.subject_id, attempt=job.attempt, name=name, media_type=media_type,
                size=size, sha256=digest,
            )  # fmt: skip
            place = artifact_path(artifact, name)
            try:
                artifact.file.save(name, File(stream), save=False)
            except BaseException:
                artifact.file.storage.delete(place)  # a full disk leaves a part of it
                raise
        old = cls.objects.filter(job=job, name=name).first()
        if old is not None:
            old.delete()
            old.file.delete(save=False)
        artifact.save(force_insert=True)
        path.unlink()
        return artifact


class Notification(models.Model):
    """One person is told of one end of one job, or of a group by the job that was its last."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="notifications")
    group = models.ForeignKey(JobGroup, null=True, blank=True, on_delete=models.CASCADE, related_name="notifications")
    attempt = models.PositiveIntegerField()
    status = models.CharField(max_length=9, choices=Status.choices)
    text = models.CharField(max_length=500)
    failure = models.CharField(max_length=16, blank=True, help_text="While it is unread, failures of this fingerprint are told in it.")
    count = models.PositiveIntegerField(default=1, help_text="Jobs that it tells of.")
    created_at = models.DateTimeField(default=timezone.now)
    read_at = models.DateTimeField(null=True, blank=True)
    mail_due_at = models.DateTimeField(null=True, blank=True, help_text="When a mail of it is tried next; empty when none is due.")
    mailed_at = models.DateTimeField(null=True, blank=True, help_text="When the mail of it was sent.")
    mail_tries = models.PositiveSmallIntegerField(default=0)
    mail_error = models.CharField(max_length=300, blank=True, help_text="Why the last try failed.")

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("user", "job", "attempt"), condition=~Q(status=Status.RUNNING), name="notification_once_per_attempt"
            ),
            models.UniqueConstraint(fields=("user", "job", "attempt"), condition=Q(status=Status.RUNNING), name="notification_of_stall"),
        )
        indexes = (
            models.Index(fields=("user", "-created_at"), name="notification_unread", condition=Q(read_at=None)),
            models.Index(fields=("mail_due_at",), name="notification_mail_due", condition=Q(mail_due_at__isnull=False)),
        )

    def __str__(self) -> str:
        return self.text

    def get_absolute_url(self) -> str:
        """To the line that matters, where there is one."""
        if self.count > 1:
            return reverse("failure-detail", args=[self.failure])
        if self.group_id:
            return reverse("group-detail", args=[self.group_id])
        line = {Status.FAILED: "?line=error", Status.RUNNING: "?line=warning"}.get(Status(self.status), "")
        return reverse("job-detail", args=[self.job_id]) + line


class MailWish(models.Model):
    """Of which ends a person wants mail: in general, or about the jobs of one subject."""

    class Mail(models.TextChoices):
        EACH = "each", "Of each end"
        FAILURES = "failures", "Of failures only"
        DIGEST = "digest", "Once a day, of all"
        NONE = "none", "None"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="mail_wishes")
    subject_id = models.UUIDField(null=True, blank=True, help_text="Empty: in general.")
    mail = models.CharField(max_length=8, choices=Mail.choices, default=Mail.FAILURES)
    quiet_from = models.TimeField(null=True, blank=True, help_text="No mail from then, in the zone below; in general only.")
    quiet_until = models.TimeField(null=True, blank=True)
    zone = models.CharField(max_length=64, default="UTC")
    language = models.CharField(max_length=8, default="en", help_text="In which mail is written; in general only.")

    class Meta:
        ordering = ("user", "subject_id")
        constraints = (
            models.UniqueConstraint(fields=("user",), condition=Q(subject_id=None), name="mail_wish_in_general"),
            models.UniqueConstraint(fields=("user", "subject_id"), name="mail_wish_of_subject"),
        )

    def __str__(self) -> str:
        return self.get_mail_display()


class SavedView(models.Model):
    """Filters and order of the job list that a person wants to come back to."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=2000, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = (models.UniqueConstraint(fields=("user", "name"), name="view_once_per_name"),)

    def __str__(self) -> str:
        return self.name


class WorkerProcess(models.Model):
    """A worker that is alive: its cluster refreshes `seen_at` every second while the process exists."""

    name = models.CharField(max_length=120, unique=True)
    queue_name = models.CharField(max_length=64)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    cluster = models.UUIDField()
    upkeep = models.CharField(max_length=64, blank=True, help_text="The scheduled task that it works on, if any.")
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "worker processes"

    def __str__(self) -> str:
        return self.name


class Archive(models.Model):
    """A file of archived jobs: compressed JSON lines, as `jobs.archive` writes and reads them."""

    name = models.CharField(max_length=200, unique=True, help_text="Below the archive folder.")
    sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField(help_text="Bytes.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name


class ArchivedJob(models.Model):
    """What stays of a job in the database once its rows are in an archive: enough to find it and to read its end."""

    id = models.UUIDField(primary_key=True, editable=False)
    archive = models.ForeignKey(Archive, on_delete=models.PROTECT, related_name="jobs")
    job_type = models.CharField(max_length=64)
    name = models.CharField(max_length=200)
    subject_id = models.UUIDField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="archived_jobs")
    status = models.CharField(max_length=9, choices=Status.choices)
    sentence = models.CharField(max_length=500, blank=True, help_text="How it ended, in words.")
    created_at = models.DateTimeField()
    completed_at = models.DateTimeField()
    archived_at = models.DateTimeField(default=timezone.now)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ("-completed_at", "-id")

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("job-detail", args=[self.pk])


class QueuePause(models.Model):
    """An administrator lets no job of a queue, or of a type, start. Running ones go on. Removing the row resumes."""

    class Scope(models.TextChoices):
        QUEUE = "queue", "Queue"
        TYPE = "type", "Job type"

    scope = models.CharField(max_length=5, choices=Scope.choices)
    name = models.CharField(max_length=64, help_text="Of the queue or of the job type.")
    reason = models.CharField(max_length=150, blank=True)
    paused_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("scope", "name")
        constraints = (models.UniqueConstraint(fields=("scope", "name"), name="pause_once"),)

    def __str__(self) -> str:
        return f"{self.get_scope_display()} {self.name}"


class TaskLock(models.Model):
    """Held by a scheduled task while it works, so that a second one of its kind does nothing."""

    name = models.CharField(max_length=64, primary_key=True)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


def as_uuid(value: Any) -> UUID:
    """A UUID from what a raw query returned: text on SQLite, a UUID on PostgreSQL."""
    return value if isinstance(value, UUID) else UUID(str(value))
