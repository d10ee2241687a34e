"""The investigation's data: subjects and what was found about them.

Every row says which job and attempt made it; the ids of archived jobs stay.
"""

from typing import Any, Self
from uuid import UUID

from django.conf import settings
from django.db import connection, models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from jobs.ids import uuid7
from jobs.models import Artifact, Job
from jobs.queries import OfSubjectQuerySet


class SubjectQuerySet(models.QuerySet):
    def visible_to(self, user: Any) -> Self:
        """Subjects that a person made or is a member of; all for those with `osint.view_all_subjects`."""
        if user is None or not user.is_authenticated or not user.is_active:
            return self.none()
        if user.has_perm("osint.view_all_subjects"):
            return self
        members = Subject.members.through.objects.filter(user=user).values("subject_id")
        return self.filter(Q(created_by=user) | Q(pk__in=members))


class Subject(models.Model):
    """Somebody or something that is investigated. Its members see its jobs and documents."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    notes = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="subjects")
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="member_of")
    created_at = models.DateTimeField(default=timezone.now)

    objects = SubjectQuerySet.as_manager()

    class Meta:
        ordering = ("name", "id")
        permissions = (("view_all_subjects", "Can see the subjects of everybody"),)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("subject-detail", args=[self.pk])


def subject_of(job: Job) -> UUID:
    """The subject of a job whose type needs one: JobManager makes no such job without it."""
    assert job.subject_id is not None
    return job.subject_id


def lock_subject(subject_id: UUID | None) -> None:
    """First thing in a transaction that stores results: jobs on the same subject store one after the other.

    Transactions on SQLite are IMMEDIATE, so there they do anyway.
    """
    if subject_id is not None and connection.features.has_select_for_update:
        Subject.objects.select_for_update().filter(pk=subject_id).values_list("pk").first()


def subjects_of(user: Any) -> SubjectQuerySet:
    """The subjects that a person may see; `settings.JOBS_SUBJECTS` names this function."""
    return Subject.objects.visible_to(user)


class MadeByJob(models.Model):
    """What every result carries: the job and the attempt that made it."""

    # keeps the id of an archived job, whose row is gone
    job = models.ForeignKey(Job, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    attempt = models.PositiveIntegerField(default=0)

    class Meta:
        abstract = True


def upload_path(upload: "Upload", filename: str) -> str:
    """By id alone: a name given by a person never becomes part of a path."""
    return f"uploads/{upload.id}"


class Upload(models.Model):
    """A file of a person's own, as it was given: the evidence of the documents that are read from it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="uploads")
    name = models.CharField(max_length=200)
    file = models.FileField(upload_to=upload_path, max_length=200)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="uploads")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("upload", args=[self.pk])


class Document(models.Model):
    """A page or a file as it was captured, with the text that was read from it.

    Keyed by (job, requested URL): a retry keeps what is done and never doubles it. A later capture of the same
    URL for the same subject is `is_current` instead of the earlier one, and says what has changed.
    """

    class Problem(models.TextChoices):
        """Why a page that was answered is not what was asked for (osint.walls)."""

        NONE = "", "None"
        CHALLENGE = "challenge", "Blocked: asks to prove that you are human"
        LOGIN = "login", "Blocked: asks to sign in"
        CONSENT = "consent", "Blocked: asks for consent first"
        JAVASCRIPT = "javascript", "Needs a browser: its text is made by JavaScript"
        EMPTY = "empty", "Empty: no text in it"
        UNREADABLE = "unreadable", "Could not be read"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    subject = models.ForeignKey(Subject, null=True, blank=True, on_delete=models.CASCADE, related_name="documents")
    # keeps the id of an archived job, whose row is gone
    job = models.ForeignKey(Job, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="documents")
    attempt = models.PositiveIntegerField()
    url = models.CharField(max_length=2000, help_text="As it was asked for.")
    final_url = models.CharField(max_length=2000, help_text="After redirects.")
    http_status = models.PositiveSmallIntegerField()
    headers = models.JSONField(default=list, help_text="[name, value] pairs of the response, in order.")
    content_type = models.CharField(max_length=200, blank=True)
    charset = models.CharField(max_length=40, blank=True)
    size = models.PositiveIntegerField(help_text="Bytes of the body as sent.")
    sha256 = models.CharField(max_length=64, help_text="Of the raw body as sent.")
    fetched_at = models.DateTimeField()
    title = models.CharField(max_length=500, blank=True)
    author = models.CharField(max_length=300, blank=True)
    published = models.CharField(max_length=40, blank=True, help_text="Date of publication as the page states it.")
    language = models.CharField(max_length=12, blank=True)
    text = models.TextField(blank=True)
    links = models.JSONField(default=list)
    warc = models.ForeignKey(Artifact, null=True, blank=True, on_delete=models.SET_NULL, related_name="documents")
    upload = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.SET_NULL, related_name="documents")
    problem = models.CharField(max_length=12, choices=Problem.choices, blank=True)
    canonical_url = models.CharField(max_length=2000, blank=True, help_text="As the page names itself.")
    is_current = models.BooleanField(default=True, help_text="No later capture of the same address for the subject.")
    previous = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="later")
    diff = models.TextField(blank=True, help_text="What changed in the text since the previous capture.")
    extracted_by = models.CharField(max_length=60, blank=True, help_text="Version of the engines that read its entities.")

    objects = OfSubjectQuerySet.as_manager()

    class Meta:
        ordering = ("fetched_at", "id")
        constraints = (
            models.UniqueConstraint(fields=("job", "url"), name="document_once_per_job_and_url"),
            models.UniqueConstraint(fields=("subject", "url"), condition=Q(is_current=True), name="one_current_document"),
        )
        indexes = (
            models.Index(fields=("subject", "fetched_at"), name="document_subject_time"),
            models.Index(fields=("sha256",), name="document_sha256"),
            models.Index(fields=("subject", "url", "fetched_at"), name="document_captures"),
        )

    def __str__(self) -> str:
        return self.title or self.url

    def get_absolute_url(self) -> str:
        return reverse("document-detail", args=[self.pk])


