"""F6–F8: the servers below us stop, or are busy."""

import threading
from contextlib import suppress
from urllib.request import Request, urlopen

import pytest
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.test import Client

from jobs.manager import JobManager
from jobs.models import Job, Notification
from jobs.states import Status
from jobs.tests.fixtures import child_of, close_connection_of_coroutines, create, ended, no_two_at_once, reload, status_of, wait_for
from jobs.tests.servers import Servers

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]
OUTAGE_S = 5.0  # as the fault says


@pytest.fixture
def servers():
    servers = Servers.of_this_run()
    if servers is None:
        pytest.skip("The embedded run has no server to stop; make test-scaled has")
    yield servers
    close_connection_of_coroutines()


def patiently(condition):
    """The condition while the database may be away: no answer is a no."""

    def look():
        try:
            return condition()
        except (DatabaseError, InterfaceError):
            connection.close()
            return False

    return look


def outage(seconds=OUTAGE_S):
    threading.Event().wait(seconds)  # the length of the fault itself


def test_f06_redis_stops_and_comes_back_empty(cluster, gate, servers):
    """No token, no live message: jobs run all the same, no worker dies."""
    running = create(parameters={"total": 3, "gate": str(gate)})
    child_of(running)
    servers.redis.kill()
    during = [create(parameters={"total": 1}) for _ in range(3)]
    gate.open_to(2)
    wait_for(lambda: reload(running).completed_steps == 2, "the running job to go on without Redis")
    outage()
    servers.redis.start()
    gate.open_to(3)
    after = create(parameters={"total": 1})
    wait_for(lambda: ended(running, *during, after), "all jobs", deadline_s=60)
    assert {(job.status, job.attempt) for job in Job.objects.all()} == {(Status.COMPLETED, 1)}
    assert cluster.process.poll() is None


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_f07_postgresql_stops_in_mid_job(cluster, gate, servers, analyst, how):
    """The job ends while the database is away; its end is recorded once, when it is back."""
    gate.open_to(1)
    job = create(parameters={"total": 3, "gate": str(gate)}, created_by=analyst)
    child_of(job)
    connection.close()
    getattr(servers.postgresql, how)()
    gate.open_to(3)
    outage()
    servers.postgresql.start()
    wait_for(patiently(lambda: ended(job)), "the end", deadline_s=60)
    row = reload(job)
    assert (row.status, row.completed_steps) == (Status.COMPLETED, 3)
    assert row.logs.filter(message__startswith="Completed").count() == 1
    assert list(row.logs.order_by("seq").values_list("seq", flat=True)) == list(range(1, row.log_seq + 1))
    assert Notification.objects.filter(job=row).count() == 1
    assert no_two_at_once(row)
    assert cluster.process.poll() is None
    later = create(parameters={"total": 1})
    wait_for(lambda: ended(later), "a job after it")


def test_f07_the_page_after_an_outage(servers, start_stack, analyst):
    """The first page after a restart of PostgreSQL opens: no dead connection is used."""
    stack = start_stack(workers=False)
    client = Client()
    client.force_login(analyst)
    request = Request(f"{stack.base}/jobs/", headers={"Cookie": f"sessionid={client.cookies['sessionid'].value}"})
    with urlopen(request) as answer:
        assert answer.status == 200
    connection.close()
    servers.postgresql.kill()
    servers.postgresql.start()
    for _ in range(10):
        with urlopen(request) as answer:
            assert answer.status == 200


def test_f07_a_database_that_does_not_answer_for_longer_than_the_lease(start_cluster, gate):
    """Its writes wait: the child is ended before anybody else could start the job, which goes on without a counted failure."""
    start_cluster(lease_s=3.0, lease_giveup_s=2.0)
    gate.open_to(3)
    job = create("sample_items", parameters={"total": 6, "gate": str(gate)})
    child_of(job)
    wait_for(lambda: job.items.count() == 3, "three items")
    with transaction.atomic():
        lock_everything()
        outage()
    gate.open_to(99)
    wait_for(patiently(lambda: ended(job)), "the end", deadline_s=60)
    row = reload(job)
    assert (row.status, row.retry_count) == (Status.COMPLETED, 0)
    assert row.items.filter(outcome="ok").count() == 6
    assert no_two_at_once(row)


def lock_everything():
    """On SQLite the write lock is the transaction's already; on PostgreSQL the table's."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("LOCK TABLE jobs_job IN EXCLUSIVE MODE")
        else:
            Job.objects.filter(pk=None).update(keep=False)


def test_f08_a_busy_database(start_cluster, analyst):
    """Eight writers and a page under load: nobody meets “database is locked”, every job ends well."""
    start_cluster(lease_s=10.0, lease_giveup_s=8.0)  # the product's: the end of a job waits for the eight as well
    stop, errors, made = threading.Event(), [], []

    def write():
        try:
            while not stop.is_set():
                made.append(create(parameters={"total": 1}))
                JobManager().note(made[-1].pk, "A line")
                made[-1].refresh_from_db()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    writers = [threading.Thread(target=write) for _ in range(8)]
    page = Client()
    page.force_login(analyst)
    for thread in writers:
        thread.start()
    try:
        pages = 0
        while len(made) < 150 and not errors:
            assert page.get("/").status_code == 200
            assert page.get("/jobs/").status_code == 200
            pages += 2
    finally:
        stop.set()
        for thread in writers:
            thread.join()
    assert errors == []
    assert pages >= 2
    wait_for(lambda: ended(*made), "all jobs", deadline_s=90)
    assert {(job.status, job.attempt) for job in Job.objects.all()} == {(Status.COMPLETED, 1)}


def test_f08_a_lock_held_for_long_ends_no_job(cluster, gate):
    """Somebody holds the write lock for longer than a beat: what the job says is kept and written later."""
    job = create(parameters={"total": 5, "gate": str(gate)})
    child_of(job)
    with suppress(DatabaseError), transaction.atomic():
        lock_everything()
        gate.open_to(5)
        outage(1.0)
    wait_for(lambda: ended(job), "the end")
    assert (status_of(job), reload(job).completed_steps) == (Status.COMPLETED, 5)
