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
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, IntegrityError, connections
from django.db.models import F
from django.utils import timezone
from django_q import cluster as q2
from django_q.conf import Conf
from django_q.signals import post_spawn
from django_q.worker import worker as q2_worker

from jobs import broker, conf, forecast, live, queue, registry
from jobs.child import die_with
from jobs.manager import JobManager
from jobs.models import Job, WorkerProcess
from jobs.recovery import Rescuer
from jobs.resources import Admission, CpuMean, ResourceManager, cpu_seconds
from jobs.runner import Drain, Worker, become_worker
from jobs.states import Priority
from jobs.tracker import SharedPage
from jobs.zygote import Zygote

log = logging.getLogger(__name__)

_context = multiprocessing.get_context("fork")
STARTING_S = 30.0  # a sentinel that forks its first workers does not beat yet
REPLACED_MAX, REPLACED_WITHIN_S = 5, 30.0  # more new sentinels than this in this time, and the cluster gives up
USUAL_STEPS = 3  # without progress for so many usual steps a job is stalled
HOLDS_A_TICK = 2000  # rows whose reason is looked at each second


class StopEvent:
    """The stop event as the guard waits for it: each wait is a sign of life that the master sees."""

    def __init__(self, event: Any, drain: Drain) -> None:
        self.event, self.drain = event, drain

    def is_set(self) -> bool:
        return self.event.is_set()

    def wait(self, seconds: float) -> bool:
        self.drain.beat()
        return self.event.wait(seconds)


class Sentinel(q2.Sentinel):
    """django-q2's sentinel, in a session of its own, whose processes die with it."""

    def __init__(self, master: int, drain: Drain, stop_event: Any, start_event: Any, generation: uuid.UUID) -> None:
        os.setsid()  # a SIGTERM to the master's group must not reach the guard and its workers
        die_with(master)
        broker.forget_connections()
        self.drain = drain
        kept = broker.broker_for(Conf.CLUSTER_NAME)
        super().__init__(StopEvent(stop_event, drain), start_event, generation, broker=kept)

    def start(self) -> None:
        # without django-q2's ping: a broker that is away now may be there when it is needed
        self.spawn_cluster()
        self.guard()

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


def run_worker(drain: Drain, generation: uuid.UUID, *args: Any) -> None:
    """A django-q2 worker with its zygote, forked before the worker opens a connection."""
    page = SharedPage()
    zygote = Zygote(page)

    def register_worker(**_: Any) -> None:
        row = register(Conf.CLUSTER_NAME, generation)
        become_worker(Worker(row.name, row.host, row.queue_name, drain, page, zygote))

    post_spawn.connect(register_worker, weak=False)
    q2_worker(*args)


def register(queue_name: str, generation: uuid.UUID) -> WorkerProcess:
    """A row for this worker, under the first free name of the host: atlas-1, atlas-2, …"""
    host = os.uname().nodename
    number = 0
    while True:
        number += 1
        name = f"{host}-{number}"
        row = WorkerProcess.objects.filter(name=name).first()
        if row is not None and not os.path.exists(f"/proc/{row.pid}"):
            Rescuer().rescue_from([name])  # before the name is another's
            row.delete()
        try:
            return WorkerProcess.objects.create(name=name, queue_name=queue_name, host=host, pid=os.getpid(), cluster=generation)
        except IntegrityError:
            continue


class Generation:
    """One sentinel with its workers, as the master sees it."""

    def __init__(self) -> None:
        self.id = uuid.uuid4()
        self.drain = Drain()
        self.stop_event, self.start_event = _context.Event(), _context.Event()
        self.has_beaten, self.beats, self.beat_at = False, 0, time.monotonic()
        connections.close_all()
        self.sentinel: Any = _context.Process(target=Sentinel, args=(os.getpid(), self.drain, self.stop_event, self.start_event, self.id))
        self.sentinel.start()

    def is_alive(self) -> bool:
        return self.sentinel.is_alive()

    def is_stuck(self) -> bool:
        """Whether its guard has stood still for too long."""
        now, beats = time.monotonic(), self.drain.beats()
        if beats != self.beats:
            self.has_beaten, self.beats, self.beat_at = True, beats, now
        return now - self.beat_at > (conf.get("sentinel_stuck_s") if self.has_beaten else STARTING_S)

    def end(self) -> None:
        """Kill what is left: the sentinel's group has its workers and their zygotes; children die with those."""
        with suppress(ProcessLookupError):
            os.killpg(self.sentinel.pid, signal.SIGKILL)
        self.sentinel.join(5)


