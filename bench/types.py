"""Speed and memory of the job types, each beside a plain peer in the same run. Part of `make bench`."""

import csv
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from bench.common import ROOT, peak_mb, say, wait
from bench.quality import add_documents, new_subject, run_job

RECORDS = 100_000
ROWS = 1_000_000
REPORT_DOCUMENTS = 2_600  # makes about two hundred pages


def gold_folder() -> Path | None:
    folder = Path(os.environ.get("GOLD", "../shared/data")).resolve()
    return folder if (folder / "articles" / "gold.json").exists() else None


def seconds_of(job: Any) -> float:
    return (job.completed_at - job.started_at).total_seconds()


def apart(code: str, *arguments: str) -> dict[str, Any]:
    """A peer in a process of its own, that prints one JSON object; {} with the reason when it cannot run here."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return (
        json.loads(lines[-1]) if done.returncode == 0 and lines else {"unavailable": (done.stderr.strip().splitlines() or ["?"])[-1][:120]}
    )


def gold_pages(user: Any, gold: Path, base: str) -> None:
    """Scrape of the gold pages against trafilatura alone on the same bytes, in the same run."""
    keys = list(json.loads((gold / "articles" / "gold.json").read_text()))
    subject = new_subject("Gold pages", user)
    job = run_job("web_scraping", subject, user, urls=[f"{base}/{key}" for key in keys], delay_s=0)
    peer = apart(TRAFILATURA, str(gold / "articles" / "html"))
    rate = len(keys) / seconds_of(job)
    say("scrape_gold_pages", pages_per_s=rate, trafilatura_alone_pages_per_s=peer.get("per_s"), times=rate / peer["per_s"], aim_times=1.5)


TRAFILATURA = """
import sys, time, gzip, json, pathlib, trafilatura
pages = [gzip.decompress(p.read_bytes()) for p in sorted(pathlib.Path(sys.argv[1]).glob("*.gz"))]
trafilatura.bare_extraction(pages[0])
began = time.perf_counter()
for page in pages:
    trafilatura.bare_extraction(page, with_metadata=True, include_comments=False)
print(json.dumps({"per_s": len(pages) / (time.perf_counter() - began)}))
"""


def entities(user: Any, gold: Path) -> None:
    """Characters a second of the whole job, with storing; a CRF alone on plain features beside it."""
    texts = [page["articleBody"] for page in json.loads((gold / "articles" / "gold.json").read_text()).values()] * 4
    subject = new_subject("Speed of entities", user)
    add_documents(subject, ((f"text {n}", text, "en") for n, text in enumerate(texts)))
    job = run_job("entity_extraction", subject, user)
    characters = sum(map(len, texts))
    say(
        "entity_extraction", characters=characters, characters_per_s=characters / seconds_of(job), aim=100_000, peak_mb=job.memory_peak_mb,
        spacy_characters_per_s=apart(SPACY, str(gold)).get("per_s", "not installed"),
    )  # fmt: skip


SPACY = """
import sys, time, json, spacy
nlp = spacy.load("en_core_web_sm", disable=["lemmatizer"])
texts = [p["articleBody"] for p in json.load(open(sys.argv[1] + "/articles/gold.json")).values()]
began = time.perf_counter()
list(nlp.pipe(texts))
print(json.dumps({"per_s": sum(map(len, texts)) / (time.perf_counter() - began)}))
"""


def duplicates(user: Any, count: int = RECORDS) -> None:
    """Records with copies that have typing errors, against recordlinkage on the tenth part of them."""
    from faker import Faker

    from osint.models import Entity

    faker = Faker("en_AU")
    faker.seed_instance(5)
    subject = new_subject("Records", user)
    rows = []
    for n in range(count):
        if n % 10 == 9:
            row = dict(rows[-1 - n % 7])
            row["surname"] = row["surname"][:-1] + "x"
        else:
            row = {
                "given_name": faker.first_name(), "surname": faker.last_name(), "street": faker.street_name(), "suburb": faker.city(),
                "postcode": faker.postcode(), "date_of_birth": faker.date_of_birth().strftime("%Y%m%d"), "number": str(faker.random_int(10**6, 10**7 - 1)),
            }  # fmt: skip
        rows.append(row)
    made = (Entity(subject=subject, type="record", key=f"{n:08d}", name=row["surname"], properties=row) for n, row in enumerate(rows))
    Entity.objects.bulk_create(made, batch_size=500)
    with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows[: count // 10])
        stream.flush()
        peer = apart(RECORDLINKAGE, stream.name)
    del rows
    gc.collect()
    job = run_job("duplicate_detection", subject, user, documents=False)
    say(
        "duplicate_detection", records=count, seconds=seconds_of(job), aim_s=60, peak_mb=job.memory_peak_mb, aim_mb=1024, pairs=job.result_data["pairs"],
        recordlinkage_on_a_tenth_s=peer.get("seconds", peer.get("unavailable")),
    )  # fmt: skip


RECORDLINKAGE = """
import sys, time, json, pandas, recordlinkage
frame = pandas.read_csv(sys.argv[1], dtype=str)
began = time.perf_counter()
index = recordlinkage.Index()
for name in ("surname", "given_name", "date_of_birth", "number"):
    index.block(name)
