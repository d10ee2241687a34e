"""Server time of the pages with a million jobs and ten million log rows, for an administrator and for an analyst who may see one
in a hundred. Part of `make bench`; `python -m bench.pages [JOBS]` alone."""

import os
import random
import sys
import tempfile
import time
from datetime import datetime, timedelta
from typing import Any

from bench.common import ROOT, percentiles, say

JOBS = 1_000_000
LINES_A_JOB = 10
REPEATED = 30
SUBJECTS = 1_000  # of five the analyst is a member, which makes half of what they see; the other half is their own
BATCH = 20_000
AIM_MS = 100
# of a thousand jobs
STATUSES = ("COMPLETED",) * 960 + ("FAILED",) * 30 + ("CANCELLED",) * 9 + ("PENDING",)
TYPES = ("web_scraping", "entity_extraction", "duplicate_detection", "timeline_assembly", "data_export", "pdf_generation")
RESULT = {
    "documents": 9,
    "failed": 0,
    "entities": 3,
    "pairs": 2,
    "groups": 1,
    "events": 4,
    "files": [],
    "bytes": 0,
    "rows": 0,
    "duplicates": 0,
    "pages": 3,
    "to_review": 0,
    "sources": 4,
}
ERRORS = (
    "example{}.org does not answer in {} s",
    "Needed more memory than the {} MB it may use (peak {} MB)",
    "KeyError: 'field {} of {}'",
)


