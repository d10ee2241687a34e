"""Finding a job's processes again, on the machine that ran them, and ending what is left of them."""

import os
import signal
import uuid
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings


def children_of(pid: int) -> list[int]:
    """The living and the ended children of a process, from the kernel's own list: a hundredth of a look at all processes."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except ProcessLookupError:
        return []
    except FileNotFoundError:  # gone, or a kernel without CONFIG_PROC_CHILDREN
        try:
            return [process.pid for process in psutil.Process(pid).children()]
        except psutil.Error:
            return []


def descendants_of(pid: int) -> list[int]:
    found, waiting = [], children_of(pid)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting += children_of(child)
    return found


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def describe_process(pid: int) -> dict[str, Any]:
    """Enough to find a child again and to be sure that it is the same one."""
    return {"pid": pid, "started": psutil.Process(pid).create_time(), "boot": boot_id(), "host": os.uname().nodename}


def kill_session(process: dict[str, Any]) -> None:
    """SIGKILL what is left of a recorded session on this host; no other process is ever touched."""
    if process.get("host") != os.uname().nodename or process.get("boot") != boot_id():
        return
    for other in psutil.process_iter():
        try:
            in_session = os.getsid(other.pid) == process["pid"]
            if in_session and other.create_time() >= process["started"] - 1:
                os.kill(other.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue


def scratch_of(job_id: uuid.UUID) -> Path:
    """Where a job keeps what is not yet finished; it goes with the job."""
    return Path(settings.STATE_DIR) / "scratch" / str(job_id)
