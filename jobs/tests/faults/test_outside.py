"""F26–F28: the web process, its clients, and the mail server."""

import asyncio
import base64
import json
import os
import signal
import socket
import time
from datetime import timedelta

import psutil
import pytest
import time_machine
import websockets
from asgiref.sync import sync_to_async
from django.core import mail
from django.test import Client
from django.utils import timezone

from jobs import conf, live, upkeep
from jobs.manager import JobManager
from jobs.models import Notification
from jobs.tests.fixtures import create, reload

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def cookie_of(user):
    client = Client()
    client.force_login(user)
    return f"sessionid={client.cookies['sessionid'].value}"


def start(analyst, **options):
    job = create(created_by=analyst, **options)
    return JobManager().start([job.pk], worker_id="atlas-1", host="atlas")


def connect(stack, path, cookie):
    url = f"ws://127.0.0.1:{stack.port}{path}"
    return websockets.connect(url, additional_headers={"Cookie": cookie}, origin=stack.base, open_timeout=30, max_size=None)


async def read_until(socket_, condition, deadline_s=30):
    """The first message that is as wanted."""
    async with asyncio.timeout(deadline_s):
        async for text in socket_:
            message = json.loads(text)
            if condition(message):
                return message
    raise AssertionError("the socket was closed before")


def test_f26_the_web_process_restarts_under_fifty_watchers(start_stack, analyst):
    """SIGKILL; all connect again and see the truth, which moved on meanwhile. Browsers themselves: test_pages_live.py."""
    stack = start_stack(workers=False)
    job, cookie = start(analyst, parameters={"total": 100}), cookie_of(analyst)

    few = asyncio.Semaphore(5)  # a handshake has 5 s, and fifty at once may take longer on a busy machine

    async def opened():
        async with few:
            return await connect(stack, f"/ws/jobs/{job.pk}", cookie)

    async def watch(watching, again, back):
        async with await opened() as first:
            seen = (await read_until(first, lambda m: m["type"] == "job.snapshot"))["job"]["completed"]
            await watching.wait()
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await first.recv()
        await again.wait()
        async with await opened() as second:
            snapshot = await read_until(second, lambda m: m["type"] == "job.snapshot")
            await back.wait()
            ended = await read_until(second, lambda m: m.get("job", m).get("status") == "COMPLETED")
            return seen, snapshot["job"]["completed"], bool(ended)

    async def all_of_them():
        watching, again, back = asyncio.Barrier(51), asyncio.Event(), asyncio.Barrier(51)
        watchers = [asyncio.create_task(watch(watching, again, back)) for _ in range(50)]
        await watching.wait()
        os.killpg(stack.process.pid, signal.SIGKILL)
        await asyncio.to_thread(stack.process.wait)
        await sync_to_async(JobManager().update_progress)(job.pk, 41, "Step 41", attempt=1, completed_steps=41)
        await asyncio.to_thread(stack.start)
        again.set()
        await back.wait()
        await sync_to_async(JobManager().mark_completed)(job.pk, {}, attempt=1)
        return await asyncio.gather(*watchers)

    seen = asyncio.run(asyncio.wait_for(all_of_them(), 90))
    assert len(seen) == 50
    assert {before for before, _, _ in seen} == {0}
    assert {after for _, after, _ in seen} == {41}


