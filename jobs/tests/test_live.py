"""Sockets and the transports behind them."""

import asyncio
import os
import socket
import uuid
from contextlib import closing

import orjson
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.utils.module_loading import import_string

from jobs import consumers, live
from jobs.manager import JobManager
from jobs.models import Job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
ORIGIN = (b"origin", b"http://localhost")
application = import_string(settings.ASGI_APPLICATION)


@pytest_asyncio.fixture(autouse=True)
async def no_socket_is_left_open():
    yield
    await get_channel_layer().flush()
    for receiver in live._receivers.values():
        receiver.socket.close()
    live._receivers.clear()
    if live._kept is not None:
        live._kept.close()
        live._kept = None


@sync_to_async
def signed_in(name: str) -> bytes:
    user, _ = User.objects.get_or_create(username=name)
    client = Client()
    client.force_login(user)
    return f"sessionid={client.cookies['sessionid'].value}".encode()


@sync_to_async
def make_job(owner: str) -> Job:
    job = JobManager().create_job("sample_steps", parameters={"total": 4}, created_by=User.objects.get(username=owner))
    return JobManager().start([job.pk], worker_id="atlas-1", host="atlas")


def open_socket(path: str, cookie: bytes = b"", origin: tuple[bytes, bytes] = ORIGIN) -> WebsocketCommunicator:
    return WebsocketCommunicator(application, path, headers=[origin, (b"host", b"localhost"), (b"cookie", cookie)])


async def closed_with(socket_: WebsocketCommunicator) -> int | None:
    """The code with which the server closes, after whatever it says before."""
    connected, code = await socket_.connect(timeout=5)
    if not connected:
        return code
    while True:
        event = await socket_.receive_output(timeout=5)
        if event["type"] == "websocket.close":
            return event["code"]


async def next_of(socket_: WebsocketCommunicator, kind: str) -> dict:
    """The next message of a type; others that come before are passed over."""
    while True:
        message = orjson.loads(await socket_.receive_from(timeout=10))
        if message["type"] == kind:
            return message


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_snapshot_comes_first(slash):
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws = open_socket(f"/ws/jobs/{job.pk}{slash}", cookie)
    assert (await ws.connect(timeout=10))[0]
    snapshot = await next_of(ws, "job.snapshot")
    assert snapshot["job"]["sentence"] == "Started · 0 of 4 steps"
    assert snapshot["lines"] == []
    await ws.send_to(text_data='{"type": "resume", "after": 1}')
    assert [line[2] for line in (await next_of(ws, "job.snapshot"))["lines"]] == ["Started on atlas-1, attempt 1"]
    await ws.disconnect()


@pytest.mark.parametrize("path", ["/ws/jobs/{}", "/ws/jobs", "/ws/jobs?rows=0"])
async def test_a_ping_is_answered_as_long_as_the_database_answers(monkeypatch, path):
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws = open_socket(path.format(job.pk), cookie)
    assert (await ws.connect(timeout=10))[0]
    await ws.send_to(text_data='{"type": "ping"}')
    assert await next_of(ws, "pong") == {"type": "pong"}
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.call_soon_threadsafe(asked.set)
        raise OperationalError("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr(consumers, "ask", gone)
        await ws.send_to(text_data='{"type": "ping"}')
        await asyncio.wait_for(asked.wait(), 10)
    await ws.send_to(text_data='{"type": "ping"}')  # the socket is still there, and this one is answered
    assert await next_of(ws, "pong") == {"type": "pong"}
    while not await ws.receive_nothing(timeout=0.2, interval=0.02):
        assert orjson.loads(await ws.receive_from())["type"] != "pong", "the one before was answered, too"
    await ws.disconnect()


async def test_who_may_not_see_the_job_gets_4404():
    await signed_in("ortega")
    job = await make_job("ortega")
    cookie = await signed_in("sato")
    for job_id in (job.pk, uuid.uuid4(), "not-a-uuid", "1"):
        assert await closed_with(open_socket(f"/ws/jobs/{job_id}", cookie)) == 4404


async def test_without_a_session_4401():
    for path in ("/ws/jobs", f"/ws/jobs/{uuid.uuid4()}"):
        assert await closed_with(open_socket(path)) == 4401


async def test_a_foreign_origin_is_refused():
    cookie = await signed_in("ortega")
    ws = open_socket("/ws/jobs", cookie, (b"origin", b"https://evil.example"))
    assert not (await ws.connect(timeout=10))[0]


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        "17",
        '"x"',
        "{}",
        '{"type": "odd"}',
        '{"type": "resume", "after": "x"}',
        '{"type": "resume", "after": -1}',
        '{"type": "resume", "after": true}',
    ],
)
async def test_a_malformed_frame_is_answered_in_words_and_closes(frame):
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws = open_socket(f"/ws/jobs/{job.pk}", cookie)
    await ws.connect(timeout=10)
    await ws.send_to(text_data=frame)
    assert "type" in (await next_of(ws, "error"))["detail"]
    assert (await ws.receive_output(timeout=5))["code"] == 4400


