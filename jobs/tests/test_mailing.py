"""Of what people get mail, when, and what it says; sent to a real SMTP server."""

from datetime import UTC, datetime, time
from email import message_from_bytes, policy
from uuid import uuid4

import pytest
from aiosmtpd.controller import Controller
from django.core import mail

from jobs.mailing import mail_due
from jobs.manager import JobManager
from jobs.models import MailWish, Notification
from jobs.notifications import JobNotificationService
from jobs.states import Status
from jobs.tests.servers import free_port

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def wish(user, mail, **fields):
    return MailWish.objects.create(user=user, mail=mail, **fields)


@pytest.mark.parametrize(("wanted", "of_success", "of_failure"), [
    ("each", NOON, NOON), ("failures", None, NOON), ("none", None, None),
    ("digest", datetime(2026, 6, 16, 6, tzinfo=UTC), datetime(2026, 6, 16, 6, tzinfo=UTC)),  # 8 in Berlin
])  # fmt: skip
def test_what_people_wish_is_what_they_get(analyst, wanted, of_success, of_failure):
    wish(analyst, wanted, zone="Europe/Berlin")
    assert mail_due(analyst.pk, None, Status.COMPLETED, NOON) == of_success
    assert mail_due(analyst.pk, None, Status.FAILED, NOON) == of_failure
    assert mail_due(analyst.pk, None, Status.RUNNING, NOON) is None


def test_without_a_wish_failures_are_told(analyst):
    assert mail_due(analyst.pk, None, Status.FAILED, NOON) == NOON
    assert mail_due(analyst.pk, None, Status.COMPLETED, NOON) is None


def test_a_subject_may_have_a_wish_of_its_own(analyst):
    quiet, loud = uuid4(), uuid4()
    wish(analyst, "failures")
    wish(analyst, "none", subject_id=quiet)
    wish(analyst, "each", subject_id=loud)
    assert mail_due(analyst.pk, quiet, Status.FAILED, NOON) is None
    assert mail_due(analyst.pk, loud, Status.COMPLETED, NOON) == NOON
    assert mail_due(analyst.pk, uuid4(), Status.COMPLETED, NOON) is None


@pytest.mark.parametrize(("begin", "end", "due"), [
    (time(13), time(15), datetime(2026, 6, 15, 13, tzinfo=UTC)),  # it is 14 in Berlin
    (time(15), time(18), NOON),
    (time(22), time(7), NOON),
    (time(12), time(7), datetime(2026, 6, 16, 5, tzinfo=UTC)),  # past midnight
    (time(8), time(8), NOON),
])  # fmt: skip
def test_quiet_hours_are_those_of_the_persons_clock(analyst, begin, end, due):
    wish(analyst, "each", quiet_from=begin, quiet_until=end, zone="Europe/Berlin")
    assert mail_due(analyst.pk, None, Status.COMPLETED, NOON) == due


def test_a_zone_that_is_none_is_utc(analyst):
    wish(analyst, "digest", zone="Nowhere/At_All")
    assert mail_due(analyst.pk, None, Status.COMPLETED, NOON) == datetime(2026, 6, 16, 8, tzinfo=UTC)


def test_the_form_keeps_what_was_wished(client, analyst):
    client.force_login(analyst)
    said = {"mail": "digest", "quiet_from": "22:00", "quiet_until": "07:00"}
    assert client.post("/notifications/mail/", said).status_code == 302
    assert (MailWish.objects.get().mail, MailWish.objects.get().quiet_until) == ("digest", time(7))
    assert "Once a day" in client.get("/notifications/mail/").content.decode()


@pytest.mark.parametrize("wrong", [{"mail": "always"}, {"quiet_from": "25:00"}, {"quiet_from": "22:00"}])
def test_a_wrong_wish_is_marked_and_what_was_typed_stays(client, analyst, wrong):
    client.force_login(analyst)
    response = client.post("/notifications/mail/", {"mail": "each", **wrong})
    assert response.status_code == 422
    assert 'class="errors"' in response.content.decode()
    assert not MailWish.objects.exists()


