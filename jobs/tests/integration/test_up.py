"""`manage.py up` as a process."""

import socket

import psutil
import pytest
from django.db import connection, transaction
from django.test import Client

from jobs.manager import JobManager
from jobs.models import Notification
from jobs.tests.fixtures import Stack, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_stops_while_a_request_is_being_answered(running_job, analyst):
    """The request waits for a lock that the test holds; the process ends all the same, and nothing is half done."""
    JobManager().mark_completed(running_job.pk, {}, attempt=1)
    client = Client()
    client.force_login(analyst)
    session, token = client.cookies["sessionid"].value, "a" * 32
    stack = Stack(free_port(), workers=False)
    threads = psutil.Process(stack.process.pid).num_threads()
    with socket.create_connection(("127.0.0.1", stack.port)) as client_socket, transaction.atomic():
        Notification.objects.update(text="held")
        request = (
            f"POST /notifications/ HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nContent-Length: 0\r\n"
            f"Cookie: sessionid={session}; csrftoken={token}\r\nX-CSRFToken: {token}\r\n\r\n"
        )
        client_socket.sendall(request.encode())
        wait_for(lambda: psutil.Process(stack.process.pid).num_threads() > threads, "the request to be in work")
        stack.process.terminate()
        assert stack.process.wait(30) == 0
    if connection.vendor == "sqlite":  # PostgreSQL completes the one statement that it was given, which is whole too
        assert Notification.objects.get().read_at is None