async def test_progress_log_and_end_arrive():
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws = open_socket(f"/ws/jobs/{job.pk}", cookie)
    await ws.connect(timeout=10)
    await next_of(ws, "job.snapshot")
    await ws.send_to(text_data='{"type": "resume", "after": 2}')
    await next_of(ws, "job.snapshot")
    layer = get_channel_layer()
    await layer.group_send(f"job.{job.pk}", live.as_event({"type": "job.progress", "id": str(job.pk), "revision": 50, "percent": 25.0}))
    assert (await next_of(ws, "job.progress"))["percent"] == 25.0
    await layer.group_send(f"job.{job.pk}", live.as_event({"type": "job.progress", "id": str(job.pk), "revision": 49, "percent": 10.0}))
    await layer.group_send(
        f"job.{job.pk}", live.as_event({"type": "job.log", "id": str(job.pk), "first": 3, "missing": 0, "lines": [[20, "hello", 1.0, ""]]})
    )
    log = await next_of(ws, "job.log")  # and not the stale progress before it
    assert log["lines"] == [[3, 20, "hello", 1.0, ""]]
    await ws.disconnect()


async def test_a_socket_speaks_the_language_of_its_page():
    """What moves on a page is in the language of what was drawn: sentences, lines, notifications; unknown ones are English."""
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws, listing = open_socket(f"/ws/jobs/{job.pk}?lang=de", cookie), open_socket("/ws/jobs?rows=0&lang=de", cookie)
    other = open_socket(f"/ws/jobs/{job.pk}?lang=xx", cookie)
    for socket_ in (ws, listing, other):
        await socket_.connect(timeout=10)
    snapshot = await next_of(ws, "job.snapshot")
    assert (snapshot["job"]["label"], snapshot["job"]["sentence"]) == ("Läuft", "Begonnen · 0 von 4 Schritte")
    assert (await next_of(other, "job.snapshot"))["job"]["sentence"] == "Started · 0 of 4 steps"
    await ws.send_to(text_data='{"type": "resume", "after": 1}')
    assert [line[2] for line in (await next_of(ws, "job.snapshot"))["lines"]] == ["Begonnen auf atlas-1, Versuch 1"]
    await sync_to_async(JobManager().mark_failed)(job.pk, "Ran longer than the 60 s it may", attempt=1, kind="limit")
    assert (await next_of(listing, "notification"))["text"].endswith("Lief länger als die 60 s, die er darf")
    for socket_ in (ws, listing, other):
        await socket_.disconnect()


async def test_a_lost_message_is_repaired_from_the_rows(monkeypatch):
    """Nothing is published; the comparison with the rows brings the end all the same."""
    monkeypatch.setattr(consumers, "REPAIR_S", 0.1)
    monkeypatch.setattr(live, "publish", lambda *a, **k: False)
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws = open_socket(f"/ws/jobs/{job.pk}", cookie)
    await ws.connect(timeout=10)
    await next_of(ws, "job.snapshot")
    await sync_to_async(JobManager().mark_completed)(job.pk, {"summary": "4 steps"}, attempt=1)
    repaired = await next_of(ws, "job.snapshot")
    assert (repaired["job"]["status"], repaired["job"]["sentence"]) == ("COMPLETED", "4 steps")
    await ws.disconnect()


