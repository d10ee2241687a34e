"""What the time of a job is said to have gone to."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from jobs import timing, tracker
from jobs.manager import JobManager
from jobs.models import Job, JobAttempt
from jobs.tests.fixtures import create, reload
from jobs.timing import Clock
from jobs.tracker import SharedPage

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now)

    def on(self, seconds):
        self.now += seconds


@pytest.fixture
def hands(monkeypatch):
    return Hands(monkeypatch)


class TestClock:
    def test_what_happens_at_once_shares_the_time(self, hands):
        clock = Clock()
        hands.on(1)  # nobody speaks of this
        with clock.spending("network"):
            hands.on(2)
            with clock.spending("writing"):
                hands.on(4)
        assert dict(zip(timing.PHASES, clock.spent, strict=True)) == {"polite": 0, "network": 4, "writing": 2, "processing": 0}

    def test_three_requests_at_once_take_no_longer_than_they_take(self, hands):
        clock = Clock()
        with clock.spending("network", "a.example"), clock.spending("network", "a.example"), clock.spending("network", "b.example"):
            hands.on(6)
        assert clock.spent[1] == 6
        assert sorted(clock.slowest_hosts()) == [["a.example", 2, 12.0], ["b.example", 1, 6.0]]

    def test_an_error_ends_a_phase(self, hands):
        clock = Clock()
        with pytest.raises(OSError, match="gone"), clock.spending("network"):
            hands.on(1)
            raise OSError("gone")
        hands.on(5)
        with clock.spending("writing"):
            pass
        assert clock.spent[1] == 1

    def test_a_phase_that_is_open_counts_until_now(self, hands, monkeypatch):
        """Also for the process beside, which may find its child killed in the middle of it."""
        monkeypatch.setattr(tracker.time, "monotonic", lambda: hands.now)
        page = SharedPage()
        clock = Clock(page.write_times)
        with clock.spending("writing"):
            hands.on(240)
            assert dict(zip(timing.PHASES, page.read_times(), strict=True))["writing"] == 240
        hands.on(60)
        assert dict(zip(timing.PHASES, page.read_times(), strict=True)) == {"polite": 0, "network": 0, "writing": 240, "processing": 0}

    def test_an_unknown_phase_is_refused(self):
        with pytest.raises(ValueError, match="thinking"), Clock().spending("thinking"):
            pass


@pytest.mark.django_db
class TestWaiting:
    def at(self, seconds):
        return time_machine.travel(NOON + timedelta(seconds=seconds), tick=False)

    def waited(self, job):
        row = reload(job)
        return round(row.queued_s, 3), round(row.held_s, 3)

    def start(self, job):
        assert JobManager().start([job.pk], worker_id="atlas-1", host="atlas")

    def test_held_and_queued_are_told_apart(self, analyst):
        manager = JobManager()
        with self.at(0):
            job = create(created_by=analyst)
        with self.at(10):
            manager.hold([job.pk], "Waits for memory")
        with self.at(25):
            manager.hold([job.pk], "Waits for disk space")
        with self.at(40):
            manager.hold([job.pk], "")
        with self.at(45):
            self.start(job)
        assert self.waited(job) == (15, 30)

    def test_a_pause_is_held(self, analyst):
        manager = JobManager()
        with self.at(0):
            job = create(created_by=analyst)
        with self.at(5):
            assert manager.pause_job(job.pk, by=analyst)
        with self.at(65):
            assert manager.resume_job(job.pk, by=analyst)
        with self.at(66):
            self.start(job)
        assert self.waited(job) == (6, 60)

    def test_a_dependency_holds_from_the_beginning(self, analyst):
        manager = JobManager()
        with self.at(0):
            first = create()
            job = create(depends_on=[first.pk])
        with self.at(1):
            self.start(first)
        with self.at(30):
            assert manager.mark_completed(first.pk, attempt=1)
        with self.at(32):
            self.start(job)
        assert self.waited(job) == (2, 30)

    def test_the_time_until_a_next_try_is_neither(self):
        manager = JobManager()
        with self.at(0):
            job = create()
            self.start(job)
        with self.at(10):
            assert manager.mark_failed(job.pk, "no answer", attempt=1, retry_at=NOON + timedelta(seconds=100))
        with self.at(103):
            self.start(job)
        assert self.waited(job) == (3, 0)
        with self.at(110):
            assert manager.mark_failed(job.pk, "no answer", attempt=2, retry_at=NOON + timedelta(seconds=1000))
        with self.at(111):
            manager.run_now(job.pk)
        with self.at(113):
            self.start(job)
        assert self.waited(job) == (5, 0)

    def test_what_a_retry_by_hand_waited_for_is_not_the_time_since_it_failed(self):
        manager = JobManager()
        with self.at(0):
            job = create()
            self.start(job)
        with self.at(10):
            assert manager.mark_failed(job.pk, "no answer", attempt=1)
        with self.at(5000):
            manager.retry_job(job.pk)
        with self.at(5004):
            self.start(job)
        assert self.waited(job) == (4, 0)

    def test_cancelled_while_it_was_held(self):
        manager = JobManager()
        with self.at(0):
            job = create()
            manager.hold([job.pk], "Waits for memory")
        with self.at(20):
            assert manager.cancel_job(job.pk)
        with self.at(500):
            parts = {part.key: part.seconds for part in timing.split(reload(job), [])}
        assert (parts["held"], parts["queued"]) == (20, 0)

    def test_brought_forward_while_it_waits_for_another_job(self):
        manager = JobManager()
        with self.at(0):
            needed = create()
            job = manager.create_job(
                "sample_steps", parameters={"total": 3}, depends_on=[needed.pk], run_after=NOON + timedelta(seconds=900)
            )
        with self.at(20):
            manager.run_now(job.pk)
        with self.at(50):
            manager.cancel_job(job.pk)
        assert self.waited(job) == (0, 50)

    def test_while_it_runs_what_is_not_known_yet_is_no_processing(self):
        with self.at(0):
            job = create()
            self.start(job)
            JobAttempt.objects.update(times={"until": 10.0, "polite": 8.0})
        with self.at(14):
            parts = {part.key: part.seconds for part in timing.split(reload(job), list(JobAttempt.objects.all()))}
        assert (parts["polite"], parts["processing"]) == (8, 2)
        with self.at(16):
            JobManager().mark_completed(job.pk, {}, attempt=1)
            parts = {part.key: part.seconds for part in timing.split(reload(job), list(JobAttempt.objects.all()))}
        assert (parts["polite"], parts["processing"]) == (8, 8)

    def test_while_it_waits_the_time_runs(self):
        with self.at(0):
            job = create()
        with self.at(7):
            assert timing.split(reload(job), [])[0] == timing.Part("queued", "Queued", 7.0, 0.0, 100.0)


@pytest.mark.django_db
class TestPage:
    def test_the_parts_and_the_stages_are_shown(self, client, running_job):
        client.force_login(running_job.created_by)
        end = running_job.started_at + timedelta(seconds=100)
        JobAttempt.objects.filter(job=running_job).update(
            ended_at=end, times={"network": 60.0, "polite": 10.0, "stages": [["Asking", 0.0], ["Storing", 75.0]]}
        )
        text = client.get(running_job.get_absolute_url()).content.decode()
        assert "Network 1 min 00 s, Processing 30 s, Writing 0.0 s" in text
        assert (
            'Asking</th><td><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="done" x="0.00" width="75.00"'
            in text
        )
        assert ">25 s</td>" in text

    def test_of_a_job_from_before_it_was_counted_nothing_is_said(self, client, running_job):
        Job.objects.filter(pk=running_job.pk).update(queued_s=None, held_s=None)
        client.force_login(running_job.created_by)
        assert "Where the time went" not in client.get(running_job.get_absolute_url()).content.decode()
