"""The guide to job types tells the truth."""

import re

from jobs import registry
from jobs.manager import JobManager
from jobs.tests.fixtures import ROOT
from jobs.tracker import ProgressTracker
from osint.models import Document

GUIDE = ROOT / "docs" / "adding-a-job-type.md"


def test_the_guide_is_short_and_its_code_runs(analyst):
    """As it stands in the page: registered, run, and its result is right."""
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(GUIDE.read_text().splitlines()) < 60
    exec(compile(code, "word_count.py", "exec"), {"__name__": "word_count"})
    try:
        kind = registry.get("word_count")
        job = JobManager().create_job("word_count", created_by=analyst)
        JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
        for number, text in enumerate(("three small words here", "", "more")):
            Document.objects.create(
                job=job,
                url=f"https://a.example/{number}",
                title="",
                text=text,
                attempt=1,
                http_status=200,
                size=0,
                fetched_at=job.created_at,
            )
        with ProgressTracker(job.pk, attempt=1) as tracker:
            result = kind.handler(tracker, job.parameters)
        assert (result, kind.summary(result), job.name) == ({"words": 5}, "5 words", "Count words from 4 letters")
        assert set(job.items.values_list("outcome", flat=True)) == {"ok", "skipped"}
        assert kind.handler(ProgressTracker(job.pk, attempt=1), job.parameters) == {"words": 5}
    finally:
        registry.unregister("word_count")
