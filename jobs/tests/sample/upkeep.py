"""A scheduled task for tests."""

import time
from datetime import timedelta
from pathlib import Path

from jobs.upkeep import alone


def slow(gate: str) -> None:
    """Works until the gate is open."""
    with alone("slow upkeep", timedelta(minutes=1)):
        while int(Path(gate).read_text() or 0) < 1:
            time.sleep(0.01)
