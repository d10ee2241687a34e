"""Show the product at work: a bundled site, a real scrape of it, the pages to watch it on."""

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from osint import demo as show
from osint import sample_site


class Command(BaseCommand):
    help = "Starts everything with a sample site and a first job; keeps its state apart, in var/demo."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="End when the job has ended.")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, once: bool, port: int, **options: Any) -> None:
        if "FIELDWORK_DEMO_SITE" not in os.environ:
            # settings are read once, and the demo needs others: its own state, and the sample site allowed
            site = sample_site.free_port()
            changed = {
                "FIELDWORK_DEMO_SITE": str(site),
                "FETCH_ALLOW_PRIVATE": f"127.0.0.1:{site}",
                "STATE_DIR": str(settings.STATE_DIR / "demo"),
                "JOBS": '{"drain_s": 3, "cancel_grace_s": 2}',
            }
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **changed})
        sys.exit(show.run(port, int(os.environ["FIELDWORK_DEMO_SITE"]), once))
