"""Move ended jobs to the archive."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs import archive, words
from jobs.states import ENDED, Status


class Command(BaseCommand):
    help = "Moves ended jobs to the archive. Documents, evidence, exports and reports stay; kept jobs too."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than-days", type=int, help="For every end alike, instead of the settings for each.")
        parser.add_argument("--status", choices=sorted(s.lower() for s in ENDED), action="append", help="Only jobs that ended so.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be moved; change nothing.")

    def handle(self, *args: Any, older_than_days: int | None, status: list[str] | None, dry_run: bool, **options: Any) -> None:
        if older_than_days is not None and older_than_days < 0:
            raise CommandError(f"--older-than-days must be 0 or more, not {older_than_days}.")
        chosen = [Status(name.upper()) for name in status] if status else sorted(ENDED)
        days = {s: older_than_days if older_than_days is not None else archive.default_days()[s] for s in chosen}
        cleaned = archive.clean_up(days, dry_run=dry_run)
        for end in chosen:
            self.stdout.write(f"{end.label}, ended more than {words.count(days[end], 'day')} ago: {cleaned.by_status.get(end, 0):,}")
        if dry_run:
            self.stdout.write(f"{words.count(cleaned.jobs, 'job')} would be moved. Nothing was changed.")
        else:
            size = words.size(cleaned.bytes)
            self.stdout.write(f"{words.count(cleaned.jobs, 'job')} moved to {words.count(len(cleaned.files), 'file')}, {size}.")
