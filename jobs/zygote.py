"""Forks the children: a process with the libraries loaded and no database connection.

A worker forks its zygote before it opens a connection of its own, and asks it for one child at a
time over a socket pair. So no child ever holds its worker's connection: a child that dropped an
inherited SQLite connection and opened its own held no locks, and a committed row was lost.
"""

import os
import select
import signal
import socket
import struct
from dataclasses import dataclass

from jobs.child import adopt_orphans, run_child
from jobs.processes import children_of
from jobs.tracker import SharedPage

_SIZE = struct.Struct("=I")
_STARTED = struct.Struct("=i")
_ENDED = struct.Struct("=iddq")  # wait status, user and system CPU seconds, peak RSS in kB


@dataclass(frozen=True)
class Exit:
    """How a child ended, as the kernel told its parent."""

    status: int
    cpu_seconds: float

    @property
    def signal(self) -> int | None:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None

    def __str__(self) -> str:
        if self.signal:
            return f"ended by {signal.Signals(self.signal).name}"
        return f"ended with exit status {os.waitstatus_to_exitcode(self.status)}"


class ZygoteGone(Exception):
    """The zygote died, and its child with it."""


class Zygote:
    """The worker's handle on its zygote."""

    def __init__(self, page: SharedPage) -> None:
        self.page = page
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        worker = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            try:
                serve(theirs, self.page, worker)
            finally:
                os._exit(1)
        theirs.close()
        self.pid, self.socket = pid, ours

    def restart(self) -> None:
        """After ZygoteGone. The worker has connections open now, which the new one must not use."""
        self.socket.close()
        os.waitpid(self.pid, 0)
        self._start()

    def kill(self) -> None:
        """End it, with its child and all that is below."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def spawn(self, payload: bytes, pipe: int) -> tuple[int, int]:
        """Start a child that writes to `pipe`; returns (pid, pidfd)."""
        try:
            socket.send_fds(self.socket, [_SIZE.pack(len(payload))], [pipe])
            self.socket.sendall(payload)
            data, fds, *_ = socket.recv_fds(self.socket, _STARTED.size, 1)
        except OSError as error:
            raise ZygoteGone from error
        if not data or not fds:
            raise ZygoteGone
        return _STARTED.unpack(data)[0], fds[0]

    def reap(self) -> Exit:
        """Wait for the word that the child has ended."""
        data = receive(self.socket, _ENDED.size)
        if data is None:
            raise ZygoteGone
        status, user, system, _peak = _ENDED.unpack(data)
        return Exit(status, user + system)


def serve(sock: socket.socket, page: SharedPage, worker: int) -> None:
    """The zygote's loop: a request, a child, its end, and with it the end of all that the child has started.

    Whatever a job forks stays below the zygote, also when its parent is gone or it made a session of its own.
    The zygote sees the end of its worker as the end of the socket, which it shares with nobody else; a signal
    of the kernel (see `die_with`) would leave it no time to end the others first.
    """
    adopt_orphans()
    if os.getppid() != worker:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    me = os.getpid()
    while True:
        header, fds, *_ = socket.recv_fds(sock, _SIZE.size, 1)
        if not header:
            os._exit(0)
        payload = receive(sock, _SIZE.unpack(header)[0])
        if payload is None:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            sock.close()
            try:
                run_child(payload, fds[0], page, me)
            finally:
                os._exit(70)  # only if the reporting itself failed
        os.close(fds[0])
        pidfd = os.pidfd_open(pid)
        socket.send_fds(sock, [_STARTED.pack(pid)], [pidfd])
        ready, _, _ = select.select([sock.fileno(), pidfd], [], [])
        if pidfd not in ready:  # the worker is gone
            end_all()
            os._exit(0)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        end_all()
        sock.sendall(_ENDED.pack(status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss))


def end_all() -> None:
    """Kill and reap what is left below this process, until nothing is."""
    while left := children_of(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in left:
            os.waitpid(pid, 0)


def receive(sock: socket.socket, size: int) -> bytes | None:
    """Exactly `size` bytes, or None when the other side has closed."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
