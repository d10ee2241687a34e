"""`make bench`: figures as JSON lines, each beside the baseline it is to be read against.

Everything runs on a state folder of its own: SQLite by default, or the server that DATABASE_URL and
REDIS_URL name. Nothing here is asserted; a figure depends on the machine, which the first line names.
"""

import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT, free_port, peak_mb, percentiles, running, say, serve_articles, wait

# The measurement that the design was made with, on another machine of the same size.
PROTOTYPE = {"sqlite": 363, "postgresql": 217}


def fork_baseline() -> None:
    """What the kernel charges for a child of this size: fork, exit, wait, with nothing done in between."""
    started = time.perf_counter()
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    say("fork_and_exit_alone", ms=(time.perf_counter() - started) * 20, rss_mb=rss)


def enqueue(user: Any, jobs: int) -> None:
    from django.db import connection

    from jobs.manager import JobManager
    from jobs.models import Job

    manager = JobManager()
    started = time.perf_counter()
    for _ in range(jobs):
        manager.create_job("bench_noop", created_by=user)
    seconds = time.perf_counter() - started
    Job.objects.all().delete()
    rows = [[f"{n:032x}", "x"] for n in range(jobs)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_plain (id varchar(32) PRIMARY KEY, v text)")
        bare = time.perf_counter()
        for row in rows:
            cursor.execute("INSERT INTO bench_plain VALUES (%s, %s)", row)
        bare = time.perf_counter() - bare
        cursor.execute("DROP TABLE bench_plain")
    say("enqueue", per_s=jobs / seconds, baseline_single_row_inserts_per_s=jobs / bare)


def throughput(user: Any, jobs: int) -> None:
    """First enqueue to last end, a child per job, all rows written, two workers."""
    from django.db import connection

    from jobs.manager import JobManager
    from jobs.models import Job, WorkerProcess

    with running("jobcluster"):
        wait(lambda: WorkerProcess.objects.count() >= 2)
        JobManager().create_job("bench_noop", created_by=user)
        wait(lambda: not Job.objects.open().exists())
        started = time.perf_counter()
        for _ in range(jobs):
            JobManager().create_job("bench_noop", created_by=user)
        wait(lambda: not Job.objects.open().exists())
        rate = jobs / (time.perf_counter() - started)
        say("noop_jobs", per_s=rate, workers=2, jobs=jobs, prototype_per_s=PROTOTYPE.get(connection.vendor))
        latency(user)


def latency(user: Any, count: int = 60) -> None:
    """From before create_job to the handler's first line, nothing else waiting."""
    from jobs.manager import JobManager
    from jobs.models import Job

    waits = []
    for _ in range(count):
        started = time.time()
        job = JobManager().create_job("bench_start", created_by=user)
        wait(lambda job=job: Job.objects.ended().filter(pk=job.pk).exists())
        job.refresh_from_db()
        waits.append(job.result_data["started"] - started)
    say("idle_start", **percentiles(waits, 50, 95))


def steps(count: int = 10_000) -> None:
    from jobs.tracker import ChildOutlet, ProgressTracker, SharedPage

    reading, writing = os.pipe()
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", count, outlet=ChildOutlet(SharedPage(), writing))
    started = time.perf_counter()
    for _ in range(count):
        tracker.update_step("Counting")
    tracked = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(count):
        pass
    os.close(reading)
    os.close(writing)
    say("update_step", steps=count, ms=1000 * tracked, bare_loop_ms=1000 * (time.perf_counter() - started))


def sockets(user: Any) -> None:
    """Publish in this process, received by bare clients of a real web process."""
    from django.test import Client

    from jobs.manager import JobManager

    client = Client()
    client.force_login(user)
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    port = free_port()
    with running("up", "--port", str(port), "--no-workers"):
        wait(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        for clients in (1, 50, 200):
            job = JobManager().create_job("bench_noop", created_by=user)
            job = JobManager().start([job.pk], worker_id="bench", host="bench")
            url = f"ws://127.0.0.1:{port}/ws/jobs/{job.pk}"
            received, sent, ended = asyncio.run(watch_together(url, cookie, clients, job))
            figures = percentiles(received, 50, 95, 99) if received else {}
            dropped = sent * clients - len(received)
            say("publish_to_socket", sockets=clients, per_s=5, sent=sent * clients, dropped=dropped, saw_the_end=ended, **figures)


async def watch_together(url: str, cookie: str, clients: int, job: Any) -> tuple[list[float], int, int]:
    """Waits of all messages, how many were sent to each, and how many sockets saw the job end."""
    import websockets
    from asgiref.sync import sync_to_async

    waits: list[float] = []
    ended: set[int] = set()
    ready = asyncio.Semaphore(0)
    origin = url.split("/ws")[0].replace("ws", "http")

    async def one(number: int) -> None:
        async with websockets.connect(url, additional_headers={"Cookie": cookie}, origin=origin, open_timeout=60) as ws:
            await ws.recv()
            ready.release()
            async for text in ws:
                message = json.loads(text)
                if message["type"] == "job.progress":
                    waits.append(time.time() - message["sent"])
                elif message.get("job", {}).get("status") == "COMPLETED":
                    ended.add(number)

    watching = [asyncio.create_task(one(n)) for n in range(clients)]
    for _ in range(clients):
        await ready.acquire()
    sent = 40
    for n in range(sent):
        await sync_to_async(step)(job, n)
        await asyncio.sleep(0.2)  # the pace of the product itself
    await sync_to_async(complete)(job)
    until = time.monotonic() + 10
    while len(ended) < clients and time.monotonic() < until:
        await asyncio.sleep(0.05)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return waits, sent, len(ended)


def step(job: Any, number: int) -> None:
    """What a worker does for a step: the row, then the message."""
    from jobs.manager import JobManager
    from jobs.notifications import JobNotificationService
    from jobs.presentation import live_fields

    job.revision = JobManager().update_progress(job.pk, number, f"Step {number}", attempt=job.attempt)
    JobNotificationService().notify_progress_update_sync(job.pk, {**live_fields(job), "sent": time.time()})


def complete(job: Any) -> None:
    from jobs.manager import JobManager

    JobManager().mark_completed(job.pk, {}, attempt=job.attempt)


def scrape(user: Any, site: str) -> None:
    import trafilatura

    from jobs.manager import JobManager
    from jobs.models import Job, WorkerProcess
    from osint import sample_site

    started = time.perf_counter()
    for page in sample_site.PAGES.values():
        trafilatura.bare_extraction(sample_site.render(page), with_metadata=True)
    alone = len(sample_site.PAGES) / (time.perf_counter() - started)
    with running("jobcluster"):
        wait(lambda: WorkerProcess.objects.count() >= 2)
        urls = [f"{site}{path}?copy={n}" for n in range(6) for path in sample_site.PAGES]
        job = JobManager().create_job("web_scraping", parameters={"urls": urls, "delay_s": 0}, created_by=user)
        wait(lambda: Job.objects.ended().filter(pk=job.pk).exists())
        job.refresh_from_db()
        seconds = (job.completed_at - job.started_at).total_seconds()
        say("scrape_sample_site", pages=len(urls), pages_per_s=len(urls) / seconds, trafilatura_alone_pages_per_s=alone, status=job.status)


def recovery(user: Any) -> None:
    """With the product's own times: cancel, limit, a killed worker; each beside what it is bounded by."""
    from jobs import conf
    from jobs.manager import JobManager
    from jobs.models import Job, JobAttempt, WorkerProcess

    def running_job(kind: str) -> Any:
        job = JobManager().create_job(kind, created_by=user)
        wait(lambda: JobAttempt.objects.filter(job=job, process__pid__isnull=False, outcome="running").exists())
        return job

    with running("jobcluster", workers=3):
        wait(lambda: WorkerProcess.objects.count() >= 3)
        cancels = [cancel_to_gone(running_job("bench_wait")) for _ in range(20)]
        say("cancel_to_gone", **percentiles(cancels, 50, 95), aim_p95_ms=1000)
        grace = conf.get("cancel_grace_s") + conf.get("terminate_grace_s")
        say("cancel_to_gone_ignoring", seconds=cancel_to_gone(running_job("bench_stubborn")), grace_s=grace, aim_s=grace + 2)
        say("over_limit_to_ended", **percentiles([over_limit(user) for _ in range(5)], 50, 95), aim_ms=1000)
        waits = []
        for _ in range(3):
            job = running_job("bench_wait")
            os.kill(WorkerProcess.objects.get(name=Job.objects.get(pk=job.pk).worker_id).pid, signal.SIGKILL)
            began = time.monotonic()
            wait(lambda job=job: Job.objects.filter(pk=job.pk, attempt=2).exists())
            waits.append(time.monotonic() - began)
            cancel_to_gone(job)
        say("killed_worker_to_next_attempt", **percentiles(waits, 50, 95), aim_s=15)
        job = running_job("bench_wait")
        supervision(Job.objects.get(pk=job.pk))
        cancel_to_gone(job)


def cancel_to_gone(job: Any) -> float:
    from jobs.manager import JobManager
    from jobs.models import Job

    began = time.monotonic()
    JobManager().cancel_job(job.pk)
    wait(lambda: Job.objects.filter(pk=job.pk, status="CANCELLED").exists())
    return time.monotonic() - began


def over_limit(user: Any) -> float:
    """From the moment at which the handler passes its limit, by its own clock, to the end in the row."""
    from jobs.manager import JobManager
    from jobs.models import Job

    job = JobManager().create_job("bench_eater", created_by=user)
    wait(lambda: Job.objects.ended().filter(pk=job.pk).exists())
    job.refresh_from_db()
    passed = job.logs.get(message="At the limit").timestamp
    return (job.completed_at - passed).total_seconds()


def supervision(job: Any, seconds: float = 15) -> None:
    """CPU of the worker while it watches one job that does nothing."""
    import psutil

    from jobs.models import WorkerProcess

    worker = psutil.Process(WorkerProcess.objects.get(name=job.worker_id).pid)
    time.sleep(2)
    before = sum(worker.cpu_times()[:2])
    time.sleep(seconds)
    used = sum(worker.cpu_times()[:2]) - before
    say("supervision_of_a_running_job", cpu_percent_of_a_core=100 * used / seconds, aim_percent=1)


def cleanup(user: Any, jobs: int = 100_000, lines: int = 10) -> None:
    """Ended jobs with their log go to the archive, in a process of its own whose memory is measured."""
    from datetime import timedelta

    from django.utils import timezone

    from jobs.models import ArchivedJob, Job, JobLog

    Job.objects.all().delete()
    old = timezone.now() - timedelta(days=100)
    for first in range(0, jobs, 1000):
        rows = [
            Job(
                job_type="bench_noop", name=f"Job {n}", status="COMPLETED", created_by=user, created_at=old, completed_at=old,
                run_after=old, log_seq=lines,
            )
            for n in range(first, min(first + 1000, jobs))
        ]  # fmt: skip
        Job.objects.bulk_create(rows)
        JobLog.objects.bulk_create(JobLog(job=job, seq=n + 1, message=f"Line {n} of what it did") for job in rows for n in range(lines))
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "manage.py", "cleanup_jobs"], cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        time.sleep(0.05)
    seconds = time.monotonic() - began
    archived = ArchivedJob.objects.count()
    say(
        "cleanup", jobs=archived, log_rows=archived * lines, seconds=seconds, jobs_per_s=archived / seconds, peak_mb=peak,
        exit_status=process.returncode, bare_process_mb=django_mb(),
    )  # fmt: skip


def django_mb() -> float:
    code = "import django, os; django.setup(); from bench.common import peak_mb; print(peak_mb(os.getpid()))"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def idle_stack(seconds: float = 10) -> None:
    """The whole of `up` with ten workers and nothing to do. PSS shares what processes share."""
    import psutil

    from jobs.models import WorkerProcess

    with running("up", "--port", str(free_port()), workers=10) as process:
        wait(lambda: WorkerProcess.objects.count() >= 10)
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        time.sleep(2)
        before = sum(sum(p.cpu_times()[:2]) for p in tree)
        time.sleep(seconds)
        cpu = (sum(sum(p.cpu_times()[:2]) for p in tree) - before) / seconds * 100
        memory = [p.memory_full_info() for p in tree]
        say(
            "idle_stack",
            processes=len(tree),
            cpu_percent_of_a_core=cpu,
            pss_mb=sum(m.pss for m in memory) / 1e6,
            rss_mb=sum(m.rss for m in memory) / 1e6,
            bare_python_rss_mb=bare_python_mb(),
        )


def bare_python_mb() -> float:
    code = "print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fieldwork-bench-") as state:
        os.environ |= {"STATE_DIR": state, "DJANGO_SETTINGS_MODULE": "bench.settings"}
        os.chdir(ROOT)
        from osint import sample_site

        server, base = sample_site.serve()
        from bench import browser, pages, types

        gold = types.gold_folder()
        articles = serve_articles(gold / "articles" / "html") if gold else None
        os.environ["GOLD_SITE"] = f"http://127.0.0.1:{articles.server_address[1]}" if articles else ""
        allowed = [address.removeprefix("http://") for address in (base, os.environ["GOLD_SITE"]) if address]
        os.environ["FETCH_ALLOW_PRIVATE"] = ",".join(allowed)
        import django

        django.setup()
        from django.contrib.auth.models import User
        from django.core.management import call_command
        from django.db import connection

        from jobs import cluster, conf
        from jobs.models import WorkerProcess

        call_command("migrate", verbosity=0)
        cluster.prepare_process()
        conf.DEFAULTS["open_jobs_per_user_max"] = 1_000_000
        user, _ = User.objects.get_or_create(username="bench")
        say(
            "machine",
            python=platform.python_version(),
            cores=os.cpu_count(),
            kernel=platform.release(),
            database=connection.vendor,
            redis=bool(os.environ.get("REDIS_URL")),
            load=os.getloadavg()[0],
        )
        fork_baseline()
        enqueue(user, 500)
        steps()
        throughput(user, 600)
        sockets(user)
        scrape(user, base)
        recovery(user)
        cleanup(user)
        WorkerProcess.objects.all().delete()
        with running("jobcluster"):
            types.all_types(user)
        WorkerProcess.objects.all().delete()
        idle_stack()
        browser.main()
        pages.pages()
        server.shutdown()


if __name__ == "__main__":
    main()
