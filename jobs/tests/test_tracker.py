"""ProgressTracker and its two outlets."""

import os
import threading

import orjson
import pytest

from jobs.errors import JobCancelled
from jobs.tests.fixtures import reload
from jobs.tracker import ChildOutlet, Progress, ProgressTracker, SharedPage, clean_text


class Recorder:
    def __init__(self):
        self.steps, self.lines, self.flushed = [], [], 0

    def progress(self, progress):
        self.steps.append((progress.step, progress.completed, progress.percent))

    def log(self, line):
        self.lines.append(line)

    def spent(self, clock):
        """Of no interest here."""

    def flush(self):
        self.flushed += 1


@pytest.fixture
def child():
    """A child's outlet, and the reading end of its pipe."""
    page = SharedPage()
    reading, writing = os.pipe()
    yield page, ChildOutlet(page, writing), reading
    os.close(reading)
    os.close(writing)


def test_progress_update_mechanisms(child, db):
    page, outlet, reading = child
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 10, outlet=outlet)
    version, _ = page.read()
    assert version == 0
    tracker.update_step("Fetching", 3)
    tracker.set_estimated_duration(42)
    version, progress = page.read()
    assert version > 0
    assert (progress.step, progress.completed, progress.total, progress.percent) == ("Fetching", 3, 10, 30.0)
    assert progress.estimated_s == 42
    tracker.item_failed("https://example.org", "No answer", kind="transient", tries=2)
    assert page.read()[1].problems == 1
    item, line = frames(os.read(reading, 65536))
    assert item["item"] == {"key": "https://example.org", "outcome": "failed", "kind": "transient", "reason": "No answer"}
    assert line["log"]["message"] == "https://example.org: No answer"
    assert line["log"]["data"] == {"tries": 2}


def frames(data):
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(orjson.loads(data[4 : 4 + size]))
        data = data[4 + size :]
    return found


def test_an_unknown_total_has_no_percentage():
    outlet = Recorder()
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", outlet=outlet)
    tracker.update_step("Reading")
    tracker.set_total(4)
    tracker.update_step("Reading")
    assert outlet.steps == [("Reading", 1, None), ("Reading", 1, 25.0), ("Reading", 2, 50.0)]


def test_more_steps_than_there_are_stay_at_the_total():
    outlet = Recorder()
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 2, outlet=outlet)
    tracker.update_step("x", 5)
    assert outlet.steps[-1] == ("x", 2, 100.0)


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="cannot be"):
        ProgressTracker("01970000-0000-7000-8000-000000000000", -1, outlet=Recorder())
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 1, outlet=Recorder())
    with pytest.raises(ValueError, match="not undone"):
        tracker.update_step("x", -1)
    with pytest.raises(ValueError, match="cannot be"):
        tracker.set_total(2**40)
    with pytest.raises(ValueError, match="seconds"):
        tracker.set_estimated_duration(float("nan"))


def test_a_cancel_is_raised_in_whichever_thread_calls(child):
    page, outlet, _ = child
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 1, outlet=outlet)
    page.ask_to_cancel()
    raised = []

    def work():
        try:
            tracker.update_step("x")
        except JobCancelled as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert len(raised) == 1
    with pytest.raises(JobCancelled):
        tracker.log_info("also here")


def test_a_handler_cannot_swallow_a_cancel():
    assert not issubclass(JobCancelled, Exception)


def test_steps_from_many_threads_are_all_counted(child):
    page, outlet, _ = child
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 4000, outlet=outlet)
    threads = [threading.Thread(target=lambda: [tracker.update_step("x") for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert page.read()[1].completed == 4000


def test_a_page_left_in_the_middle_of_a_write_is_still_read(child):
    """A child killed while it writes leaves an odd counter; the reader does not wait for it."""
    page, _, _ = child
    page.write(Progress(step="Last", completed=2, total=3))
    page.memory[8] |= 1
    assert page.read()[1].step == "Last"


def test_lines_over_the_limit_are_counted(child, monkeypatch):
    _, outlet, reading = child
    outlet.lines_max = 1
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 1, outlet=outlet)
    tracker.log_info("kept")
    os.read(reading, 65536)
    tracker.log_info("counted")
    assert orjson.loads(os.read(reading, 65536)[4:]) == {"dropped": 1}


def test_odd_data_in_a_line_is_kept_as_text(child):
    _, outlet, reading = child
    tracker = ProgressTracker("01970000-0000-7000-8000-000000000000", 1, outlet=outlet)
    tracker.log_info("a", kinds={1, 2}, big=1 << 80)
    frame = orjson.loads(os.read(reading, 65536)[4:])
    assert frame["log"]["message"] == "a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b\x1b[31m", "a�b�[31m"),
        ("tab\tnew\nline", "tab\tnew\nline"),
        ("\ud800", "�"),
        ("x" * 12, "xxxxxxxxxx … (2 characters left out)"),
    ],
)
def test_text_is_made_harmless(text, shown):
    assert clean_text(text, 10 if text.startswith("x") else 100) == shown


def test_outside_a_child_writes_are_coalesced(running_job, django_assert_max_num_queries):
    """10,000 steps in a tight loop are a handful of writes, and the last state is written at the end."""
    with django_assert_max_num_queries(40), ProgressTracker(running_job.pk, 10_000) as tracker:
        for _ in range(10_000):
            tracker.update_step("Counting")
    row = reload(running_job)
    assert (row.completed_steps, row.total_steps) == (10_000, 10_000)
