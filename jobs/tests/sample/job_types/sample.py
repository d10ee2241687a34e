"""Job types for tests: each behaves in one known way."""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.db import transaction

from jobs.errors import PermanentError, TransientError
from jobs.models import Artifact, Job
from jobs.registry import register


class Steps(forms.Form):
    total = forms.IntegerField(initial=3, min_value=0, max_value=10_000)
    gate = forms.CharField(required=False, help_text="A file; each step waits until it says that many.")
    fail_at = forms.IntegerField(required=False)
    error = forms.CharField(required=False)


def wait_for_gate(gate: str, step: int, tracker: Any) -> None:
    """Tests let a job go on by writing a number into a file: no sleeping and hoping."""
    while gate and int(Path(gate).read_text() or 0) < step:
        tracker.update_step(tracker.state.step, 0)
        time.sleep(0.01)


@register("sample_steps", label="Sample steps", form=Steps, total_steps=lambda p: p["total"], hidden=True)
def steps(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    for number in range(1, parameters["total"] + 1):
        tracker.update_step(f"Step {number}", 0)
        wait_for_gate(parameters["gate"], number, tracker)
        tracker.log_info(f"Line of step {number}", number=number)
        if parameters["fail_at"] == number:
            raise {"permanent": PermanentError, "transient": ConnectionError}.get(parameters["error"], RuntimeError)(
                f"Step {number} went wrong"
            )
        tracker.update_step(f"Step {number}")
    return {"summary": f"{parameters['total']} steps", "steps": parameters["total"]}


class Gated(forms.Form):
    gate = forms.CharField()
    waits = forms.BooleanField(required=False, help_text="Until the gate opens, instead of failing.")
    kind = forms.CharField(required=False)


@register("sample_until_open", label="Sample until open", form=Gated, hidden=True)
def until_open(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Fails for as long as its gate is closed, or waits for it."""
    if parameters["waits"]:
        wait_for_gate(parameters["gate"], 1, tracker)
    if int(Path(parameters["gate"]).read_text() or 0) < 1:
        raise (TransientError if parameters["kind"] == "transient" else PermanentError)("The gate is closed")
    return {"summary": "The gate was open"}


@register("sample_phases", label="Sample phases", form=Steps, hidden=True)
def phases(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Asks a host until the gate opens, then writes until it opens further."""
    tracker.stage("Asking")
    with tracker.spending("network", "example.org"):
        wait_for_gate(parameters["gate"], 1, tracker)
    tracker.stage("Storing")
    tracker.update_step("Storing", 0)
    with tracker.spending("writing"):
        wait_for_gate(parameters["gate"], 2, tracker)
    return {"summary": "Both"}


class Items(forms.Form):
    total = forms.IntegerField(initial=10, min_value=1, max_value=10_000)
    gate = forms.CharField(required=False)
    only = forms.JSONField(required=False)
    fails = forms.JSONField(required=False, help_text="Items that fail, with the kind of failure.")


def step_count(parameters: dict[str, Any]) -> int:
    return len(parameters["only"] or range(parameters["total"]))


@register(
    "sample_items", label="Sample items", form=Items, total_steps=step_count, hidden=True, resumable=True, unit="item",
    for_items=lambda parameters, keys: {**parameters, "only": keys},
)  # fmt: skip
def sample_items(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Items that are done once each, whatever happens in between. The result says which ones this attempt did."""
    settled, here = tracker.settled(), []
    fails = parameters["fails"] or {}
    for number, key in enumerate(parameters["only"] or [f"item {n}" for n in range(1, parameters["total"] + 1)], 1):
        if key in settled:
            continue
        tracker.update_step(f"Doing {key}", 0)
        wait_for_gate(parameters["gate"], number, tracker)
        if key in fails:
            tracker.item_failed(key, f"{key} is broken", kind=fails[key])
        else:
            with transaction.atomic():
                tracker.done(key)
            here.append(key)
        tracker.checkpoint("at", number)
        tracker.update_step(f"Did {key}")
    return {"here": here, "settled": len(settled), "at": tracker.restored("at")}


class Journal(Items):
    journal = forms.CharField()
    step_s = forms.FloatField(initial=0.0)


@register(
    "sample_journal", label="Writes down what it does", form=Journal, total_steps=step_count, hidden=True, resumable=True, unit="item"
)
def sample_journal(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """As `sample_items`, and beside the tables a line in a file for each thing that it does, with the clock of the machine."""
    attempt = Job.objects.values_list("attempt", flat=True).get(pk=tracker.job_id)
    with (Path(parameters["journal"]) / str(tracker.job_id)).open("a", buffering=1) as journal:
        journal.write(f"{attempt} {time.monotonic()} begins\n")
        settled, fails = tracker.settled(), parameters["fails"] or {}
        for key in [f"item {n}" for n in range(1, parameters["total"] + 1)]:
            if key in settled:
                continue
            tracker.update_step(f"Doing {key}", 0)
            time.sleep(parameters["step_s"])
            if key in fails:
                tracker.item_failed(key, f"{key} is broken", kind=fails[key])
            else:
                with transaction.atomic():
                    tracker.done(key)
                    journal.write(f"{attempt} {time.monotonic()} {key}\n")
            tracker.log_info(f"Did {key}")
            tracker.update_step(f"Did {key}")
    return {"summary": f"{parameters['total']} items"}


class Stubborn(forms.Form):
    seconds = forms.FloatField()


@register("sample_stubborn", label="Ignores a cancel for a while", form=Stubborn, hidden=True)
def stubborn(tracker: Any, parameters: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(parameters["seconds"])


class Gate(forms.Form):
    gate = forms.CharField(required=False)


@register("sample_plain", label="Says nothing", form=Gate, hidden=True)
def plain(tracker: Any, parameters: dict[str, Any]) -> None:
    """Never reports a step: time, memory and CPU must show all the same."""
    while parameters["gate"] and not Path(parameters["gate"]).read_text():
        time.sleep(0.01)


def sleep_stubbornly() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    while True:
        time.sleep(0.01)


@register("sample_family", label="Ignores cancel, and so do all that it starts", hidden=True)
def family(tracker: Any, parameters: dict[str, Any]) -> None:
    """A grandchild in its process group, one in a session of its own, one whose parent has gone, and threads."""
    for kind in ("in the group", "in a session of its own", "without a parent"):
        pid = os.fork()
        if pid == 0:
            if kind == "in a session of its own":
                os.setsid()
            if kind == "without a parent" and os.fork():
                os._exit(0)
            sleep_stubbornly()
        if kind == "without a parent":
            os.waitpid(pid, 0)
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(3600,)).start()
    tracker.update_step("All are there", 0)
    sleep_stubbornly()


@register("sample_segfault", label="Segfaults in C", hidden=True)
def segfault(tracker: Any, parameters: dict[str, Any]) -> None:
    ctypes.string_at(0)


@register("sample_dies", label="Dies without a word", hidden=True)
def dies(tracker: Any, parameters: dict[str, Any]) -> None:
    tracker.update_step("Last step")
    tracker.log_info("Last line")
    os.kill(os.getpid(), signal.SIGSEGV)


@register("sample_eater", label="Eats memory", hidden=True, memory_limit_mb=64)
def eater(tracker: Any, parameters: dict[str, Any]) -> None:
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))
        if len(kept) > 128:
            time.sleep(0.01)  # whoever measures it must be quicker than the kernel's backstop, also on a busy machine


class Amount(forms.Form):
    memory_mb = forms.IntegerField(initial=0)
    cpu_share = forms.FloatField(initial=0.0)
    gate = forms.CharField(required=False)


@register("sample_load", label="Takes a known amount", form=Amount, hidden=True)
def load(tracker: Any, parameters: dict[str, Any]) -> None:
    """Memory that is written to, and a CPU that is busy for a known share of the time, until the gate opens."""
    kept = bytearray(parameters["memory_mb"] << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    tracker.update_step("Taken", 0)
    share = parameters["cpu_share"]
    while not parameters["gate"] or int(Path(parameters["gate"]).read_text() or 0) < 1:
        began, used = time.monotonic(), time.process_time()
        while time.process_time() - used < 0.1 * share:
            pass
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))
    assert kept is not None


class Pace(forms.Form):
    total = forms.IntegerField()
    step_s = forms.FloatField()


@register("sample_paced", label="Steps of one length", form=Pace, total_steps=lambda p: p["total"], hidden=True)
def paced(tracker: Any, parameters: dict[str, Any]) -> None:
    for number in range(parameters["total"]):
        time.sleep(parameters["step_s"])
        tracker.update_step(f"Step {number}")


class Flood(forms.Form):
    lines = forms.IntegerField(initial=0)


@register("sample_flood", label="Logs without measure", form=Flood, hidden=True)
def flood(tracker: Any, parameters: dict[str, Any]) -> None:
    tracker.log_info("x" * 10_000_000)
    tracker.log_info("\x1b[31mred\x1b[0m \x00\x07 \udcff <script>alert(1)</script> \u202egnp.exe")
    for number in range(parameters["lines"]):
        tracker.log_info("Line", number=number)


class Odd(forms.Form):
    which = forms.CharField()


def deep(depth: int) -> int:
    return 1 + deep(depth + 1)


def ring() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def raising(error: BaseException) -> Any:
    raise error


ODD_ENDS: dict[str, Any] = {
    "datetime": lambda: {"value": datetime(2024, 5, 1, 12, tzinfo=UTC)},
    "set": lambda: {"value": {1, 2}},
    "nan": lambda: {"value": float("nan")},
    "bytes": lambda: {"value": b"abc"},
    "surrogate": lambda: {"value": "\udcff"},
    "huge integer": lambda: {"value": 2**80},
    "ring": ring,
    "list": lambda: [1, 2],
    "50 MB": lambda: {"summary": "Fifty megabytes", "value": "x" * 50_000_000},
    "5 MB traceback": lambda: raising(ValueError("y" * 5_000_000)),
    "recursion": lambda: deep(0),
    "error without text": lambda: raising(KeyError()),
    "odd error text": lambda: raising(RuntimeError("\x00 \udcff <b>")),
    "system exit": lambda: sys.exit(3),
    "memory error": lambda: raising(MemoryError()),
}


@register("sample_odd_end", label="Ends in an odd way", form=Odd, hidden=True)
def odd_end(tracker: Any, parameters: dict[str, Any]) -> Any:
    tracker.update_step("The last step")
    return ODD_ENDS[parameters["which"]]()


@register("sample_garbage", label="Speaks nonsense to its worker", hidden=True)
def garbage(tracker: Any, parameters: dict[str, Any]) -> None:
    os.write(tracker._outlet.pipe, (3).to_bytes(4, "little") + b"abc")
    sleep_stubbornly()


class KeepFile(forms.Form):
    bytes = forms.IntegerField(initial=5_000_000)
    file_limit = forms.IntegerField(required=False, help_text="No file of this process may grow larger: as on a full disk.")


@register("sample_keeps_file", label="Keeps a file", form=KeepFile, hidden=True)
def keeps_file(tracker: Any, parameters: dict[str, Any]) -> None:
    job = Job.objects.get(pk=tracker.job_id)
    path = Path(settings.STATE_DIR) / "scratch" / str(job.pk) / "output.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * parameters["bytes"])
    if parameters["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (parameters["file_limit"], parameters["file_limit"]))
    Artifact.keep(job, path, "output.bin", "application/octet-stream")


@register("sample_host_is_down", label="Its host is down", hidden=True)
def host_is_down(tracker: Any, parameters: dict[str, Any]) -> None:
    raise TransientError("The host does not answer")


@register("sample_odd_text", label="Odd text", hidden=True)
def odd_text(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    tracker.update_step("step\x00 \ud800 \x1b[31m")
    tracker.log_info("line\x00", data_with_nul="a\x00b", odd={1, 2})
    return {"text": "a\x00b \\u0000"}


@register("sample_heavy", label="On its own queue", queue="heavy", hidden=True)
def heavy(tracker: Any, parameters: dict[str, Any]) -> None:
    """Nothing serves its queue unless a test does."""