class JobCluster:
    """The master: starts the sentinel, ticks each second, replaces what hangs, drains on SIGTERM or SIGINT.

    django-q2 does not survive the death of an idle worker, which dies holding the lock of the queue that all
    read from, nor a sentinel that hangs. So the master looks from outside, and when something is wrong it
    starts a new sentinel at once; the workers of the old one finish the jobs that they have.
    """

    def __init__(self) -> None:
        self.draining = False
        self.ticker = Ticker(Conf.CLUSTER_NAME)
        self.retired: list[Generation] = []
        self.replaced: deque[float] = deque(maxlen=REPLACED_MAX)
        self.unclaimed: tuple[Any, float] | None = None
        self.patience_s = float(conf.get("unclaimed_s"))
        self.current: Generation
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self.sig_handler)

    def sig_handler(self, signum: int, frame: Any) -> None:
        self.draining = True

    def run(self) -> int:
        """Until drained (returns 0), or until new sentinels do not help (returns 1)."""
        registry.warm_up()
        gc.collect()
        gc.freeze()  # the workers share what is loaded now
        broker.keep_schedules()
        self.current = Generation()
        while not self.draining:
            self.turn()
            if len(self.replaced) == REPLACED_MAX and time.monotonic() - self.replaced[0] < REPLACED_WITHIN_S:
                log.error("%s new sentinels in %.0f s did not help; this cluster ends", REPLACED_MAX, REPLACED_WITHIN_S)
                return self.stop() or 1
            until = time.monotonic() + conf.get("tick_s")
            while not self.draining and self.current.is_alive() and time.monotonic() < until:
                time.sleep(0.05)
        return self.stop()

    def turn(self) -> None:
        try:
            self.watch()
            self.ticker.tick([self.current, *self.retired])
        except DatabaseError:
            log.warning("The database did not answer this tick", exc_info=True)
            connections.close_all()
            self.unclaimed = None
        except Exception:  # a broker that is away; the next tick tries again
            log.warning("A tick failed", exc_info=True)
            self.unclaimed = None
        self.current.drain.say_hot(self.ticker.cpu.hot)

    # -- watchdog -------------------------------------------------------------------------------------

    def watch(self) -> None:
        why = self.trouble()
        if why:
            log.error("%s; starting a new sentinel", why)
            self.replace()
        for old in list(self.retired):
            self.let_go(old)

    def trouble(self) -> str:
        """What is wrong with the current generation, or ''."""
        current = self.current
        if not current.is_alive():
            return "The sentinel is gone"
        if current.is_stuck():
            return "The sentinel hangs"
        idle_death = self.idle_death(current)
        if idle_death:
            return f"The worker {idle_death} died while idle"
        return "Due work was left alone by idle workers" if self.is_unclaimed() else ""

    def idle_death(self, generation: Generation) -> str:
        """The name of a worker that died while it had no job."""
        rows = list(WorkerProcess.objects.filter(cluster=generation.id).values_list("name", "pid"))
        dead = [name for name, pid in rows if not os.path.exists(f"/proc/{pid}")]
        busy = set(Job.objects.running().filter(worker_id__in=dead).values_list("worker_id", flat=True))
        self.ticker.rescuer.rescue_from(busy)
        if dead:
            WorkerProcess.objects.filter(name__in=dead, cluster=generation.id).delete()
        return next((name for name in dead if name not in busy), "")

    def is_unclaimed(self) -> bool:
        """The same due job stood at the head for too long while a worker was idle.

        After a replacement that did not help, patience doubles: a machine that is merely slow is left alone.
        """
        idle = idle_workers(self.current.id)
        head = queue.find(Conf.CLUSTER_NAME, os.uname().nodename, self.ticker.cpu.hot)[:1] if idle > 0 else []
        now = time.monotonic()
        if not head:
            self.unclaimed = None
            return False
        if self.unclaimed is None or self.unclaimed[0] != head:
            self.unclaimed = (head, now)
            self.patience_s = float(conf.get("unclaimed_s"))
            return False
        if now - self.unclaimed[1] < self.patience_s:
            return False
        self.unclaimed = (head, now)
        self.patience_s = min(60.0, 2 * self.patience_s)
        return True

    def replace(self) -> None:
        old = self.current
        old.drain.retire()
        if old.is_alive() and not old.is_stuck():
            old.stop_event.set()
        self.retired.append(old)
        self.replaced.append(time.monotonic())
        self.current = Generation()

    def let_go(self, old: Generation) -> None:
        """End an old generation once none of its workers has a job any more; put back what a dead one left."""
        workers = WorkerProcess.objects.filter(cluster=old.id)
        names = list(workers.values_list("name", flat=True))
        busy = Job.objects.running().filter(worker_id__in=names).exists() or workers.exclude(upkeep="").exists()
        if old.is_alive() and busy:
            return
        old.end()
        self.ticker.rescuer.rescue_from(names)
        WorkerProcess.objects.filter(cluster=old.id).delete()
        self.retired.remove(old)

    # -- the end --------------------------------------------------------------------------------------

    def stop(self) -> int:
        """Drain: running jobs get until the deadline, then they are put back by their workers."""
        generations = [self.current, *self.retired]
        for generation in generations:
            generation.drain.begin()
            generation.stop_event.set()
        until = time.monotonic() + conf.get("drain_s") + 5
        for generation in generations:
            generation.sentinel.join(max(0.0, until - time.monotonic()))
            if generation.is_alive():
                log.error("The workers did not stop in time and are ended")
                generation.end()
        with suppress(DatabaseError):  # their rows stop counting after `worker_gone_s`
            WorkerProcess.objects.filter(cluster__in=[g.id for g in generations]).delete()
        return 0


