"""A whole investigation of a subject with one call: scrape, read, compare, date, export, report, as one group of jobs."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from jobs import registry
from jobs.manager import JobManager
from jobs.models import JobGroup
from jobs.states import Priority
from osint.models import Subject


def investigate(
    subject: Subject, *, scrape: Mapping[str, Any] | None = None, by: Any = None, priority: int = Priority.NORMAL, title: str = ""
) -> JobGroup:
    """Start it; the jobs depend on each other and run as far as they can at once.

    `scrape` holds the parameters of web_scraping; without it the documents that the subject has are investigated. What
    compares and dates may fail without taking export and report with it. Raises InvalidParameters or QuotaExceeded;
    nothing is made then.
    """
    manager = JobManager()
    cleaned = None if scrape is None else registry.get("web_scraping").clean(dict(scrape))  # looks hosts up: outside of the transaction
    with transaction.atomic():
        group = manager.create_group(f"Investigate {subject.name}", created_by=by, subject_id=subject.pk)
        common: dict[str, Any] = {"created_by": by, "subject_id": subject.pk, "group": group, "priority": priority}
        first = [manager.create_job("web_scraping", parameters=cleaned, checked=True, **common)] if cleaned is not None else []
        entities = manager.create_job("entity_extraction", depends_on=[job.pk for job in first], **common)
        timeline = manager.create_job("timeline_assembly", depends_on=[job.pk for job in first], **common)
        duplicates = manager.create_job("duplicate_detection", depends_on=[entities.pk], **common)
        found: dict[str, Any] = {"depends_on": [duplicates.pk, timeline.pk], "run_if_failed": True}
        manager.create_job("data_export", **found, **common)
        manager.create_job("pdf_generation", parameters={"title": title}, **found, **common)
    return group
