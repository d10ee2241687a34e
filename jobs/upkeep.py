"""Scheduled tasks: what django-q2's scheduler has a worker do now and then. Each takes effect once, whoever fires it.

While a worker does one, its row says so: to people, and to the watchdog, which would take it for idle.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.utils import timezone

from jobs import archive
from jobs.models import TaskLock, WorkerProcess
from jobs.notifications import JobNotificationService
from jobs.runner import current_worker


def archive_ended_jobs() -> int:
    """Cleanup with the days of the settings; returns the number of jobs that went to the archive."""
    with alone("archive ended jobs", timedelta(hours=1)) as is_ours:
        if not is_ours:
            return 0
        archive.remove_orphans()
        return archive.clean_up(archive.default_days()).jobs


def send_due_mail() -> int:
    """Mail about jobs that failed, also what could not be sent before; returns the number of mails sent."""
    with alone("send mail", timedelta(minutes=10)) as is_ours:
        return JobNotificationService().send_due_mail() if is_ours else 0


@contextmanager
def alone(name: str, at_most: timedelta) -> Iterator[bool]:
    """True for the one who has the lock, until the block ends, or `at_most` has passed after a crash."""
    TaskLock.objects.get_or_create(name=name, defaults={"until": timezone.now() - timedelta(days=1)})
    until = timezone.now() + at_most
    is_ours = TaskLock.objects.filter(name=name, until__lte=timezone.now()).update(until=until) > 0
    if not is_ours:
        yield False
        return
    worker = current_worker()
    mine = WorkerProcess.objects.filter(name=worker.name if worker else "")
    try:
        mine.update(upkeep=name)
        yield True
    finally:
        mine.update(upkeep="")
        TaskLock.objects.filter(name=name, until=until).update(until=timezone.now())
