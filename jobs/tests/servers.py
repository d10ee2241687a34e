"""A private PostgreSQL and Redis on free ports, for `make test-scaled` and the tests that stop them.

Nothing of the system is used but the programs: data lies in a folder that goes with the run.
"""

import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ENVIRONMENT = "FIELDWORK_TEST_SERVERS"
STARTING_S = 30.0


class CannotHave(Exception):
    """A program is missing; the message says which and how to get it."""


@dataclass
class Server:
    """One server, known by its port and folder, so that any process of the run can stop and start it."""

    port: int
    folder: str

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_until(self, up: bool) -> None:
        until = time.monotonic() + STARTING_S
        while self.answers() is not up:
            if time.monotonic() > until:
                raise TimeoutError(f"{type(self).__name__} on port {self.port} did not {'start' if up else 'stop'}")
            time.sleep(0.05)


class Redis(Server):
    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Empty: nothing is kept over a restart."""
        command = [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
        subprocess.run([*command, "--daemonize", "yes", "--pidfile", f"{self.folder}/pid"], check=True, stdout=subprocess.DEVNULL)
        self.wait_until(up=True)

    def kill(self) -> None:
        if self.answers():
            os.kill(int(Path(self.folder, "pid").read_text()), 9)
        self.wait_until(up=False)

    stop = kill


class PostgreSQL(Server):
    @property
    def url(self) -> str:
        return f"postgres://fieldwork:x@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        self.run("initdb", "--username=fieldwork", "--auth=trust", "--encoding=UTF8", "--no-sync")
        settings = f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nmax_connections=200\n"
        with Path(self.folder, "postgresql.conf").open("a") as file:
            file.write(settings)

    def start(self) -> None:
        self.run("pg_ctl", "--wait", f"--log={self.folder}/log", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "--wait", "--mode=fast", "stop")

    def kill(self) -> None:
        """As if the machine of the server lost its power."""
        self.run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def run(self, name: str, *arguments: str) -> None:
        # the server refuses to run as root; Debian's package brings a user for it
        user = "postgres" if os.geteuid() == 0 else None
        command = [program(name), *arguments, "--pgdata", self.folder]
        done = subprocess.run(command, user=user, cwd="/", capture_output=False, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} ended with {done.returncode}; see {self.folder}/log")


@dataclass
class Servers:
    postgresql: PostgreSQL
    redis: Redis

    @classmethod
    def start(cls, folder: Path) -> "Servers":
        """Raises CannotHave when a program is missing and cannot be installed."""
        provide()
        folders = [folder / "postgresql", folder / "redis"]
        for each in folders:
            each.mkdir()
        if os.geteuid() == 0:
            folder.chmod(0o711)
            os.chown(folders[0], pwd.getpwnam("postgres").pw_uid, -1)
        servers = cls(PostgreSQL(free_port(), str(folders[0])), Redis(free_port(), str(folders[1])))
        servers.postgresql.create()
        servers.postgresql.start()
        servers.redis.start()
        return servers

    @classmethod
    def of_this_run(cls) -> "Servers | None":
        """Those that the run of tests has started; None in the embedded run."""
        text = os.environ.get(ENVIRONMENT)
        if not text:
            return None
        told = json.loads(text)
        return cls(PostgreSQL(**told["postgresql"]), Redis(**told["redis"]))

    def environment(self) -> dict[str, str]:
        return {
            ENVIRONMENT: json.dumps(asdict(self)),
            "DATABASE_URL": self.postgresql.url,
            "REDIS_URL": self.redis.url,
            "SECRET_KEY": "t" * 64,
        }

    def stop(self) -> None:
        self.redis.stop()
        self.postgresql.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """Raises CannotHave. Debian keeps PostgreSQL's programs out of the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(str(v) for v in versions))
    if not found:
        raise CannotHave(
            f"{name} is not installed, and could not be: install PostgreSQL and Redis (apt-get install postgresql redis-server)"
        )
    return found


def provide() -> None:
    """Debian's packages, when root and missing."""
    try:
        program("initdb"), program("redis-server")
    except CannotHave:
        install("postgresql", "redis-server")
        program("initdb"), program("redis-server")


def install(*packages: str) -> None:
    """Debian's packages; nothing when not root or on another system."""
    if os.geteuid() or not shutil.which("apt-get"):
        return
    print(f"Installing {' and '.join(packages)} for the tests (once)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]):
        subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