class Ticker:
    """What happens each second: see who lives, say what is held, wake workers for due jobs, rescue lost ones."""

    def __init__(self, queue_name: str) -> None:
        self.queue = queue_name
        self.host = os.uname().nodename
        self.rescuer = Rescuer()
        self.cpu = CpuMean()

    def tick(self, generations: list[Generation]) -> None:
        self.cpu.look(time.monotonic(), *cpu_seconds())
        self.see_workers(generations)
        idle = idle_workers(generations[0].id)
        admission = ResourceManager().admission(self.queue, self.host, hot=self.cpu.hot)
        self.say_holds(admission)
        self.say_stalls()
        self.clamp()
        self.rescuer.sweep()
        live.publish("jobs", {"type": "queue.stats"})
        if admission.places <= 0 or idle <= 0:
            self.make_way(set(WorkerProcess.objects.filter(cluster=generations[0].id).values_list("name", flat=True)))
        else:
            self.top_up_tokens(idle)

    def see_workers(self, generations: list[Generation]) -> None:
        """Refresh the rows of our living workers, and drop those that nobody refreshed for a day.

        Nobody counts a row that is older than some seconds; so a jump of the clock drops no living worker.
        """
        now = timezone.now()
        living = [g.id for g in generations if g.is_alive()]
        WorkerProcess.objects.filter(cluster__in=living).update(seen_at=now)
        WorkerProcess.objects.filter(seen_at__lt=now - timedelta(days=1)).delete()

    def say_holds(self, admission: Admission) -> None:
        """Write why due jobs do not start, and take back what no longer holds. Only reasons that change are written."""
        rows = Job.objects.waiting().filter(queue_name=self.queue, pause_requested_at=None, blocked_by=0)
        due = rows.filter(run_after__lte=timezone.now(), hold_reason="").order_by("-priority", "run_after")
        held = rows.exclude(hold_reason="")
        wanted: dict[str, list[uuid.UUID]] = {}
        for found in (due, held):
            for pk, job_type, creator, priority, reason in found.values_list("pk", "job_type", "created_by_id", "priority", "hold_reason")[
                :HOLDS_A_TICK
            ]:
                why = admission.reason_for(job_type, creator, priority)
                if why != reason and not (why and reason and without_figures(why) == without_figures(reason)):
                    wanted.setdefault(why, []).append(pk)
        for reason, ids in wanted.items():
            JobManager().hold(ids, reason)

    def say_stalls(self) -> None:
        """Which running jobs of our queue make no progress, by what steps of their type usually take."""
        now = timezone.now()
        rows = Job.objects.running().filter(queue_name=self.queue, stalled_at=None, cancel_requested_at=None, pause_requested_at=None)
        for job in rows.filter(progress_at__lte=now - timedelta(seconds=1)):
            silent = (now - (job.progress_at or now)).total_seconds()
            if silent >= self.patience(job.job_type):
                JobManager().mark_stalled(job, silent)

    def patience(self, job_type: str) -> float:
        """Seconds without progress after which a job of a type is stalled: as the type says, or by what its steps usually take."""
        kind = registry.find(job_type)
        if kind and kind.stalled_after_s is not None:
            return kind.stalled_after_s
        found = forecast.usual_lately(job_type)
        return max(conf.get("stalled_min_s"), USUAL_STEPS * found.step_s if found else 0.0)

    def clamp(self) -> None:
        """Whatever the clock did when it was written: no retry is further away than the longest legal delay, and what
        was due when it was made is due now."""
        now = timezone.now()
        rows = Job.objects.waiting().filter(queue_name=self.queue, priority__in=Priority.values, hold_reason="")  # by index
        rows.filter(run_after__gt=now + timedelta(seconds=1), run_after=F("created_at")).update(
            run_after=now, waiting_since=now.timestamp()
        )
        longest = max(*conf.get("retry_delays_s"), conf.get("retry_after_max_s")) * (1 + conf.get("retry_jitter"))
        last = now + timedelta(seconds=longest)
        rows.filter(run_after__gt=last).exclude(error_kind="").update(run_after=last, waiting_since=last.timestamp())

    def make_way(self, names: set[str]) -> None:
        """When an urgent job has waited too long for a place, the least important job that can be taken up again stops."""
        since = timezone.now() - timedelta(seconds=conf.get("urgent_wait_s"))
        waiting = Job.objects.waiting().filter(queue_name=self.queue, priority=Priority.URGENT, hold_reason="", run_after__lte=since)
        urgent = waiting.order_by("run_after").first()
        if urgent is None:
            return
        ours = Job.objects.running().filter(worker_id__in=names)
        if ours.filter(pause_requested_at__isnull=False, paused_by="").exists():
            return  # one is on its way out already
        resumable = [kind.name for kind in registry.all_types() if kind.resumable]
        candidates = ours.filter(job_type__in=resumable, priority__lt=Priority.URGENT, cancel_requested_at=None, pause_requested_at=None)
        least = candidates.order_by("priority", "-started_at").first()
        if least is not None:
            JobManager().make_way(least.pk, urgent)

    def top_up_tokens(self, idle: int) -> None:
        """As many tokens as there are due jobs and idle workers, whichever is less."""
        due = Job.objects.waiting().filter(queue_name=self.queue).due(timezone.now()).values_list("pk")[:idle]
        for _ in range(len(due) - broker.tokens_waiting(self.queue)):
            broker.send_token(self.queue)


def idle_workers(generation: uuid.UUID) -> int:
    """How many workers have neither a job nor a scheduled task."""
    names = list(WorkerProcess.objects.filter(cluster=generation, upkeep="").values_list("name", flat=True))
    return len(names) - Job.objects.running().filter(worker_id__in=names).count()


def without_figures(text: str) -> str:
    """A hold that only changed its figures is not written anew each second."""
    return "".join(c for c in text if not c.isdigit())


def prepare_process() -> None:
    """Before the first fork: one kept connection per process."""
    for connection in connections.all():
        connection.close()
        connection.settings_dict["CONN_MAX_AGE"] = None
