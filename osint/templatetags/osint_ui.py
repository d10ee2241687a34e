"""What templates about investigations need."""

from django import template
from django.db.models import QuerySet

from jobs.models import Job
from osint.models import Document

register = template.Library()


@register.simple_tag
def documents_of(job: Job, most: int) -> QuerySet[Document]:
    """The first documents of a job, without their texts."""
    return Document.objects.filter(job=job).only("id", "title", "url", "size", "published")[:most]
