"""What a page states against what the system says."""

import itertools
import os
import signal
import time

import psutil
import pytest

from jobs import timing
from jobs.states import Status
from jobs.tests.fixtures import child_of, create, ended, reload, status_of, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def test_memory_of_a_child_that_takes_a_known_amount(cluster, gate):
    """Within 5 % of what it took, and of what the system says it alone has."""
    job = create("sample_load", parameters={"memory_mb": 400, "gate": str(gate)})
    wait_for(lambda: reload(job).current_step == "Taken", "the memory to be taken")
    before = len(job.attempts.get().samples)
    wait_for(lambda: len(job.attempts.get().samples) >= before + 2, "a measurement of it all")
    private = psutil.Process(child_of(job)).memory_full_info().uss / 1024**2
    shown = reload(job).memory_usage_mb
    assert shown == pytest.approx(private, rel=0.05)
    assert shown == pytest.approx(400, rel=0.05)
    gate.open_to(1)
    wait_for(lambda: ended(job), "the end")
    assert reload(job).memory_peak_mb >= shown - 1


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_cpu_of_a_child_with_a_known_load(cluster, gate, share):
    """Shown and measured from outside over the same time: within 10 % of each other, and the load is what was asked for."""
    job = create("sample_load", parameters={"cpu_share": share, "gate": str(gate)})
    child = psutil.Process(child_of(job))
    wait_for(lambda: len(job.attempts.get().samples) >= 2, "it to run evenly")
    began, used = time.monotonic(), sum(child.cpu_times()[:2])
    before = len(job.attempts.get().samples)
    wait_for(lambda: len(job.attempts.get().samples) >= before + 12, "a dozen samples")
    true = 100 * (sum(child.cpu_times()[:2]) - used) / (time.monotonic() - began)
    samples = job.attempts.get().samples[before - 1 :]  # to the last one: every fifth measurement writes those before it, too
    spans = [(later[0] - sooner[0], later[2]) for sooner, later in itertools.pairwise(samples)]
    shown = sum(seconds * percent for seconds, percent in spans) / sum(seconds for seconds, _ in spans)
    assert shown == pytest.approx(true, rel=0.1)
    assert true <= 115 * share  # less on a busy machine, which gives it less
    gate.open_to(1)
    wait_for(lambda: ended(job), "the end")
    assert status_of(job) == Status.COMPLETED
    assert reload(job).attempts.get().cpu_seconds > 0


def test_the_time_left_of_a_steady_job(cluster, gate):
    """At half time what is said to be left is within 20 % of what it then takes."""
    job = create("sample_paced", parameters={"total": 60, "step_s": 0.15})
    wait_for(lambda: reload(job).completed_steps >= 30, "half time")
    row, now = reload(job), time.time()
    left = row.estimated_duration - (now - row.started_at.timestamp())
    wait_for(lambda: ended(job), "the end")
    took = reload(job).completed_at.timestamp() - now
    assert left == pytest.approx(took, rel=0.2)


def test_where_the_time_of_a_job_went(cluster, gate):
    """Its parts add up to what it took, and each stage lasts until the next."""
    job = create("sample_phases", parameters={"gate": str(gate)})
    wait_for(lambda: reload(job).attempt == 1, "the start")
    asked = time.monotonic()
    wait_for(lambda: time.monotonic() - asked > 2, "some time at the network, once the child is there")
    gate.open_to(1)
    wait_for(lambda: reload(job).current_step == "Storing", "the second stage")
    gate.open_to(2)
    wait_for(lambda: ended(job), "the end")
    row, attempt = reload(job), job.attempts.get()
    parts = {part.key: part.seconds for part in timing.split(row, [attempt])}
    assert parts["network"] >= 0.4
    assert parts["writing"] > 0
    assert sum(parts.values()) == pytest.approx((row.completed_at - row.created_at).total_seconds(), abs=0.1)
    assert [stage.name for stage in timing.stages(attempt)] == ["Asking", "Storing"]
    assert timing.stages(attempt)[0].seconds >= 0.4
    host, requests, seconds = attempt.times["hosts"][0]
    assert (host, requests) == ("example.org", 1)
    assert seconds == pytest.approx(parts["network"], abs=0.05)


def test_what_a_killed_child_said_of_its_time_is_kept(cluster, gate):
    job = create("sample_phases", parameters={"gate": str(gate)}, max_retries=0)
    pid = child_of(job)
    gate.open_to(1)
    wait_for(lambda: reload(job).current_step == "Storing", "the second stage")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: ended(job), "the end")
    times = job.attempts.get().times
    assert [name for name, _ in times["stages"]] == ["Asking", "Storing"]
    assert times["network"] > 0
