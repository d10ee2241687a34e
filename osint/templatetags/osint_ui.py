"""What templates about investigations need."""

from typing import Any

from django import forms, template
from django.db.models import QuerySet

from jobs.models import Job
from osint.models import Document, Entity, TimelineEvent
from osint.precision import when as exact_when

register = template.Library()


@register.simple_tag
def documents_of(job: Job, most: int) -> QuerySet[Document]:
    """The first documents of a job, without their texts."""
    return Document.objects.filter(job=job).only("id", "title", "url", "size", "published")[:most]


@register.filter
def when(event: TimelineEvent) -> str:
    """The date of an event, as exact as it is known."""
    return exact_when(event)


@register.filter
def type_label(kind: str) -> str:
    return str(Entity.Type(kind).label) if kind in Entity.Type.values else kind


@register.filter
def by_label(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Counts of types of entities with the names of these, most first."""
    return sorted(((type_label(kind), count) for kind, count in counts.items()), key=lambda row: -row[1])


@register.filter
def percent(share: float) -> str:
    return f"{share:.0%}"


@register.filter
def words(text: str) -> list[str]:
    return text.split()


@register.filter
def field(form: forms.Form, name: str) -> Any:
    return form[name]