async def test_lines_that_were_lost_are_read_from_the_table():
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    ws = open_socket(f"/ws/jobs/{job.pk}", cookie)
    await ws.connect(timeout=10)
    await ws.send_to(text_data='{"type": "resume", "after": 2}')
    await next_of(ws, "job.snapshot")
    await next_of(ws, "job.snapshot")
    lines = [{"level": 20, "message": f"line {n}"} for n in range(3)]
    await sync_to_async(JobManager().append_logs)(job.pk, lines, attempt=1)
    late = live.as_event({"type": "job.log", "id": str(job.pk), "first": 5, "missing": 0, "lines": [[20, "line 2", 1.0, ""]]})
    await get_channel_layer().group_send(f"job.{job.pk}", late)
    assert [line[0] for line in (await next_of(ws, "job.snapshot"))["lines"]] == [3, 4, 5]
    await ws.disconnect()


async def test_a_socket_is_closed_after_sign_out_and_after_a_lost_right(monkeypatch):
    monkeypatch.setattr(consumers, "REPAIR_S", 0.1)
    monkeypatch.setattr(consumers, "RECHECK_S", 0.0)
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    one = open_socket(f"/ws/jobs/{job.pk}", cookie)
    await one.connect(timeout=10)
    await sync_to_async(User.objects.create_user)("heir")
    await sync_to_async(lambda: Job.objects.filter(pk=job.pk).update(created_by=User.objects.get(username="heir")))()
    assert await code_of(one) == 4404
    listing = open_socket("/ws/jobs", cookie)
    await listing.connect(timeout=10)
    await sync_to_async(lambda: User.objects.filter(username="ortega").update(is_active=False))()
    assert await code_of(listing) == 4401


async def code_of(ws: WebsocketCommunicator) -> int:
    while True:
        event = await ws.receive_output(timeout=10)
        if event["type"] == "websocket.close":
            return event["code"]


async def test_the_list_sends_rows_that_one_may_see(monkeypatch):
    monkeypatch.setattr(consumers, "LIST_PACE_S", 0.05)
    cookie = await signed_in("ortega")
    await signed_in("sato")
    theirs, mine = await make_job("sato"), await make_job("ortega")
    ws = open_socket("/ws/jobs", cookie)
    await ws.connect(timeout=10)
    assert (await next_of(ws, "queue.stats"))["stats"]["running"] == 1
    for job in (theirs, mine):
        await get_channel_layer().group_send("jobs", live.as_event({"type": "job.status", "id": str(job.pk), "revision": 9}))
    row = await next_of(ws, "job.row")
    assert row["id"] == str(mine.pk)
    assert f'data-job="{mine.pk}"' in row["html"]
    await ws.disconnect()


async def test_a_list_asks_what_became_of_its_rows(monkeypatch):
    """Only for those that it may see and whose row is another by now; what is no id is passed over."""
    monkeypatch.setattr(consumers, "LIST_PACE_S", 0.05)
    cookie = await signed_in("ortega")
    await signed_in("sato")
    theirs, known, behind = await make_job("sato"), await make_job("ortega"), await make_job("ortega")
    ws = open_socket("/ws/jobs", cookie)
    await ws.connect(timeout=10)
    asked = {str(theirs.pk): 0, str(known.pk): known.revision, str(behind.pk): behind.revision - 1, "odd": None}
    await ws.send_to(text_data=orjson.dumps({"type": "rows", "known": asked}).decode())
    assert (await next_of(ws, "job.row"))["id"] == str(behind.pk)
    await ws.send_to(text_data=orjson.dumps({"type": "rows", "known": {str(known.pk): 0}}).decode())
    assert (await next_of(ws, "job.row"))["id"] == str(known.pk), "nothing stood between the two"
    await ws.disconnect()


@pytest.mark.parametrize("known", [None, [], {str(n): 0 for n in range(201)}])
async def test_a_list_that_asks_for_too_much_is_told_so(known):
    ws = open_socket("/ws/jobs", await signed_in("ortega"))
    await ws.connect(timeout=10)
    await ws.send_to(text_data=orjson.dumps({"type": "rows", "known": known}).decode())
    assert "200 jobs at most" in (await next_of(ws, "error"))["detail"]
    assert (await ws.receive_output(timeout=5))["code"] == 4400


async def test_a_list_is_told_first_how_many_notifications_are_unread():
    cookie = await signed_in("ortega")
    job = await make_job("ortega")
    await sync_to_async(JobManager().mark_completed)(job.pk, {}, attempt=1)
    ws = open_socket("/ws/jobs?rows=0", cookie)
    await ws.connect(timeout=10)
    assert (await next_of(ws, "notification.read"))["unread"] == 1
    await ws.disconnect()


