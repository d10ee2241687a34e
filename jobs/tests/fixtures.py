"""Fixtures for all tests: people, jobs, and real cluster processes on the test database."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.utils import translation

from jobs import forecast, live
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt, WorkerProcess

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0
START_S = 120.0  # until a process has loaded everything, on a busy machine
# Times short enough for tests; one test asserts the product's own.
FAST: dict[str, Any] = {
    "max_concurrent_jobs": 2,
    "watch_interval_s": 0.05,
    "sample_interval_s": 0.2,
    "beat_interval_s": 0.3,
    "lease_s": 2.0,
    "lease_giveup_s": 1.5,
    "cancel_grace_s": 0.5,
    "terminate_grace_s": 0.5,
    "drain_s": 1.0,
    "tick_s": 0.2,
    "worker_gone_s": 3.0,
    "retry_delays_s": [1, 1, 1, 1],
    # a busy test machine must not hold jobs or replace its sentinels; the tests of these set their own
    "cpu_threshold": 1000.0,
    "memory_floor_mb": 1,
    "memory_guess_mb": 1,
    "disk_floor_mb": 1,
    "sentinel_stuck_s": 15.0,
    "unclaimed_s": 15.0,
}


def wait_for(condition: Callable[[], Any], what: str = "", deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`; fails when the deadline passes without one."""
    until = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            pytest.fail(f"Waited {deadline_s:.0f} s in vain for {what or condition}")
        time.sleep(0.02)  # the pace of looking, not a wait for something to have happened


@pytest.fixture(autouse=True, scope="session")
def nothing_is_left_open(django_db_setup: None) -> Iterator[None]:
    yield
    if live._kept is not None:
        live._kept.close()
    close_connection_of_coroutines()


@pytest.fixture(autouse=True)
def nothing_is_known_from_before() -> None:
    """What a process looks up once a minute is another history in each test; the language of a request stays on in its thread."""
    forecast._known.clear()
    translation.activate(settings.LANGUAGE_CODE)


def close_connection_of_coroutines() -> None:
    """asgiref keeps one thread for the database calls of coroutines, with a connection of its own."""
    SyncToAsync.single_thread_executor.submit(lambda: connection.close()).result()


@pytest.fixture
def analyst(db: None) -> User:
    return User.objects.create_user("ortega", password="pw", email="ortega@fieldwork.example")


@pytest.fixture
def other(db: None) -> User:
    return User.objects.create_user("sato", password="pw")


@pytest.fixture
def admin_user(db: None) -> User:
    return User.objects.create_superuser("admin", password="pw")


@pytest.fixture
def job(analyst: User) -> Job:
    return JobManager().create_job("sample_steps", parameters={"total": 4}, created_by=analyst)


@pytest.fixture
def running_job(job: Job) -> Job:
    started = JobManager().start([job.pk], worker_id="atlas-1", host="atlas")
    assert started is not None
    return started


def process_environment(**jobs: Any) -> dict[str, str]:
    """For a child process that works on the test database with short times."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        url = f"sqlite:///{name}"
    else:
        c = connection.settings_dict
        url = f"postgres://{c['USER']}:{c['PASSWORD']}@{c['HOST'] or 'localhost'}:{c['PORT'] or 5432}/{name}"
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "osint.tests.settings",
        "DATABASE_URL": url,
        "SECRET_KEY": settings.SECRET_KEY,
        "STATE_DIR": str(settings.STATE_DIR),
        "FETCH_ALLOW_PRIVATE": ",".join(settings.FETCH_ALLOW_PRIVATE),
        "JOBS": json.dumps(FAST | jobs),
        "PYTHONWARNINGS": "ignore",
    }


def started(process: subprocess.Popen, is_there: Callable[[], Any], what: str) -> None:
    """Wait for what a process does first; one that does not is no trouble for the tests after this."""
    try:
        wait_for(is_there, what, deadline_s=START_S)
    except BaseException:
        process.kill()
        raise


class ClusterProcess:
    """A real `manage.py jobcluster`."""

    def __init__(self, queue: str = "default", **jobs: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "jobcluster", "--queue", queue],
            cwd=ROOT,
            env=process_environment(**jobs),
            start_new_session=True,
        )
        wanted = (FAST | jobs)["max_concurrent_jobs"]
        started(self.process, lambda: WorkerProcess.objects.filter(queue_name=queue).count() >= wanted, "the workers to register")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)


@pytest.fixture
def start_cluster(transactional_db: None) -> Iterator[Callable[..., ClusterProcess]]:
    """Starts clusters that are stopped when the test ends."""
    started: list[ClusterProcess] = []

    def start(**options: Any) -> ClusterProcess:
        started.append(ClusterProcess(**options))
        return started[-1]

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture
def cluster(start_cluster: Callable[..., ClusterProcess]) -> ClusterProcess:
    return start_cluster()


class Stack:
    """A real `manage.py up`: the web server, with the workers or without."""

    def __init__(self, port: int, *, workers: bool = True, **jobs: Any) -> None:
        self.port, self.workers, self.jobs = port, workers, jobs
        self.base = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        arguments = [] if self.workers else ["--no-workers"]
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(self.port), *arguments],
            cwd=ROOT, env=process_environment(**self.jobs), stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        started(self.process, self.answers, "the web server to answer")

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


class Gate:
    """A file that a sample job reads: it may go on to the step of that number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open_to(0)

    def open_to(self, step: int) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(str(step))
        fresh.replace(self.path)

    def __str__(self) -> str:
        return str(self.path)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def create(job_type: str = "sample_steps", **options: Any) -> Job:
    return JobManager().create_job(job_type, **options)


def ended(*jobs: Job) -> bool:
    return not Job.objects.open().filter(pk__in=[job.pk for job in jobs]).exists()


def child_of(job: Job) -> int:
    """The pid of a running job's child, once its worker has recorded it."""
    return wait_for(
        lambda: JobAttempt.objects.filter(job=job, outcome="running").values_list("process__pid", flat=True).first(),
        "the child to be recorded",
    )


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def no_two_at_once(job: Job) -> bool:
    """Whether each attempt ended before the next one began."""
    runs = list(job.attempts.order_by("number").values_list("started_at", "ended_at"))
    return all(end is not None and end <= start for (_, end), (start, _) in zip(runs, runs[1:], strict=False))


def reload(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def status_of(job: Job) -> str:
    return Job.objects.values_list("status", flat=True).get(pk=job.pk)