class HostTurn(models.Model):
    """When a host may be asked next: one row for all jobs and workers, so that together they are as polite as one."""

    origin = models.CharField(max_length=300, primary_key=True, help_text="scheme://host:port")
    next_at = models.FloatField(help_text="Seconds since the epoch.")

    def __str__(self) -> str:
        return self.origin


class OfSubject(models.QuerySet):
    """Results that belong to a subject: seen by its members."""

    def visible_to(self, user: Any) -> Self:
        return self.filter(subject__in=Subject.objects.visible_to(user))


class Entity(MadeByJob):
    """Somebody or something that documents name, once per subject, however often it is named.

    `key` is the normalised form by which mentions are the same entity. Types map to FollowTheMoney and STIX
    in `osint.schemas`.
    """

    class Type(models.TextChoices):
        PERSON = "person", "Person"
        ORGANISATION = "organisation", "Organisation"
        PLACE = "place", "Place"
        DATE = "date", "Date"
        EMAIL = "email", "E-mail address"
        PHONE = "phone", "Phone number"
        URL = "url", "Web address"
        DOMAIN = "domain", "Domain"
        IPV4 = "ipv4", "IPv4 address"
        IPV6 = "ipv6", "IPv6 address"
        MD5 = "md5", "MD5"
        SHA1 = "sha1", "SHA-1"
        SHA256 = "sha256", "SHA-256"
        CVE = "cve", "Vulnerability (CVE)"
        BTC = "btc", "Bitcoin address"
        ETH = "eth", "Ethereum address"
        IBAN = "iban", "Bank account (IBAN)"
        HANDLE = "handle", "Social handle"
        COORDINATES = "coordinates", "Coordinates"
        RECORD = "record", "Record of a table"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="entities")
    type = models.CharField(max_length=12, choices=Type.choices)
    key = models.CharField(max_length=300)
    name = models.CharField(max_length=300)
    properties = models.JSONField(default=dict, blank=True)
    mention_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OfSubject.as_manager()

    class Meta:
        ordering = ("-mention_count", "name", "id")
        verbose_name_plural = "entities"
        constraints = (models.UniqueConstraint(fields=("subject", "type", "key"), name="entity_once"),)
        indexes = (models.Index(fields=("subject", "type", "-mention_count"), name="entity_by_type"),)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("entity-detail", args=[self.pk])


class Mention(MadeByJob):
    """Where a document names an entity: `document.text[start:end]`."""

    id = models.BigAutoField(primary_key=True)
    entity = models.ForeignKey(Entity, on_delete=models.CASCADE, related_name="mentions")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="mentions")
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    text = models.CharField(max_length=2000)
    engine = models.CharField(max_length=60, help_text="What found it.")
    score = models.FloatField(help_text="From 0 to 1: how sure the engine is.")

    class Meta:
        ordering = ("document", "start", "id")
        constraints = (models.UniqueConstraint(fields=("document", "start", "end", "entity"), name="mention_once"),)

    def __str__(self) -> str:
        return f"{self.text[:80]} at {self.start}"