class Inbox:
    def __init__(self):
        self.messages = []

    async def handle_DATA(self, server, session, envelope):
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def inbox(settings):
    """A real SMTP server on loopback."""
    handler = Inbox()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = controller.hostname, controller.port
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.PUBLIC_URL = "https://fieldwork.example.org"
    yield handler.messages
    controller.stop()


def test_a_mail_has_text_and_html_and_leads_to_the_line_that_matters(running_job, analyst, inbox):
    JobManager().mark_failed(running_job.pk, "No answer from <example.org>", attempt=1, advice="Check the host.")
    assert JobNotificationService().send_due_mail() == 1
    [message] = inbox
    line = running_job.logs.filter(level=40).get().seq
    text = message.get_body(("plain",)).get_content()
    page = message.get_body(("html",)).get_content()
    assert message["Subject"] == f"Failed: {running_job.name}"
    assert message["To"] == analyst.email
    for part in ("No answer from <example.org>", "Check the host.", "What can be done: Retry now"):
        assert part in text
    assert f"https://fieldwork.example.org/jobs/{running_job.pk}/#L{line}" in text
    assert f'href="https://fieldwork.example.org/jobs/{running_job.pk}/#L{line}"' in page
    assert "No answer from &lt;example.org&gt;" in page
    assert "https://fieldwork.example.org/notifications/mail/" in page


def test_the_daily_mail_tells_of_all(analyst, inbox):
    wish(analyst, "digest")
    for failed in (True, False, False):
        job = JobManager().create_job("sample_steps", created_by=analyst)
        JobManager().start([job.pk], worker_id="w", host="h")
        if failed:
            JobManager().mark_failed(job.pk, "No answer", attempt=1)
        else:
            JobManager().mark_completed(job.pk, {"summary": "4 steps"}, attempt=1)
    assert JobNotificationService().send_due_mail() == 0
    Notification.objects.update(mail_due_at=NOON.replace(year=2020))
    assert JobNotificationService().send_due_mail() == 1
    [message] = inbox
    assert message["Subject"] == "1 job failed, 2 completed"
    assert message.get_body(("plain",)).get_content().count("4 steps") == 2


def test_a_mail_of_what_was_retried_since_says_what_was_and_what_is(running_job, analyst, inbox):
    JobManager().mark_failed(running_job.pk, "No answer", attempt=1)
    JobManager().retry_job(running_job.pk, by=analyst)
    assert JobNotificationService().send_due_mail() == 1
    [message] = inbox
    assert message["Subject"] == "1 job failed"
    assert "No answer Now it is waiting." in " ".join(message.get_body(("plain",)).get_content().split())


def test_a_failure_that_joins_one_without_mail_brings_the_mail_that_is_wished(analyst):
    def fails(subject_id):
        job = JobManager().create_job("sample_steps", created_by=analyst, subject_id=subject_id)
        JobManager().start([job.pk], worker_id="w", host="h")
        JobManager().mark_failed(job.pk, "No answer", attempt=1)

    quiet, loud = uuid4(), uuid4()
    wish(analyst, "none", subject_id=quiet)
    wish(analyst, "each", subject_id=loud)
    fails(quiet)
    assert JobNotificationService().send_due_mail() == 0
    fails(loud)
    assert JobNotificationService().send_due_mail() == 1
    fails(loud)
    assert JobNotificationService().send_due_mail() == 0
    assert Notification.objects.get().count == 3


def test_without_a_server_the_console_shows_it(running_job, analyst):
    JobManager().mark_failed(running_job.pk, "No answer", attempt=1)
    assert JobNotificationService().send_due_mail() == 1
    [message] = mail.outbox
    assert message.alternatives[0][1] == "text/html"
