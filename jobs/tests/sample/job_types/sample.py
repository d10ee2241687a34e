"""Job types for tests: each behaves in one known way."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from django import forms

from jobs.errors import PermanentError
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


class Gate(forms.Form):
    gate = forms.CharField(required=False)


@register("sample_plain", label="Says nothing", form=Gate, hidden=True)
def plain(tracker: Any, parameters: dict[str, Any]) -> None:
    """Never reports a step: time, memory and CPU must show all the same."""
    while parameters["gate"] and not Path(parameters["gate"]).read_text():
        time.sleep(0.01)


@register("sample_stubborn", label="Ignores cancel", hidden=True)
def stubborn(tracker: Any, parameters: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.01)


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
        time.sleep(0.001)


@register("sample_odd_result", label="Odd result", hidden=True)
def odd_result(tracker: Any, parameters: dict[str, Any]) -> Any:
    return {"value": {1, 2}}


@register("sample_odd_text", label="Odd text", hidden=True)
def odd_text(tracker: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    tracker.update_step("step\x00 \ud800 \x1b[31m")
    tracker.log_info("line\x00", data_with_nul="a\x00b", odd={1, 2})
    return {"text": "a\x00b \\u0000"}


@register("sample_heavy", label="On its own queue", queue="heavy", hidden=True)
def heavy(tracker: Any, parameters: dict[str, Any]) -> None:
    """Nothing serves its queue unless a test does."""
