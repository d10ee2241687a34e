"""The smallest job: what is measured is everything around it."""

import signal
import time

from jobs.registry import register


@register("bench_noop", label="No-op", hidden=True)
def noop(tracker, parameters):
    return {}


@register("bench_start", label="Start time", hidden=True)
def start(tracker, parameters):
    return {"started": time.time()}


@register("bench_wait", label="Waits, and reports", hidden=True)
def wait(tracker, parameters):
    while True:
        tracker.update_step("Waiting", 0)
        time.sleep(0.05)


@register("bench_stubborn", label="Ignores what it is told", hidden=True)
def stubborn(tracker, parameters):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


@register("bench_eater", label="Passes its memory limit", hidden=True, memory_limit_mb=64, max_retries=0)
def eater(tracker, parameters):
    kept = [b"x" * (1 << 20) for _ in range(60)]
    tracker.log_info("At the limit")
    while True:
        kept.append(b"x" * (1 << 20))
        time.sleep(0.002)
