"""Who is told of what."""

import asyncio

import pytest
from django.core import mail
from django.test import override_settings

from jobs import live
from jobs.manager import JobManager
from jobs.models import Notification
from jobs.notifications import JobNotificationService
from jobs.tests.fixtures import reload


@pytest.fixture
def published(monkeypatch):
    """What left this process for browsers."""
    sent = []
    monkeypatch.setattr(live, "publish", lambda group, message, **_: sent.append((group, message)) or True)
    return sent


@pytest.mark.django_db(transaction=True)
def test_the_three_coroutines_reach_clients(running_job, published):
    service = JobNotificationService()

    async def all_three():
        await service.notify_progress_update(running_job.pk, {"revision": 3, "percent": 50.0})
        await service.notify_progress_update(running_job.pk, {"percent": 50.0})
        await service.notify_job_completed(running_job.pk, "4 steps")
        await service.notify_job_failed(running_job.pk, "told once already")

    asyncio.run(all_three())
    to_job = [message["type"] for group, message in published if group == f"job.{running_job.pk}"]
    assert to_job == ["job.progress", "job.reread"]
    told = [message["text"] for group, message in published if group == f"user.{running_job.created_by_id}"]
    assert told[0] == f"{running_job.name}: 4 steps"
    assert Notification.objects.get().text == told[0]


@override_settings(PUBLIC_URL="https://fieldwork.example.org")
def test_a_mail_says_what_came_of_the_job(running_job, analyst):
    JobManager().mark_failed(running_job.pk, "No answer", attempt=1, advice="Check the host.")
    job = reload(running_job)
    job.name = "A name\r\nBcc: everybody@example.org"
    assert JobNotificationService().send_email_notification(analyst.email, job) == 1
    [message] = mail.outbox
    assert message.subject == "Failed: A name Bcc: everybody@example.org"
    assert message.to == [analyst.email]
    for part in ("No answer", "Check the host.", f"https://fieldwork.example.org/jobs/{job.pk}/"):
        assert part in message.body