def deaf_client(stack, path, cookie):
    """Shakes hands and never reads."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", stack.port))
    key = base64.b64encode(b"0123456789abcdef").decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Origin: {stack.base}\r\nCookie: {cookie}\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    deaf.sendall(request.encode())
    assert deaf.recv(12) == b"HTTP/1.1 101"
    return deaf


@pytest.mark.parametrize(
    "limits",
    [
        {"socket_unsent_bytes_max": 100_000, "socket_gone_s": 3600},
        {"socket_ping_s": 1, "socket_gone_s": 3, "socket_unsent_bytes_max": 10**9},
    ],
    ids=["bytes", "silence"],
)
def test_f27_a_client_that_never_reads(start_stack, analyst, limits):
    """It is given up, at a number of bytes or after some silence; another one gets all there is meanwhile."""
    stack = start_stack(workers=False, **limits)
    job, cookie = start(analyst), cookie_of(analyst)
    path = f"/ws/jobs/{job.pk}"
    deaf = deaf_client(stack, path, cookie)
    server = psutil.Process(stack.process.pid)

    def is_connected():
        return any(c.raddr and c.raddr.port == deaf.getsockname()[1] for c in server.net_connections())

    assert is_connected()

    seq = reload(job).log_seq

    async def speak():
        async with connect(stack, path, cookie) as good:
            await read_until(good, lambda m: m["type"] == "job.snapshot")
            await good.send(json.dumps({"type": "resume", "after": seq}))
            number, until = 0, time.monotonic() + 60
            while await asyncio.to_thread(is_connected) and time.monotonic() < until:
                number += 1
                lines = [{"level": 20, "message": "x" * 3000} for _ in range(50)]
                first = await sync_to_async(say_lines)(job, lines)
                await read_until(good, lambda m, first=first: m.get("lines") and m["lines"][-1][0] >= first)
            return number

    rounds = asyncio.run(speak())
    assert not is_connected(), f"still connected after {rounds} rounds"
    deaf.close()


def say_lines(job, lines):
    """What a worker does with them: rows, then a message. Returns the number of the first."""
    first = JobManager().append_logs(job.pk, lines, attempt=1)
    live.publish(f"job.{job.pk}", {"type": "job.log", "id": str(job.pk), "first": first, "lines": [], "missing": len(lines)})
    return first


def test_f27_a_client_that_reconnects_a_hundred_times(start_stack, analyst):
    """Memory stays bounded, and the next one is served as the first."""
    stack = start_stack(workers=False)
    job, cookie = start(analyst), cookie_of(analyst)
    server = psutil.Process(stack.process.pid)

    async def reconnect(times):
        for _ in range(times):
            async with connect(stack, f"/ws/jobs/{job.pk}", cookie) as ws:
                await read_until(ws, lambda m: m["type"] == "job.snapshot")

    asyncio.run(reconnect(100))
    before = server.memory_full_info().uss
    asyncio.run(reconnect(100))
    assert server.memory_full_info().uss - before < 20_000_000
    assert sum(c.status == "ESTABLISHED" and c.laddr.port == stack.port for c in server.net_connections()) <= 2


@pytest.fixture
def silent_server():
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("trouble", ["down", "slow"])
def test_f28_the_mail_server(running_job, analyst, settings, silent_server, client, trouble):
    """The end of the job does not wait for it; the mail is tried again, then given up with a note that people see."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", silent_server if trouble == "slow" else 9
    settings.EMAIL_TIMEOUT = 0.2
    JobManager().mark_failed(running_job.pk, "It broke", attempt=1)
    assert reload(running_job).status == "FAILED"
    now = timezone.now()
    delays = conf.get("mail_delays_s")
    client.force_login(analyst)
    for number, delay in enumerate([0, *delays], 1):
        now += timedelta(seconds=delay)
        with time_machine.travel(now + timedelta(seconds=number), tick=False):
            assert upkeep.send_due_mail() == 0
            row = Notification.objects.get()
            assert (row.mail_tries, row.mail_due_at is None) == (number, number > len(delays))
            assert "The mail about it could not be sent" in client.get("/notifications/").content.decode()
    assert reload(running_job).logs.last().message.startswith("The mail about this could not be sent in 5 tries: ")
    assert upkeep.send_due_mail() == 0
    assert mail.outbox == []


def test_f28_a_mail_server_that_is_back(running_job, analyst, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT, settings.EMAIL_HOST = 9, "127.0.0.1"
    JobManager().mark_failed(running_job.pk, "It broke", attempt=1)
    assert upkeep.send_due_mail() == 0
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert upkeep.send_due_mail() == 0  # it is not due yet
    with time_machine.travel(timezone.now() + timedelta(seconds=61)):
        assert upkeep.send_due_mail() == 1
        assert upkeep.send_due_mail() == 0
    [sent] = mail.outbox
    assert (sent.to, "It broke" in sent.body) == ([analyst.email], True)
    row = Notification.objects.get()
    assert (row.mail_due_at, row.mail_error) == (None, "")


def test_many_failures_are_one_mail(analyst, settings):
    for number in range(25):
        job = start(analyst, name=f"Job {number}")
        JobManager().mark_failed(job.pk, f"Part {chr(97 + number)} broke", attempt=1)
    assert upkeep.send_due_mail() == 1
    [sent] = mail.outbox
    assert sent.subject == "25 jobs failed"
    assert "And 5 more." in sent.body


def test_failures_that_are_alike_are_one_sentence_of_a_mail(analyst, settings):
    for number in range(25):
        job = start(analyst, name=f"Job {number}")
        JobManager().mark_failed(job.pk, f"Broke after {number} s", attempt=1)
    assert upkeep.send_due_mail() == 1
    [sent] = mail.outbox
    assert sent.subject == "25 jobs failed"
    assert "25 jobs failed in the same way: Broke after 24 s" in sent.body