def fill(jobs: int, analyst: Any, others: list[Any], subjects: list[Any]) -> None:
    """The rows that years of use would leave, without the work."""
    from django.utils import timezone

    from jobs import failures, search
    from jobs.models import Job, JobAttempt, JobText

    rng = random.Random(6)
    now = timezone.now()
    for first in range(0, jobs, BATCH):
        rows, attempts = [], []
        for n in range(first, min(first + BATCH, jobs)):
            status = STATUSES[rng.randrange(1000)]
            created = now - timedelta(seconds=(jobs - n) * 30)
            ended = status not in ("PENDING", "RUNNING")
            error = ERRORS[n % 3].format(n % 40, n % 97) if status == "FAILED" else ""
            mark = failures.mark_of("transient", error) if error else None
            row = Job(
                job_type=TYPES[n % 6], name=f"Scrape {n % 900} pages of site{n % 5000}.example", status=status, priority=(n % 4) * 10,
                created_by=analyst if n % 200 == 0 else others[n % len(others)],
                subject_id=subjects[n // 7 % len(subjects)].pk, parameters={"urls": [f"https://site{n % 5000}.example/{n}"], "formats": [], "title": ""},
                created_at=created, run_after=created, started_at=created if ended else None, attempt=1 if ended else 0, log_seq=LINES_A_JOB,
                completed_at=created + timedelta(seconds=20) if ended else None, result_data=RESULT if status == "COMPLETED" else None,
                error_message=error, error_kind="transient" if error else "", failure=mark.fingerprint if mark else "", total_steps=10,
                completed_steps=10 if ended else 0, progress_percent=100.0 if status == "COMPLETED" else 0.0, revision=5,
            )  # fmt: skip
            rows.append(row)
            if mark:
                failures.keep([mark])
            if ended:
                attempts.append(
                    JobAttempt(
                        job=row, number=1, outcome=status.lower(), worker_id="w-1", host="w", started_at=created, ended_at=row.completed_at
                    )
                )
        Job.objects.bulk_create(rows, batch_size=500)
        JobText.objects.bulk_create([search.text_of(row) for row in rows], batch_size=1000)
        JobAttempt.objects.bulk_create(attempts, batch_size=1000)
        fill_logs(rows[0].created_at)


def fill_logs(since: datetime) -> None:
    """Ten lines a job created since then; every tenth job has a warning, a failed one ends with its error."""
    from django.db import connection

    new_id, numbers = (
        "lower(hex(randomblob(16)))",
        "WITH RECURSIVE numbers(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM numbers WHERE k < %s)",
    )
    if connection.vendor == "postgresql":
        new_id = "gen_random_uuid()"
    ours = "j.name LIKE 'Scrape %% pages of site%%.example'"  # other benchmarks leave jobs, too
    first = connection.ops.adapt_datetimefield_value(since)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""{numbers} INSERT INTO jobs_joblog (id, job_id, seq, attempt, level, message, timestamp, step_name, data, by)
            SELECT {new_id}, j.id, k, 1, CASE WHEN k = %s AND j.error_message <> '' THEN 40 WHEN k = 5 AND j.completed_steps = 10 AND j.total_steps = 10
                AND j.name LIKE '%%7 pages%%' THEN 30 ELSE 10 END,
                CASE WHEN k = %s AND j.error_message <> '' THEN j.error_message ELSE 'Fetched /' || k || ' of ' || j.name || ' 200 24 kB' END,
                j.created_at, '', '{{}}', ''
            FROM jobs_job j CROSS JOIN numbers WHERE {ours} AND j.created_at >= %s""",
            [LINES_A_JOB, LINES_A_JOB, LINES_A_JOB, first],
        )
        cursor.execute(
            f"""INSERT INTO jobs_jobtext (job_id, scope, text)
            SELECT j.id, 'zzu' || j.created_by_id || ' zzs' || replace(CAST(j.subject_id AS text), '-', ''), l.message
            FROM jobs_job j JOIN jobs_joblog l ON l.job_id = j.id WHERE l.level >= 30 AND {ours} AND j.created_at >= %s""",
            [first],
        )


def paths(user: Any) -> dict[str, str]:
    from jobs.models import Job

    mine = Job.objects.visible_to(user)
    last = mine.filter(status="COMPLETED").order_by("-created_at").first()
    failed = mine.filter(status="FAILED").order_by("-created_at").first()
    middle = mine.order_by("created_at")[int(mine.count() / 2)]
    return {
        "dashboard": "/",
        "list": "/jobs/",
        "list_in_the_middle": f"/jobs/?after={middle.pk}",
        "list_failed": "/jobs/?state=failed",
        "list_completed_of_a_type": f"/jobs/?state=completed&type={TYPES[1]}",
        "list_by_name": "/jobs/?sort=name",
        "list_by_end": "/jobs/?sort=-ended",
        "list_by_priority": "/jobs/?sort=-priority",
        "list_last_day": "/jobs/?since=24h&state=completed",
        "list_of_a_person": f"/jobs/?by={user.get_username()}",
        "search_common": "/jobs/?q=pages",
        "search_beginning": "/jobs/?q=page",
        "search_rare": "/jobs/?q=site4321",
        "search_nothing": "/jobs/?q=zzzzzz",
        "detail": f"/jobs/{last.pk}/",
        "detail_failed": f"/jobs/{failed.pk}/",
        "failures": "/failures/",
        "notifications": "/notifications/",
    }


def measure(user: Any, who: str) -> None:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(user)
    for name, path in paths(user).items():
        took = []
        for _ in range(REPEATED):
            began = time.perf_counter()
            answer = client.get(path)
            took.append(time.perf_counter() - began)
            if took[-1] > 3 and len(took) >= 3:
                break
        with CaptureQueriesContext(connection) as queries:
            client.get(path)
        slowest = max(queries.captured_queries, key=lambda q: float(q["time"]), default={"time": 0, "sql": ""})
        more = {"slowest_query_s": float(slowest["time"]), "sql": slowest["sql"][:300]} if "-v" in sys.argv else {}
        say(
            "page",
            who=who,
            page=name,
            status=answer.status_code,
            kb=len(answer.content) / 1000,
            queries=len(queries),
            aim_p95_ms=AIM_MS,
            **percentiles(took, 50, 95),
            **more,
        )


def pages(jobs: int = JOBS) -> None:
    from django.contrib.auth.models import User
    from django.db import connection

    import osint.asgi  # noqa: F401 - as the server loads what it answers with
    from jobs.models import JobLog
    from osint.models import Subject

    analyst = User.objects.create_user("analyst")
    others = [User.objects.create_user(f"person{n}") for n in range(50)]
    admin = User.objects.create_superuser("boss")
    subjects = [Subject.objects.create(name=f"Subject {n}", created_by=others[n % 50]) for n in range(SUBJECTS)]
    for subject in subjects[:: SUBJECTS // 5]:
        subject.members.add(analyst)
    began = time.perf_counter()
    fill(jobs, analyst, others, subjects)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    say("filled", jobs=jobs, log_rows=JobLog.objects.count(), seconds=time.perf_counter() - began)
    for user, who in ((admin, "sees all"), (analyst, "sees one in a hundred")):
        measure(user, who)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fieldwork-bench-") as state:
        os.environ |= {"STATE_DIR": os.environ.get("BENCH_STATE", state), "DJANGO_SETTINGS_MODULE": "bench.settings"}
        os.chdir(ROOT)
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        pages(int(next((a for a in sys.argv[1:] if a.isdigit()), JOBS)))


if __name__ == "__main__":
    main()
