"""The smallest job: what is measured is everything around it."""

import time

from jobs.registry import register


@register("bench_noop", label="No-op", hidden=True)
def noop(tracker, parameters):
    return {}


@register("bench_start", label="Start time", hidden=True)
def start(tracker, parameters):
    return {"started": time.time()}
