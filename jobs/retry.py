"""When to try again, or never: pure functions of the error, the tries so far and the clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from django.db import InterfaceError, OperationalError

from jobs.errors import JobError, Kind

# Exceptions of the standard library that mean "outside did not answer" (OSError covers sockets,
# DNS and timeouts; a full disk is one too, and passes once there is room).
TRANSIENT_TYPES: tuple[type[BaseException], ...] = (OSError, TimeoutError, ConnectionError, OperationalError, InterfaceError)
PERMANENT_TYPES: tuple[type[BaseException], ...] = (TypeError, AttributeError, NameError, ImportError, SyntaxError)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and after how long. `delays_s` repeats its last entry."""

    max_retries: int
    delays_s: tuple[int, ...]
    jitter: float = 0.1
    transient: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    retry_after_max_s: float = 86_400


def kind_of(error: BaseException, policy: RetryPolicy) -> str:
    """The kind of an error: what the job type declares comes first, then its own class, then ours."""
    if isinstance(error, policy.permanent):
        return Kind.PERMANENT
    if isinstance(error, policy.transient):
        return Kind.TRANSIENT
    if isinstance(error, JobError):
        return error.kind
    if isinstance(error, MemoryError):
        return Kind.LIMIT
    if isinstance(error, PERMANENT_TYPES):
        return Kind.PERMANENT
    if isinstance(error, TRANSIENT_TYPES):
        return Kind.TRANSIENT
    return Kind.UNKNOWN


def is_retryable(kind: str) -> bool:
    """Permanent errors and limits would only repeat themselves; the others may pass."""
    return kind in (Kind.TRANSIENT, Kind.LOST, Kind.UNKNOWN)


def delay_s(policy: RetryPolicy, retry_count: int) -> int:
    """Seconds before the try after `retry_count` counted failures (0 = the first), without jitter."""
    return policy.delays_s[min(retry_count, len(policy.delays_s) - 1)]


def next_try(
    policy: RetryPolicy, kind: str, retry_count: int, now: datetime, rng: Random, retry_after_s: float | None = None
) -> datetime | None:
    """When to try again, or None to give up.

    `retry_count` is the number of failures counted before this one. The jitter spreads jobs that
    failed together by up to ±10 % (F17). `retry_after_s`, what the other side asked for, is never
    undercut and counts up to `policy.retry_after_max_s`.
    """
    if not is_retryable(kind) or retry_count >= policy.max_retries:
        return None
    spread = 1 + rng.uniform(-policy.jitter, policy.jitter)
    asked = min(retry_after_s or 0.0, policy.retry_after_max_s)
    return now + timedelta(seconds=max(delay_s(policy, retry_count) * spread, asked * (1 + abs(spread - 1))))
