"""The investigation's data: subjects and what was found about them."""

from typing import Any, Self

from django.conf import settings
from django.db import models
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


def subjects_of(user: Any) -> SubjectQuerySet:
    """The subjects that a person may see; `settings.JOBS_SUBJECTS` names this function."""
    return Subject.objects.visible_to(user)


class Document(models.Model):
    """A page as it was captured, with the text that was read from it.

    Keyed by (job, requested URL): a retry keeps what is done and never doubles it.
    """

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

    objects = OfSubjectQuerySet.as_manager()

    class Meta:
        ordering = ("fetched_at", "id")
        constraints = (models.UniqueConstraint(fields=("job", "url"), name="document_once_per_job_and_url"),)
        indexes = (
            models.Index(fields=("subject", "fetched_at"), name="document_subject_time"),
            models.Index(fields=("sha256",), name="document_sha256"),
        )

    def __str__(self) -> str:
        return self.title or self.url

    def get_absolute_url(self) -> str:
        return reverse("document-detail", args=[self.pk])
