"""Which job is next."""

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from jobs import conf, queue
from jobs.manager import JobManager
from jobs.models import Job
from jobs.resources import Admission
from jobs.states import Priority, Status


def make(**options):
    return JobManager().create_job("sample_steps", **options)


def take():
    job = queue.claim("default", worker_id="atlas-1", host="atlas")
    return job.pk if job else None


def test_job_queue_management(db):
    """Urgent before high before normal before low; within a class, the one that is due longest."""
    low, first, second = make(priority=Priority.LOW), make(), make()
    high, urgent = make(priority=Priority.HIGH), make(priority=Priority.URGENT)
    assert [take() for _ in range(6)] == [urgent.pk, high.pk, first.pk, second.pk, low.pk, None]


def test_what_is_not_due_or_held_does_not_block_the_others(db):
    later = make(priority=Priority.URGENT, run_after=timezone.now() + timedelta(minutes=5))
    held = make(priority=Priority.HIGH)
    JobManager().hold([held.pk], "Waits for memory")
    normal = make()
    assert [take(), take()] == [normal.pk, None]
    JobManager().hold([held.pk], "")
    assert take() == held.pk
    assert Job.objects.get(pk=later.pk).status == Status.PENDING


def test_a_job_of_another_queue_is_left_to_it(db):
    heavy = JobManager().create_job("sample_heavy")
    assert take() is None
    assert queue.claim("heavy", worker_id="atlas-1", host="atlas").pk == heavy.pk


def test_waiting_raises_a_job_but_never_above_high(db):
    now = timezone.now()
    step = timedelta(seconds=conf.get("ageing_s"))
    assert queue.effective_priority(Priority.LOW, now, now) == Priority.LOW
    assert queue.effective_priority(Priority.LOW, now - step, now) == Priority.NORMAL
    assert queue.effective_priority(Priority.LOW, now - 9 * step, now) == Priority.HIGH
    assert queue.effective_priority(Priority.URGENT, now, now) == Priority.URGENT
    assert queue.effective_priority(Priority.LOW, now + step, now) == Priority.LOW


def test_an_old_low_job_goes_before_a_new_normal_one(db):
    old = make(priority=Priority.LOW, run_after=timezone.now() - timedelta(seconds=2.5 * conf.get("ageing_s")))
    make()
    urgent = make(priority=Priority.URGENT)
    assert [take(), take()] == [urgent.pk, old.pk]


def test_many_jobs_of_one_person_do_not_block_another(analyst, other):
    mine = [make(created_by=analyst) for _ in range(20)]
    theirs = make(created_by=other)
    assert take() == mine[0].pk
    assert take() == theirs.pk
    assert take() == mine[1].pk


def test_the_claim_reads_by_index(db):
    """No scan of the table, however many jobs wait (the figures are in bench/)."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # it scans small tables on purpose
        explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        admission = Admission(types={"sample_eater": "full"}, users={7: "enough"})
        statement, params, _ = queue.heads_statement("default", timezone.now(), admission)
        cursor.execute(f"{explain} {statement}", params)
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "job_due" in plan
    assert "SCAN jobs_job" not in plan
    assert "Seq Scan on jobs_job" not in plan