pairs = index.index(frame)
compare = recordlinkage.Compare()
for name in frame.columns:
    compare.string(name, name, method="jarowinkler")
compare.compute(pairs, frame)
print(json.dumps({"seconds": time.perf_counter() - began, "pairs": len(pairs)}))
"""


def export(user: Any, rows: int = ROWS) -> None:
    """A million mentions as CSV, against the csv module alone writing as many rows of the same width."""
    from osint.models import Document, Entity, Mention

    subject = new_subject("Export", user)
    add_documents(subject, [("https://site.example/", "x" * 100, "en")])
    document = Document.objects.get(subject=subject)
    entity = Entity.objects.create(subject=subject, type="person", key="k", name="Anna Keller")
    for first in range(0, rows, 10_000):
        Mention.objects.bulk_create(
            [
                Mention(entity=entity, document=document, start=n, end=n + 11, text="Anna Keller", engine="crf-00000000", score=0.97)
                for n in range(first, first + 10_000)
            ],
            batch_size=5_000,
        )
    job, rss = watched(subject, user)
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile("w", newline="") as stream:
        writer = csv.writer(stream)
        for n in range(rows):
            writer.writerow([entity.pk, document.pk, n, n + 11, "Anna Keller", "crf-00000000", 0.97])
    alone = time.perf_counter() - began
    say(
        "data_export_csv", rows=rows, seconds=seconds_of(job), aim_s=30, peak_rss_mb=rss, aim_mb=150, of_its_own_mb=job.memory_peak_mb,
        csv_module_alone_s=alone, with_the_zip=True,
    )  # fmt: skip
    Mention.objects.filter(entity=entity).delete()


def watched(subject: Any, user: Any) -> tuple[Any, float]:
    """The export job, and the largest resident size of its process, shared libraries included."""
    from jobs.manager import JobManager
    from jobs.models import Job, JobAttempt

    job = JobManager().create_job("data_export", parameters={"formats": ["csv"]}, created_by=user, subject_id=subject.pk)
    process = wait(lambda: (JobAttempt.objects.filter(job=job).values_list("process", flat=True).first() or {}).get("pid"))
    largest = 0.0
    while not Job.objects.ended().filter(pk=job.pk).exists():
        largest = max(largest, peak_mb(process))
        time.sleep(0.2)
    job.refresh_from_db()
    return job, largest


def report(user: Any) -> None:
    """A report of about two hundred pages, against WeasyPrint on an HTML table with as many documents."""
    subject = new_subject("Report", user)
    add_documents(
        subject, ((f"https://site.example/{n}", f"Statement {n} about the sale of two carriers", "en") for n in range(REPORT_DOCUMENTS))
    )
    job = run_job("pdf_generation", subject, user)
    peer = apart(WEASYPRINT, str(REPORT_DOCUMENTS))
    say(
        "pdf_generation", pages=job.result_data["pages"], seconds=seconds_of(job), aim_s=10, peak_mb=job.memory_peak_mb,
        weasyprint_s=peer.get("seconds", peer.get("unavailable")), weasyprint_pages=peer.get("pages"),
    )  # fmt: skip


WEASYPRINT = """
import sys, time, json, weasyprint
count = int(sys.argv[1])
row = "<p><b>{0}</b><br>https://site.example/{0}<br>Captured 2026-11-25<br><small>SHA-256 {0:064d}</small></p>"
rows = "".join(row.format(n) for n in range(count))
began = time.perf_counter()
document = weasyprint.HTML(string=f"<h1>Report</h1>{rows}").render()
document.write_pdf()
print(json.dumps({"seconds": time.perf_counter() - began, "pages": len(document.pages)}))
"""


def all_types(user: Any) -> None:
    """With workers running. What needs the gold data is left out, in words, where they are not."""
    warnings.simplefilter("ignore")
    gold = gold_folder()
    if gold is None:
        say("gold_data", missing="no scrape of gold pages and no speed of entities; say where they are with GOLD=folder")
    else:
        gold_pages(user, gold, os.environ["GOLD_SITE"])
        entities(user, gold)
    duplicates(user)
    export(user)
    report(user)
