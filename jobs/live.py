"""publish(group, message): tell browsers what changed. It never blocks for long and never raises.

Two transports behind one function:

* REDIS_URL set: Redis pub/sub in the wire format of channels-redis' `RedisPubSubChannelLayer`,
  sent with one kept plain client, because workers have no event loop.
* embedded: a Unix datagram to the web process, which passes it to its in-memory layer.

Live messages may be lost; the truth may not. Consumers compare revisions with the rows, so the
loss of any message here is repaired within 2 s. docs/live.md lists the message types.
"""

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import orjson
import redis
from channels.layers import get_channel_layer
from django.conf import settings

log = logging.getLogger(__name__)

# Safe below the kernel's default send buffer; what is larger carries ids only and is read again.
DATAGRAM_BYTES_MAX = 60_000
# net.unix.max_dgram_qlen is 10: a burst meets EAGAIN. What must arrive waits this long for room.
RETRY_S = 0.05
REDIS_TIMEOUT_S = 0.2
CIRCUIT_OPEN_S = 5.0
LAYER_PREFIX = "fieldwork"  # the settings give the same one to the channel layer


def publish(group: str, message: dict[str, Any], *, retry: bool = False) -> bool:
    """Send `message` (JSON values, with a `type`) to a group. True if it left this process.

    `retry` is for changes of status: worth a few milliseconds of patience.
    """
    return _transport().send(group, message, retry)


class UnixTransport:
    """The sending side of the embedded transport."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pid = os.getpid()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()

    def send(self, group: str, message: dict[str, Any], retry: bool) -> bool:
        data = orjson.dumps([group, message])
        if len(data) > DATAGRAM_BYTES_MAX:
            data = orjson.dumps([group, {"type": "job.reread", "id": message.get("id")}])
        give_up = time.monotonic() + RETRY_S
        while True:
            try:
                with ShortAddress(self.path) as address:
                    self.socket.sendto(data, address)
                return True
            except BlockingIOError:
                if not retry or time.monotonic() > give_up:
                    return False
                time.sleep(0.002)
            except OSError:  # nobody listens: no web process, or it is just starting
                return False


class RedisTransport:
    """The sending side of the scaled transport, with a circuit breaker."""

    def __init__(self, url: str) -> None:
        self.pid = os.getpid()
        self.client = redis.Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
        self.closed_until = 0.0
        layer: Any = get_channel_layer()
        self.serialize = layer.serialize

    def close(self) -> None:
        self.client.close()

    def send(self, group: str, message: dict[str, Any], retry: bool) -> bool:
        if time.monotonic() < self.closed_until:
            return False
        try:
            self.client.publish(f"{LAYER_PREFIX}__group__{group}", self.serialize(as_event(message)))
        except Exception:
            log.warning("Redis did not take a live message; pausing live messages", exc_info=True)
            self.closed_until = time.monotonic() + CIRCUIT_OPEN_S
            return False
        return True


_kept: UnixTransport | RedisTransport | None = None


def _transport() -> UnixTransport | RedisTransport:
    """One transport per process; a fork makes its own."""
    global _kept
    if _kept is None or _kept.pid != os.getpid():
        if _kept is not None:
            _kept.close()
        _kept = RedisTransport(settings.REDIS_URL) if settings.REDIS_URL else UnixTransport(settings.LIVE_SOCKET)
    return _kept


def as_event(message: dict[str, Any]) -> dict[str, Any]:
    """What a channel layer carries: one consumer method, with the message inside."""
    return {"type": "live.message", "message": message}


class ShortAddress:
    """The address of a Unix socket whose path may be longer than the 108 bytes the kernel takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self.path)) < 100:
            return str(self.path)
        self.fd = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self.fd}/{self.path.name}"

    def __exit__(self, *exc: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Receiver:
    """The receiving side of the embedded transport, attached to the event loop that runs the layer."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.layer = get_channel_layer()
        self.tasks: set[asyncio.Task] = set()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        path.unlink(missing_ok=True)
        umask = os.umask(0o177)
        try:
            with ShortAddress(path) as address:
                self.socket.bind(address)
        finally:
            os.umask(umask)
        loop.add_reader(self.socket, self.drain)

    def close(self) -> None:
        self.loop.remove_reader(self.socket)
        self.socket.close()

    def drain(self) -> None:
        """Read all that waits, so that senders find room in the short kernel queue."""
        while True:
            try:
                data = self.socket.recv(1 << 18)
            except BlockingIOError:
                return
            try:
                group, message = orjson.loads(data)
            except ValueError:
                log.warning("A live message that is not JSON was dropped")
                continue
            task = self.loop.create_task(self.layer.group_send(group, as_event(message)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


_receivers: dict[int, Receiver] = {}


def attach_receiver() -> None:
    """Listen in the running loop, once per loop. Nothing to do when Redis carries the messages."""
    if settings.REDIS_URL:
        return
    loop = asyncio.get_running_loop()
    if id(loop) not in _receivers:
        _receivers[id(loop)] = Receiver(settings.LIVE_SOCKET, loop)
