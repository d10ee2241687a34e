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
    # A job's own limits, as people may set them: what a child needs to start, and what no machine of ours has.
    "memory_limit_min_mb": 32,
    "memory_limit_max_mb": 1_000_000,
    "time_limit_max_s": 30 * 86_400,
    # New jobs are held while the mean over this window is above cpu_threshold, until it is this much below.
    "cpu_window_s": 15.0,
    "cpu_hysteresis": 10.0,
    # Memory that must stay free, beside what a new job is likely to need (by its type's history, at first this).
    "memory_floor_mb": 256,
    "memory_guess_mb": 64,
    # Free disk below which no new job starts.
    "disk_floor_mb": 2048,
    # Places that only HIGH and URGENT jobs may take, where there are at least three.
    "reserved_slots": 1,
    # Jobs of one person that run at once; None: as many as there are places, fairly shared.
    "running_per_user_max": None,
    # After this long without a place an urgent job has another one make way.
    "urgent_wait_s": 10.0,
    # Retry delays after the first, second, … counted failure.
    "retry_delays_s": [60, 300, 900, 3600],
    "retry_jitter": 0.1,
    # A host may ask for a longer wait (Retry-After); not longer than this.
    "retry_after_max_s": 86_400,
    # A job whose process vanished so often is not tried again by itself.
    "poison_max": 3,
    # The watch loop writes and publishes what changed at this pace.
    "watch_interval_s": 0.2,
    "sample_interval_s": 1.0,
    # Above 70 % of the memory limit a job is measured this often.
    "sample_close_s": 0.05,
    # A running job without progress for three of its usual steps, and for so long at least, is stalled.
    "stalled_min_s": 60.0,
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
    # The sentinel beats each half second; one that stands still for so long is replaced. So is one whose idle
    # workers leave due work alone for so long.
    "sentinel_stuck_s": 3.0,
    "unclaimed_s": 3.0,
    # A browser is asked for a sign of life this often, and its socket is closed after so long without one, or
    # at once when this much waits to be read by it.
    "socket_ping_s": 20,
    "socket_gone_s": 20,
    "socket_unsent_bytes_max": 8_000_000,
    # How long ended jobs stay in the database before they go to the archive.
    "keep_failed_days": 7,
    "keep_completed_days": 30,
    "keep_cancelled_days": 30,
    # One archive file holds so many jobs: the unit of writing, verifying and deleting.
    "archive_batch": 500,
    # A waiting job is raised by one class for each of these, never above HIGH.
    "ageing_s": 300.0,
    # Log lines kept per job; the rest is counted. One line is cut at this many characters.
    "log_lines_max": 100_000,
    "log_line_chars_max": 4_000,
    # A result larger than this becomes a file beside the job; one over the second limit is refused.
    "result_bytes_max": 1_000_000,
    "result_file_bytes_max": 200_000_000,
    "traceback_chars_max": 20_000,
    # A mail that could not be sent is tried again after these; then it is given up, and the page says so.
    "mail_delays_s": [60, 300, 900, 3600],
    # Jobs one person may have waiting or running.
    "open_jobs_per_user_max": 1_000,
    # Jobs one bulk action changes.
    "bulk_max": 2_000,
}


def get(name: str) -> Any:
    """The value of one option. Unknown names raise KeyError: they are mistakes in our code."""
    default = DEFAULTS[name]
    return getattr(settings, "JOBS", {}).get(name, default)