class TestTransports:
    @pytest.mark.skipif(bool(settings.REDIS_URL), reason="this is how the embedded product does it")
    async def test_a_datagram_reaches_a_socket(self, tmp_path, monkeypatch):
        """The whole embedded way: publish in one place, a browser's socket in another."""
        monkeypatch.setattr(settings, "LIVE_SOCKET", tmp_path / "live.sock")
        monkeypatch.setattr(live, "_kept", None)
        monkeypatch.setattr(live, "_receivers", {})
        cookie = await signed_in("ortega")
        job = await make_job("ortega")
        ws = open_socket(f"/ws/jobs/{job.pk}", cookie)
        await ws.connect(timeout=10)
        await next_of(ws, "job.snapshot")
        assert oct((tmp_path / "live.sock").stat().st_mode)[-3:] == "600"
        assert live.publish(f"job.{job.pk}", {"type": "job.progress", "id": str(job.pk), "revision": 99, "percent": 50.0})
        assert (await next_of(ws, "job.progress"))["percent"] == 50.0
        await ws.disconnect()

    @pytest.fixture
    def sender(self, tmp_path):
        with closing(live.UnixTransport(tmp_path / "there.sock")) as transport:
            yield transport

    async def test_nobody_listening_is_no_error(self, sender):
        assert sender.send("jobs", {"type": "x"}, retry=True) is False

    async def test_a_long_path_works(self, tmp_path):
        deep = tmp_path / ("d" * 90) / ("e" * 90)
        deep.mkdir(parents=True)
        receiver = live.Receiver(deep / "live.sock", asyncio.get_running_loop())
        with closing(receiver), closing(live.UnixTransport(deep / "live.sock")) as sender:
            assert sender.send("nobody", {"type": "x"}, retry=True) is True

    async def test_a_full_socket_drops_or_waits_a_moment(self, sender):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
            deaf.bind(str(sender.path))
            sent = [sender.send("jobs", {"type": "x"}, retry=False) for _ in range(2000)]
            assert sent[0] is True
            assert sent[-1] is False
            assert sender.send("jobs", {"type": "x"}, retry=True) is False

    async def test_a_large_message_carries_only_its_id(self, sender):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
            there.bind(str(sender.path))
            big = {"type": "job.progress", "id": "7", "step": "x" * 100_000}
            assert sender.send("job.7", big, retry=False)
            assert orjson.loads(there.recv(1 << 20)) == ["job.7", {"type": "job.reread", "id": "7"}]

    async def test_the_wire_format_is_that_of_channels_redis(self, monkeypatch):
        """What we publish with a plain client is, byte for byte, what the installed layer publishes."""
        layer = RedisPubSubChannelLayer(hosts=["redis://127.0.0.1:1"], prefix=live.LAYER_PREFIX)
        sent: list[tuple[str, bytes]] = []
        loop_layer = layer._get_layer()

        class Shard:
            async def publish(self, channel, data):
                sent.append((channel, data))

        monkeypatch.setattr(loop_layer, "_get_shard", lambda name: Shard())
        monkeypatch.setattr(live, "get_channel_layer", lambda: layer)
        await layer.group_send("job.7", live.as_event({"type": "x", "n": 1}))
        transport = live.RedisTransport("redis://127.0.0.1:1")
        monkeypatch.setattr(transport.client, "publish", lambda channel, data: sent.append((channel, data)))
        assert transport.send("job.7", {"type": "x", "n": 1}, retry=False)
        assert sent[0] == sent[1]

    async def test_a_redis_that_is_away_costs_a_moment_once(self, monkeypatch):
        layer = RedisPubSubChannelLayer(hosts=["redis://127.0.0.1:1"])
        monkeypatch.setattr(live, "get_channel_layer", lambda: layer)
        transport = live.RedisTransport("redis://127.0.0.1:1")
        assert transport.send("jobs", {"type": "x"}, retry=True) is False
        monkeypatch.setattr(transport.client, "publish", lambda *a: pytest.fail("the circuit is open"))
        assert transport.send("jobs", {"type": "x"}, retry=True) is False

    async def test_a_fork_makes_its_own_transport(self, monkeypatch):
        live.publish("jobs", {"type": "x"})
        before = live._kept
        monkeypatch.setattr(os, "getpid", lambda: -1)
        live.publish("jobs", {"type": "x"})
        assert live._kept is not before
