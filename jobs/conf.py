"""The times, sizes and limits that jobs run by; `settings.JOBS` overrides any of them.

Every name carries its unit. Tests shorten the times through the environment variable JOBS
(JSON), so that a real cluster in another process runs with the same values.
"""

from typing import Any

from django.conf import settings

DEFAULTS: dict[str, Any] = {
    # How many jobs this machine runs at once. Workers only watch a child each and share their memory.
    "max_concurrent_jobs": 10,
    # ResourceManager's defaults, as the specification names them.
    "memory_limit_mb": 2048,
    "cpu_threshold": 80.0,
    # Retry delays after the first, second, … counted failure.
    "retry_delays_s": [60, 300, 900, 3600],
    "retry_jitter": 0.1,
    # The watch loop writes and publishes what changed at this pace.
    "watch_interval_s": 0.2,
    "sample_interval_s": 1.0,
    # The lease: a counter raised this often, a job is lost when it stands still for so long.
    "beat_interval_s": 2.0,
    "lease_s": 10.0,
    # A worker that could not renew for this long ends its child itself, so two copies never run at once.
    "lease_giveup_s": 8.0,
    # A cancelled child gets this long to return, then SIGTERM, then this long again until SIGKILL.
    "cancel_grace_s": 5.0,
    "terminate_grace_s": 3.0,
    # SIGTERM to the cluster: running jobs get this long, then they are put back.
    "drain_s": 8.0,
    # A worker row that was not seen for this long no longer counts as alive.
    "worker_gone_s": 10.0,
    "tick_s": 1.0,
    # A waiting job is raised by one class for each of these, never above HIGH.
    "ageing_s": 300.0,
    # Log lines kept per job; the rest is counted. One line is cut at this many characters.
    "log_lines_max": 100_000,
    "log_line_chars_max": 4_000,
    # A result larger than this is refused with a clear error instead of filling the row.
    "result_bytes_max": 1_000_000,
    "traceback_chars_max": 20_000,
    # Jobs one person may have waiting or running.
    "open_jobs_per_user_max": 1_000,
}


def get(name: str) -> Any:
    """The value of one option. Unknown names raise KeyError: they are mistakes in our code."""
    default = DEFAULTS[name]
    return getattr(settings, "JOBS", {}).get(name, default)
