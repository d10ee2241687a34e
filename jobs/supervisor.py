"""The embedded stack in one place: daphne in this process, the job clusters as its children.

A cluster that ends is started again with growing pauses; all end when this process does, however it ends.
"""

import ipaddress
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from daphne.server import Server
from django.conf import settings
from django.utils.module_loading import import_string
from twisted.internet import reactor, task

from jobs import conf, registry

log = logging.getLogger(__name__)

RESTART_PAUSE_MAX_S = 30.0


@dataclass
class Cluster:
    queue: str
    process: subprocess.Popen | None = None
    pause_s: float = 0.5
    start_at: float = 0.0

    def start(self) -> None:
        command = [sys.executable, sys.argv[0], "jobcluster", "--queue", self.queue, "--die-with", str(os.getpid())]
        # its own session, so that Ctrl-C reaches it once, through us
        self.process = subprocess.Popen(command, start_new_session=True)
        self.started = time.monotonic()

    def look(self) -> None:
        """Start it if it is not there and its pause is over; the pause doubles while it keeps ending early."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.start_at:
                self.start()
        elif self.process.poll() is not None:
            lived = now - self.started
            self.pause_s = 0.5 if lived > 60 else min(self.pause_s * 2, RESTART_PAUSE_MAX_S)
            print(f"The workers of the queue {self.queue} ended; starting them again in {self.pause_s:.0f} s", file=sys.stderr)
            self.process, self.start_at = None, now + self.pause_s


class BoundedServer(Server):
    """daphne's server, which gives up a client that does not read instead of keeping all that it is sent."""

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        if message.get("type") == "websocket.send" and unsent(protocol.transport) > conf.get("socket_unsent_bytes_max"):
            log.warning("A socket does not read what it is sent and is closed")
            protocol.transport.abortConnection()
            return
        await super().handle_reply(protocol, message)


def unsent(transport: Any) -> int:
    """Bytes that wait for the client, from the two buffers of a Twisted transport."""
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


@dataclass
class Supervisor:
    host: str
    port: int
    workers: bool = True
    clusters: list[Cluster] = field(default_factory=list)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain the clusters, end what did not end in time, and exit."""
        self.clusters = [Cluster(queue) for queue in registry.queues()] if self.workers else []
        task.LoopingCall(self.look).start(0.5)
        interface = self.host.replace(":", "\\:")  # Twisted separates the parts of an endpoint by colons
        reactor.addSystemEventTrigger("before", "shutdown", self.stop_and_exit)  # type: ignore[arg-type]
        BoundedServer(
            import_string(settings.ASGI_APPLICATION),
            endpoints=[f"tcp:port={self.port}:interface={interface}"],
            proxy_forwarded_address_header="X-Forwarded-For" if settings.PUBLIC_URL else None,
            application_close_timeout=2,
            ping_interval=conf.get("socket_ping_s"),
            ping_timeout=conf.get("socket_gone_s"),
        ).run()

    def look(self) -> None:
        for cluster in self.clusters:
            cluster.look()

    def stop_and_exit(self) -> None:
        """At the first word of a shutdown: daphne would wait for every request that is being answered, and its
        thread for a loop that no longer turns, both for ever. What they had not committed is rolled back."""
        self.stop()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def stop(self) -> None:
        living = [c.process for c in self.clusters if c.process is not None]
        for process in living:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + conf.get("drain_s") + 6
        for process in living:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