class TimelineEvent(MadeByJob):
    """Something that happened, as one or more documents report it: from `begins` to `ends`, both included.

    The dates are no more exact than `precision` says.
    """

    class Precision(models.TextChoices):
        TIME = "time", "to the minute"
        DAY = "day", "to the day"
        WEEK = "week", "to the week"
        MONTH = "month", "to the month"
        QUARTER = "quarter", "to the quarter"
        SEASON = "season", "to the season"
        PART = "part", "to a part of the year"
        YEAR = "year", "to the year"
        DECADE = "decade", "to the decade"

    id = models.UUIDField(primary_key=True, editable=False)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="events")
    begins = models.DateField()
    ends = models.DateField()
    clock = models.CharField(max_length=5, blank=True, help_text="Time of day, such as 14:05, if it was stated.")
    precision = models.CharField(max_length=8, choices=Precision.choices)
    title = models.CharField(max_length=300)
    source_count = models.PositiveIntegerField(default=1)

    objects = OfSubject.as_manager()

    class Meta:
        ordering = ("begins", "clock", "ends", "id")
        indexes = (models.Index(fields=("subject", "begins"), name="event_subject_time"),)

    def __str__(self) -> str:
        return f"{self.begins}: {self.title}"


class EventSource(MadeByJob):
    """One sentence of one document that dates an event: `document.text[start:end]` is the date as it is written."""

    id = models.BigAutoField(primary_key=True)
    event = models.ForeignKey(TimelineEvent, null=True, on_delete=models.SET_NULL, related_name="sources")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="dated")
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    text = models.CharField(max_length=200)
    sentence = models.TextField()
    begins = models.DateField()
    ends = models.DateField()
    clock = models.CharField(max_length=5, blank=True)
    precision = models.CharField(max_length=8, choices=TimelineEvent.Precision.choices)
    rule = models.CharField(max_length=12, help_text="absolute, partial, relative or range.")
    note = models.CharField(max_length=200, blank=True, help_text="What was assumed to read it.")

    class Meta:
        ordering = ("document", "start")
        constraints = (models.UniqueConstraint(fields=("document", "start", "end"), name="event_source_once"),)

    def __str__(self) -> str:
        return self.text


class DuplicateGroup(MadeByJob):
    """Documents or entities that are likely the same: pairs that hang together."""

    id = models.UUIDField(primary_key=True, editable=False)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="duplicate_groups")
    kind = models.CharField(max_length=8, choices=(("document", "Documents"), ("entity", "Entities")))
    step = models.CharField(max_length=9, help_text="Which comparison found it: documents, names or records.")
    name = models.CharField(max_length=300)
    size = models.PositiveIntegerField()

    objects = OfSubject.as_manager()

    class Meta:
        ordering = ("-size", "name", "id")

    def __str__(self) -> str:
        return f"{self.name} ({self.size})"


class DuplicatePair(MadeByJob):
    """Two documents or entities that are likely the same, with the reasons; a person's decision outlives every run."""

    class Decision(models.TextChoices):
        OPEN = "", "Not decided"
        SAME = "same", "The same"
        DIFFERENT = "different", "Not the same"

    id = models.UUIDField(primary_key=True, editable=False)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="duplicate_pairs")
    kind = models.CharField(max_length=8, choices=DuplicateGroup._meta.get_field("kind").choices)
    step = models.CharField(max_length=9, help_text="Which comparison found it: documents, names or records.")
    left = models.UUIDField(help_text="The smaller id.")
    right = models.UUIDField()
    score = models.FloatField()
    reasons = models.JSONField(default=list)
    group = models.ForeignKey(DuplicateGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="pairs")
    decision = models.CharField(max_length=9, choices=Decision.choices, blank=True)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)

    objects = OfSubject.as_manager()

    class Meta:
        ordering = ("-score", "id")
        constraints = (models.UniqueConstraint(fields=("subject", "kind", "left", "right"), name="duplicate_pair_once"),)
        indexes = (models.Index(fields=("subject", "kind", "decision", "-score"), name="pair_to_review"),)

    def __str__(self) -> str:
        return f"{self.left} = {self.right}? {self.score:.2f}"
