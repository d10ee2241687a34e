"""What can go wrong with a job, and for each kind: is it worth a retry, and what helps.

Handlers raise these, or any exception at all; `jobs.retry.kind_of` decides about the others.
The docstring of a class is the sentence that people read; `advice` says what usually helps.
"""

from dataclasses import dataclass
from typing import Any


class Kind:
    """Why an attempt ended badly, as stored in `Job.error_kind`."""

    TRANSIENT = "transient"  # likely to pass: a host that does not answer
    PERMANENT = "permanent"  # the same input will fail again
    LIMIT = "limit"  # a limit of memory, CPU time or run time
    LOST = "lost"  # the process is gone without a word
    UNKNOWN = "unknown"  # an exception that nobody classified


# What an error of each kind means and what usually helps, in plain words; an error class may say it more exactly.
MEANING = {
    Kind.TRANSIENT: "Something outside this machine did not answer as it should. That often passes.",
    Kind.PERMANENT: "The same input would fail in the same way again.",
    Kind.LIMIT: "The job needed more than it may use, and was ended before it could harm others.",
    Kind.LOST: "The process that ran the job vanished without a word: a crash in a library, the system short of memory, or a kill by hand.",
    Kind.UNKNOWN: "The code of the job met something that it was not written for.",
}
TRIED_AGAIN = "It is tried again by itself."  # not said once no try is left
ADVICE = {
    Kind.TRANSIENT: f"{TRIED_AGAIN} If it keeps failing, check that the host is reachable.",
    Kind.PERMANENT: "Change the parameters and start the job again.",
    Kind.LIMIT: "Raise the limit for this job, or split its input.",
    Kind.LOST: f"{TRIED_AGAIN} If it happens each time, look at memory and at the last log lines.",
    Kind.UNKNOWN: "Look at the log around the error, then retry.",
}


class JobError(Exception):
    """The job could not go on."""

    kind = Kind.UNKNOWN
    advice = ""

    def __init__(self, message: str = "", **data: Any) -> None:
        super().__init__(message or self.__doc__)
        self.data = data


class TransientError(JobError):
    """Something outside did not answer; it often does a little later.

    `retry_after_s`: how long the other side asked to be left alone, in seconds.
    """

    kind = Kind.TRANSIENT
    advice = f"{TRIED_AGAIN} If it keeps failing, check that the host is reachable."

    def __init__(self, message: str = "", *, retry_after_s: float | None = None, **data: Any) -> None:
        super().__init__(message or "Something outside did not answer", **data)
        self.retry_after_s = retry_after_s


class PermanentError(JobError):
    """The same input would fail in the same way again."""

    kind = Kind.PERMANENT
    advice = "Change the parameters and start the job again."


class UnknownJobType(PermanentError):
    """No job type of that name is installed."""

    advice = "Install or rename the job type, then retry."


class InvalidParameters(PermanentError):
    """The parameters do not fit the job type. `errors` maps field names to lists of messages."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{field}: {' '.join(texts)}" for field, texts in errors.items()))


class InvalidResult(PermanentError):
    """The handler returned something that cannot be stored as JSON."""

    advice = "This is a fault in the job type: its result must be JSON and not too large."


class MemoryLimitExceeded(JobError):
    """The job used more memory than it may."""

    kind = Kind.LIMIT
    advice = "Raise the memory limit for this job, or split its input."

    def __init__(self, limit_mb: int, peak_mb: float) -> None:
        super().__init__(f"Needed more memory than the {limit_mb:,} MB it may use (peak {peak_mb:,.0f} MB)")


class RunTimeExceeded(JobError):
    """The job ran longer than it may."""

    kind = Kind.LIMIT
    advice = "Raise the time limit for this job, or split its input."

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"Ran longer than the {limit_s:,.0f} s it may")


class CpuTimeExceeded(JobError):
    """The job used more CPU time than it may."""

    kind = Kind.LIMIT
    advice = "Raise the CPU limit for this job, or split its input."

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"Used more than the {limit_s:,.0f} s of CPU time it may")


class AllItemsFailed(JobError):
    """Not one item of the job could be done."""


class WorkerLost(JobError):
    """The process that ran the job is gone."""

    kind = Kind.LOST
    advice = f"{TRIED_AGAIN} If it happens each time, look at memory and at the last log lines."


class NotAllowed(JobError):
    """The action does not fit the state of the job. Shown to the person who asked; nothing changed."""

    kind = Kind.PERMANENT


class QuotaExceeded(NotAllowed):
    """You have as many open jobs as one person may have."""


class JobStopped(BaseException):
    """Raised inside a handler to end it, where nothing is half done.

    A BaseException, so that no `except Exception` of a handler swallows it.
    """


class JobCancelled(JobStopped):
    """The job was cancelled, or this attempt is over."""


class JobPaused(JobStopped):
    """The job was asked to pause; what it has done is kept and it goes on from there."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended, as it travels from the child to the worker: an exception made plain."""

    kind: str
    message: str
    advice: str = ""
    traceback: str = ""
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: BaseException, kind: str, traceback: str = "") -> "Failure":
        name = type(error).__name__
        text = str(error)
        if not isinstance(error, JobError):
            text = f"{name}: {text}" if text else name
        advice = getattr(error, "advice", "") or ADVICE[kind]
        return cls(kind, text, advice, traceback, getattr(error, "retry_after_s", None))
