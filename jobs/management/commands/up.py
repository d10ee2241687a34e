"""The web server and the workers of every queue, on this machine."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs.supervisor import Supervisor, is_loopback


class Command(BaseCommand):
    help = "Serves the pages and runs the workers of every queue, until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: loopback only).")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--no-workers", action="store_true", help="The pages alone.")

    def handle(self, *args: Any, host: str, port: int, no_workers: bool, **options: Any) -> None:
        if not settings.PUBLIC_URL and not is_loopback(host):
            raise CommandError(
                "Without PUBLIC_URL only this machine may connect, so --host must be a loopback address. "
                "Set PUBLIC_URL=https://… and put a proxy with a certificate before it."
            )
        call_command("check", databases=["default"])
        call_command("migrate", verbosity=0, interactive=False)
        where = settings.PUBLIC_URL or f"http://{host}:{port} (this machine only; set PUBLIC_URL to serve others)"
        self.stdout.write(f"Fieldwork: {where}. Ctrl-C stops it.")
        Supervisor(host, port, workers=not no_workers).run()
