"""`make chaos`: hundreds of jobs on a real stack of which something is killed every other second; then the books are checked.

PostgreSQL, Redis, two clusters and the web process are its own. All that is random comes from the seed, which is
printed: the same seed makes the same jobs and the same faults at the same times. What the machine does in between is
its own affair, so a seed that failed may have to be run more than once.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.tests.servers import CannotHave, Servers, free_port

ROOT = Path(__file__).resolve().parents[2]
PLACES = 4  # of each cluster
END_S = 240.0  # after the last fault, for all jobs to reach their end
TIMES = {
    "max_concurrent_jobs": PLACES, "watch_interval_s": 0.1, "sample_interval_s": 0.5, "beat_interval_s": 0.5, "lease_s": 4.0,
    "lease_giveup_s": 3.0, "cancel_grace_s": 0.5, "terminate_grace_s": 0.5, "drain_s": 2.0, "tick_s": 0.5, "worker_gone_s": 5.0,
    "retry_delays_s": [1, 2, 3], "urgent_wait_s": 2.0, "poison_max": 20, "reserved_slots": 0, "cpu_threshold": 1000.0, "memory_floor_mb": 1,
    "memory_guess_mb": 1, "disk_floor_mb": 1, "open_jobs_per_user_max": 10_000,
}  # fmt: skip

# Each fault with how often it is drawn.
FAULTS = {
    "kill a child": 6, "kill a worker": 4, "kill a sentinel": 2, "kill a cluster": 2, "drain a cluster": 2, "kill the web": 2,
    "kill Redis": 1, "stop PostgreSQL": 2, "kill PostgreSQL": 2, "cancel a job": 5, "pause a job": 3, "retry a failed job": 3,
}  # fmt: skip


@dataclass
class Plan:
    """What happens, from the seed alone. Times are seconds from the start; a number chooses among what is there then."""

    jobs: list[tuple[float, str, dict[str, Any]]]
    faults: list[tuple[float, str, float]]

    @classmethod
    def of(cls, seed: int, jobs: int, seconds: float) -> "Plan":
        rng = random.Random(seed)
        names, weights = list(FAULTS), list(FAULTS.values())
        faults, at = [], 3.0
        while at < seconds:
            faults.append((at, rng.choices(names, weights)[0], rng.random()))
            at += rng.uniform(0.5, 3.5)
        made = [(rng.uniform(0, seconds * 0.4), *cls.job(rng)) for _ in range(jobs)]
        return cls(sorted(made, key=lambda job: job[0]), faults)

    @staticmethod
    def job(rng: random.Random) -> tuple[str, dict[str, Any]]:
        priority = rng.choice([0, 10, 10, 10, 20, 30])
        kind = rng.choices(["items", "scrape", "transient", "permanent", "segfault", "stubborn"], [60, 15, 8, 7, 3, 7])[0]
        if kind == "items":
            total = rng.randint(1, 40)
            fails = {f"item {n}": rng.choice(["permanent", "transient"]) for n in range(1, total + 1) if rng.random() < 0.05}
            fails = fails if len(fails) < total else {}
            return "sample_journal", {"parameters": {"total": total, "step_s": rng.uniform(0, 0.15), "fails": fails}, "priority": priority}
        if kind == "scrape":
            return "web_scraping", {"parameters": {"pages": rng.randint(3, 40)}, "priority": priority}
        if kind == "segfault":
            return "sample_segfault", {"max_retries": 2, "priority": priority}
        if kind == "stubborn":
            return "sample_stubborn", {"parameters": {"seconds": rng.uniform(0.5, 4)}, "priority": priority}
        return "sample_steps", {
            "parameters": {"total": 3, "fail_at": 2, "error": kind}, "max_retries": rng.randint(0, 2), "priority": priority,
        }  # fmt: skip


@dataclass
class Stack:
    """The processes, which this one starts again when they end, as compose or systemd would."""

    folder: Path
    servers: Servers
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        self.processes: dict[str, subprocess.Popen] = {}
        self.lock = threading.Lock()
        self.watch = threading.Thread(target=self.keep_running, daemon=True)

    def command(self, name: str) -> list[str]:
        if name == "web":
            return ["up", "--no-workers", "--port", str(self.port)]
        return ["jobcluster", "--queue", "default"]

    def start(self) -> None:
        for name in ("web", "cluster 1", "cluster 2"):
            self.start_one(name)
        self.watch.start()

    def start_one(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "manage.py", *self.command(name)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def keep_running(self) -> None:
        while not self.closing.wait(0.5):
            for name, process in list(self.processes.items()):
                if process.poll() is not None:
                    self.start_one(name)

    def kill(self, name: str) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)

    def stop(self) -> dict[str, int]:
        """The exit status of each process after SIGTERM."""
        self.closing.set()
        self.watch.join()
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(60) for name, process in self.processes.items()}


class Chaos:
    def __init__(self, seed: int, plan: Plan, stack: Stack, user: Any, site: str) -> None:
        self.seed, self.plan, self.stack, self.user, self.site = seed, plan, stack, user, site
        self.cancelled: dict[Any, bool] = {}  # what whoever cancelled was told
        self.paused: set[Any] = set()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    # -- the run ----------------------------------------------------------------------------------

    def run(self) -> None:
        from jobs.models import Job

        began = time.monotonic()
        events = [(at, self.create, (kind, options)) for at, kind, options in self.plan.jobs]
        events += [(at, self.fault, (name, number)) for at, name, number in self.plan.faults]
        for at, do, arguments in sorted(events, key=lambda event: event[0]):
            while (left := began + at - time.monotonic()) > 0:
                time.sleep(min(left, 0.5))
            do(*arguments)
        print(f"{len(self.plan.faults)} faults: " + ", ".join(f"{name} {n}" for name, n in sorted(self.done.items())), flush=True)
        for job_id in self.paused:
            self.patiently(lambda job_id=job_id: manager().resume_job(job_id, by=self.user))
        until = time.monotonic() + END_S
        while self.patiently(lambda: Job.objects.open().exists()):
            if time.monotonic() > until:
                left = list(Job.objects.open().values_list("pk", "job_type", "status", "hold_reason", "worker_id", "attempt"))
                self.problems.append(f"{len(left)} jobs did not reach an end: {left[:5]}")
                return
            time.sleep(0.5)

    def create(self, kind: str, options: dict[str, Any]) -> None:
        options = {**options, "parameters": dict(options.get("parameters", {}))}
        if kind == "web_scraping":
            pages = options["parameters"].pop("pages")
            options["parameters"] = {"urls": [f"{self.site}/about?page={n}" for n in range(pages)], "delay_s": 0}
        elif kind == "sample_journal":
            options["parameters"]["journal"] = str(self.stack.folder / "journal")
        self.patiently(lambda: manager().create_job(kind, created_by=self.user, **options))

    def fault(self, name: str, number: float) -> None:
        from django.db import DatabaseError, InterfaceError

        method = getattr(self, name.replace(" ", "_").lower())
        try:
            done = method(number)
        except (DatabaseError, InterfaceError):  # PostgreSQL is away: nobody could have asked
            reset_connection()
            return
        if done is not False:
            self.done[name] += 1

    def patiently(self, ask: Callable[[], Any]) -> Any:
        """What `ask` answers once PostgreSQL is there; a write that failed was rolled back, so it is asked again."""
        from django.db import DatabaseError, InterfaceError

        until = time.monotonic() + 60
        while True:
            try:
                return ask()
            except (DatabaseError, InterfaceError):
                reset_connection()
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    # -- faults -----------------------------------------------------------------------------------

    def kill_a_child(self, number: float) -> bool:
        from jobs.models import JobAttempt

        rows = JobAttempt.objects.filter(outcome="running").order_by("pk").values_list("process", flat=True)
        return kill_pid(pick([row["pid"] for row in rows if row], number))

    def kill_a_worker(self, number: float) -> bool:
        from jobs.models import WorkerProcess

        return kill_pid(pick(list(WorkerProcess.objects.order_by("pk").values_list("pid", flat=True)), number))

    def kill_a_sentinel(self, number: float) -> bool:
        import psutil

        with suppress(psutil.Error, IndexError):
            master = psutil.Process(self.stack.processes[self.cluster(number)].pid)
            master.children()[0].kill()
            return True
        return False

    def cluster(self, number: float) -> str:
        return "cluster 1" if number < 0.5 else "cluster 2"

    def kill_a_cluster(self, number: float) -> None:
        self.stack.kill(self.cluster(number))

    def drain_a_cluster(self, number: float) -> None:
        with suppress(ProcessLookupError):
            self.stack.processes[self.cluster(number)].send_signal(signal.SIGTERM)

    def kill_the_web(self, number: float) -> None:
        self.stack.kill("web")

    def kill_redis(self, number: float) -> None:
        self.outage(self.stack.servers.redis.kill, self.stack.servers.redis.start, 3 * number)

    def stop_postgresql(self, number: float) -> None:
        self.outage(self.stack.servers.postgresql.stop, self.stack.servers.postgresql.start, 3 * number)

    def kill_postgresql(self, number: float) -> None:
        self.outage(self.stack.servers.postgresql.kill, self.stack.servers.postgresql.start, 3 * number)

    def outage(self, stop: Callable[[], None], start: Callable[[], None], seconds: float) -> None:
        reset_connection()
        stop()
        time.sleep(seconds)
        start()

    def cancel_a_job(self, number: float) -> bool:
        job_id = pick(self.open_jobs(), number)
        if job_id is None:
            return False
        told = manager().cancel_job(job_id, "chaos", by=self.user)
        self.cancelled[job_id] = told or self.cancelled.get(job_id, False)
        return True

    def pause_a_job(self, number: float) -> bool:
        from jobs.errors import NotAllowed

        job_id = pick(self.open_jobs(), number)
        if job_id is None:
            return False
        with suppress(NotAllowed):
            if manager().pause_job(job_id, "chaos", by=self.user):
                self.paused.add(job_id)
        return True

    def retry_a_failed_job(self, number: float) -> bool:
        from jobs.errors import NotAllowed
        from jobs.models import Job

        job_id = pick(list(Job.objects.filter(status="FAILED").order_by("created_at").values_list("pk", flat=True)), number)
        with suppress(NotAllowed):
            return job_id is not None and bool(manager().retry_job(job_id, by=self.user))
        return False

    def open_jobs(self) -> list[Any]:
        from jobs.models import Job

        return list(Job.objects.open().order_by("created_at").values_list("pk", flat=True))

    # -- the books --------------------------------------------------------------------------------

    def check(self) -> None:
        from jobs.models import Job

        for job in Job.objects.order_by("created_at"):
            for problem in self.wrong_with(job):
                self.problems.append(f"{job.job_type} {job.pk}: {problem}")

    def is_told_with_others(self, job: Any) -> bool:
        """By the notification of one that failed in the same way."""
        from jobs.models import Notification

        return Notification.objects.filter(user_id=job.created_by_id, failure=job.failure, count__gt=1).exclude(failure="").exists()

    def wrong_with(self, job: Any) -> Iterator[str]:
        attempts = list(job.attempts.order_by("number"))
        if [a.number for a in attempts] != list(range(1, job.attempt + 1)):
            yield f"its attempts are {[a.number for a in attempts]}, and it says {job.attempt}"
        if any(a.outcome == "running" or a.ended_at is None for a in attempts):
            yield "an attempt has no end"
        for one, two in zip(attempts, attempts[1:], strict=False):
            if one.ended_at and one.ended_at > two.started_at:
                yield f"attempts {one.number} and {two.number} overlap"
        last = {"COMPLETED": "completed", "FAILED": ("failed", "lost"), "CANCELLED": None}[job.status]
        if last and attempts and attempts[-1].outcome not in last:
            yield f"it is {job.status}, and its last attempt {attempts[-1].outcome}"
        if self.cancelled.get(job.pk) and job.status != "CANCELLED":
            yield f"a cancel was accepted, and it is {job.status}"
        numbers = list(job.logs.order_by("seq").values_list("seq", flat=True))
        if numbers != list(range(1, job.log_seq + 1)):
            yield f"its log has holes: {len(numbers)} lines, the last number is {job.log_seq}"
        told = set(job.notifications.values_list("attempt", flat=True))
        ends = {a.number for a in attempts if a.outcome == "completed"} | ({job.attempt} if job.status == "FAILED" else set())
        if job.status == "FAILED" and self.is_told_with_others(job):
            told.add(job.attempt)
        if not ends <= told:
            yield f"its creator was not told of the ends {ends - told}"
        if job.job_type == "sample_journal":
            yield from self.wrong_items(job)
        if job.job_type == "web_scraping":
            yield from self.wrong_documents(job)

    def wrong_items(self, job: Any) -> Iterator[str]:
        """What the handler itself wrote into a file, beside what the tables say."""
        path = self.stack.folder / "journal" / str(job.pk)
        lines = [line.split(" ", 2) for line in path.read_text().splitlines()] if path.exists() else []
        alive: dict[int, list[float]] = {}
        for attempt, at, _ in lines:
            alive.setdefault(int(attempt), []).append(float(at))
        for one, two in zip(sorted(alive), sorted(alive)[1:], strict=False):
            if max(alive[one]) > min(alive[two]):
                yield f"attempt {one} was still alive when {two} had begun"
        outcomes = Counter(job.items.values_list("outcome", flat=True))
        if job.status == "COMPLETED" and sum(outcomes.values()) != job.parameters["total"]:
            yield f"it is complete with {dict(outcomes)} of {job.parameters['total']} items"
        done = set(job.items.filter(outcome="ok").values_list("key", flat=True))
        said = Counter(what for _, _, what in lines if what != "begins")
        again = {key for key, n in said.items() if n > 1 and key in done}
        if len(again) > max(0, len(alive) - 1):  # an attempt may die between its commit and its note, never more than once
            yield f"done more than once: {sorted(again)}"

    def wrong_documents(self, job: Any) -> Iterator[str]:
        documents = list(job.documents.select_related("warc"))
        if len({d.url for d in documents}) != len(documents):
            yield "a document is there twice"
        if job.status == "COMPLETED" and len(documents) != len(job.parameters["urls"]):
            yield f"it is complete with {len(documents)} documents of {len(job.parameters['urls'])}"
        for artifact in {d.warc for d in documents if d.warc}:
            with artifact.file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != artifact.sha256:
                    yield f"{artifact.name} is not what was recorded"
        if job.status == "COMPLETED" and any(d.warc_id is None for d in documents):
            yield "a document has no evidence"

    def check_pages(self) -> None:
        """What the web says of each job, by page and by socket, against the row."""
        from django.test import Client

        from jobs.models import Job

        client = Client()
        client.force_login(self.user)
        cookie = f"sessionid={client.cookies['sessionid'].value}"
        rows = {
            str(job.pk): (job.status, job.attempt, job.completed_steps, job.total_steps, job.problem_count, job.log_seq)
            for job in Job.objects.all()
        }
        shown = asyncio.run(read_all(self.stack.port, cookie, list(rows)))
        for job_id, row in rows.items():
            if shown[job_id] != row:
                self.problems.append(f"{job_id}: the page says {shown[job_id]}, the row {row}")

    def check_processes(self) -> None:
        import psutil

        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("STATE_DIR") == os.environ["STATE_DIR"] and is_ours(process):
                    self.problems.append(f"left over: {process.pid} {process.cmdline()[:4]}")


def is_ours(process: Any) -> bool:
    return "manage.py" in " ".join(process.cmdline())


async def read_all(port: int, cookie: str, job_ids: list[str]) -> dict[str, tuple]:
    import websockets

    places = asyncio.Semaphore(20)

    async def read(job_id: str) -> tuple[str, tuple]:
        url = f"ws://127.0.0.1:{port}/ws/jobs/{job_id}"
        async with (
            places,
            websockets.connect(url, additional_headers={"Cookie": cookie}, origin=f"http://127.0.0.1:{port}", open_timeout=60) as socket,
        ):
            said = json.loads(await asyncio.wait_for(socket.recv(), 30))
        job = said["job"]
        return job_id, (job["status"], job["attempt"], job["completed"], job["total"], job["problems"], said["log_seq"])

    return dict(await asyncio.gather(*[read(job_id) for job_id in job_ids]))


def manager() -> Any:
    from jobs.manager import JobManager

    return JobManager()


def pick(values: list[Any], number: float) -> Any:
    return values[int(number * len(values))] if values else None


def kill_pid(pid: int | None) -> bool:
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def reset_connection() -> None:
    from django.db import connection

    with suppress(Exception):
        connection.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=120, help="for how long something is killed")
    asked = parser.parse_args(arguments)
    print(f"chaos: SEED={asked.seed}, {asked.jobs} jobs, {asked.seconds:.0f} s of faults", flush=True)
    with tempfile.TemporaryDirectory(prefix="fieldwork-chaos-") as folder:
        try:
            servers = Servers.start(Path(folder))
        except CannotHave as missing:
            print(f"chaos did not run: {missing}: FAILED")
            return 1
        try:
            return run(asked, Path(folder), servers)
        finally:
            servers.stop()


def run(asked: argparse.Namespace, folder: Path, servers: Servers) -> int:
    (folder / "journal").mkdir()
    os.environ |= servers.environment() | {
        "STATE_DIR": str(folder / "state"), "DJANGO_SETTINGS_MODULE": "osint.tests.settings", "JOBS": json.dumps(TIMES),
        "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    from osint import sample_site

    site_server, site = sample_site.serve()
    os.environ["FETCH_ALLOW_PRIVATE"] = site.removeprefix("http://")
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from jobs.models import Job

    call_command("migrate", verbosity=0)
    stack = Stack(folder, servers)
    chaos = Chaos(asked.seed, Plan.of(asked.seed, asked.jobs, asked.seconds), stack, User.objects.create_user("chaos"), site)
    began = time.monotonic()
    stack.start()
    try:
        chaos.run()
        chaos.check()
        wait_for_web(stack.port)
        chaos.check_pages()
    finally:
        statuses = stack.stop()
        site_server.shutdown()
    # one that is just being started again has no handler of SIGTERM yet, and no work
    if any(status not in (0, -signal.SIGTERM) for status in statuses.values()):
        chaos.problems.append(f"exit statuses after SIGTERM: {statuses}")
    chaos.check_processes()
    ends = Counter(Job.objects.values_list("status", flat=True))
    attempts = sum(Job.objects.values_list("attempt", flat=True))
    print(f"{sum(ends.values())} jobs in {attempts} attempts, {time.monotonic() - began:.0f} s: {dict(ends)}")
    for problem in chaos.problems:
        print(f"WRONG: {problem}")
    if chaos.problems:
        kept = Path(tempfile.gettempdir()) / f"fieldwork-chaos-{asked.seed}-logs"
        subprocess.run(["cp", "-r", str(folder), str(kept)], check=False)
        print(f"{len(chaos.problems)} books do not balance. Logs: {kept}. Again: make chaos SEED={asked.seed}")
        return 1
    print("All books balance.")
    return 0


def wait_for_web(port: int) -> None:
    import socket

    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the web process does not answer")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
