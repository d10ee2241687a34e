"""The job cluster: django-q2's pool of workers, and the tick that keeps the queue moving.

Processes, from the top: `jobcluster` (the tick), its sentinel (django-q2's guard), the workers, and
for each worker a zygote with the child of the moment. Each dies with the one above it.
"""

import gc
import logging
import multiprocessing
import os
import signal
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, IntegrityError, connections
from django.utils import timezone
from django_q import cluster as q2
from django_q.conf import Conf
from django_q.signals import post_spawn
from django_q.worker import worker as q2_worker

from jobs import broker, conf, live
from jobs.child import die_with
from jobs.models import Job, WorkerProcess
from jobs.recovery import Rescuer
from jobs.runner import Drain, Worker, become_worker
from jobs.tracker import SharedPage
from jobs.zygote import Zygote

log = logging.getLogger(__name__)

_context = multiprocessing.get_context("fork")


class Sentinel(q2.Sentinel):
    """django-q2's sentinel, in a session of its own, whose processes die with it."""

    def __init__(self, master: int, drain: Drain, stop_event: Any, start_event: Any, cluster_id: uuid.UUID) -> None:
        os.setsid()  # a SIGTERM to the master's group must not reach the guard and its workers
        die_with(master)
        broker.forget_connections()
        self.drain = drain
        super().__init__(stop_event, start_event, cluster_id, broker=broker.broker_for(Conf.CLUSTER_NAME))

    def spawn_process(self, target: Any, *args: Any) -> Any:
        connections.close_all()  # a fork must not inherit a connection
        if target is q2_worker:
            target, args = run_worker, (self.drain, self.cluster_id, *args)
        process: Any = _context.Process(target=run_guarded, args=(os.getpid(), target, *args))
        process.daemon = True
        if target is run_worker:
            process.timer = args[4]
            self.pool.append(process)
        process.start()
        return process


def run_guarded(sentinel: int, target: Any, *args: Any) -> None:
    die_with(sentinel)
    broker.forget_connections()
    target(*args)


def run_worker(drain: Drain, cluster_id: uuid.UUID, *args: Any) -> None:
    """A django-q2 worker with its zygote, forked before the worker opens a connection."""
    page = SharedPage()
    zygote = Zygote(page)

    def register_worker(**_: Any) -> None:
        row = register(Conf.CLUSTER_NAME, cluster_id)
        become_worker(Worker(row.name, row.host, row.queue_name, drain, page, zygote))

    post_spawn.connect(register_worker, weak=False)
    q2_worker(*args)


def register(queue: str, cluster_id: uuid.UUID) -> WorkerProcess:
    """A row for this worker, under the first free name of the host: atlas-1, atlas-2, …"""
    host = os.uname().nodename
    for row in WorkerProcess.objects.filter(host=host):
        if not os.path.exists(f"/proc/{row.pid}"):
            row.delete()
    number = 0
    while True:
        number += 1
        try:
            return WorkerProcess.objects.create(name=f"{host}-{number}", queue_name=queue, host=host, pid=os.getpid(), cluster=cluster_id)
        except IntegrityError:
            continue


class JobCluster(q2.Cluster):
    """The master: starts the sentinel, ticks each second, drains on SIGTERM or SIGINT."""

    def __init__(self) -> None:
        super().__init__()
        self.drain = Drain()
        self.ticker = Ticker(self.cluster_id)

    def sig_handler(self, signum: int, frame: Any) -> None:
        self.drain.begin()

    def run(self) -> int:
        """Until drained (returns 0) or until the sentinel is gone (returns 1)."""
        gc.collect()
        gc.freeze()  # the workers share what is loaded now
        self.stop_event, self.start_event = _context.Event(), _context.Event()
        self.sentinel: Any = _context.Process(
            target=Sentinel,
            args=(os.getpid(), self.drain, self.stop_event, self.start_event, self.cluster_id),
        )
        connections.close_all()
        self.sentinel.start()
        while not self.drain.has_begun() and self.sentinel.is_alive():
            self.ticker.tick()
            self.wait(conf.get("tick_s"))
        if not self.sentinel.is_alive():
            log.error("The sentinel of this cluster is gone")
            self.ticker.forget_workers()
            return 0 if self.drain.has_begun() else 1
        return self.stop_sentinel()

    def wait(self, seconds: float) -> None:
        """Until the next tick, or at once when a signal arrives."""
        until = time.monotonic() + seconds
        while not self.drain.has_begun() and self.sentinel.is_alive() and time.monotonic() < until:
            time.sleep(0.05)

    def stop_sentinel(self) -> int:
        self.stop_event.set()
        self.sentinel.join(conf.get("drain_s") + 5)
        if self.sentinel.is_alive():
            log.error("The workers did not stop in time and are ended")
            os.killpg(self.sentinel.pid, signal.SIGKILL)
        self.ticker.forget_workers()
        return 0


class Ticker:
    """What happens each second: see who lives, wake workers for due jobs, rescue lost ones."""

    def __init__(self, cluster_id: uuid.UUID) -> None:
        self.cluster_id = cluster_id
        self.queue = Conf.CLUSTER_NAME
        self.rescuer = Rescuer()

    def tick(self) -> None:
        try:
            self.see_workers()
            self.top_up_tokens()
            self.rescuer.sweep()
            live.publish("jobs", {"type": "queue.stats"})
        except DatabaseError:
            log.warning("The database did not answer this tick", exc_info=True)
            connections.close_all()
        except Exception:  # a broker that is away; the next tick tries again
            log.warning("A tick failed", exc_info=True)

    def see_workers(self) -> None:
        """Refresh the rows of our living workers and drop those of the dead, anybody's after a while."""
        mine = WorkerProcess.objects.filter(cluster=self.cluster_id)
        dead = [row.pk for row in mine if not os.path.exists(f"/proc/{row.pid}")]
        gone = timezone.now() - timedelta(seconds=6 * conf.get("worker_gone_s"))
        if dead:
            WorkerProcess.objects.filter(pk__in=dead).delete()
        WorkerProcess.objects.filter(seen_at__lt=gone).delete()
        mine.update(seen_at=timezone.now())

    def top_up_tokens(self) -> None:
        """As many tokens as there are due jobs and idle workers, whichever is less."""
        names = set(WorkerProcess.objects.filter(cluster=self.cluster_id).values_list("name", flat=True))
        busy = Job.objects.running().filter(worker_id__in=names).count()
        idle = len(names) - busy
        if idle <= 0:
            return
        due = Job.objects.waiting().filter(queue_name=self.queue).due(timezone.now()).values_list("pk")[:idle]
        for _ in range(len(due) - broker.tokens_waiting(self.queue)):
            broker.send_token(self.queue)

    def forget_workers(self) -> None:
        with suppress(DatabaseError):  # their rows stop counting after `worker_gone_s`
            WorkerProcess.objects.filter(cluster=self.cluster_id).delete()


def prepare_process() -> None:
    """Before the first fork: one kept connection per process, and no pool, which does not survive a fork."""
    for connection in connections.all():
        connection.close()
        connection.settings_dict["CONN_MAX_AGE"] = None
        connection.settings_dict["OPTIONS"].pop("pool", None)
