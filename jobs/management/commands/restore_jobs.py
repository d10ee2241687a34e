"""Put archived jobs back."""

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs import archive, words
from jobs.models import ArchivedJob


class Command(BaseCommand):
    help = "Puts archived jobs back into the database, marked to be kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("jobs", nargs="*", type=uuid.UUID, help="Ids of archived jobs.")
        parser.add_argument("--file", help="All archived jobs of this file, as the admin lists it.")

    def handle(self, *args: Any, jobs: list[uuid.UUID], file: str | None, **options: Any) -> None:
        if file:
            jobs = [*jobs, *ArchivedJob.objects.filter(archive__name=file).values_list("pk", flat=True)]
        if not jobs:
            raise CommandError(f"No archived job is in {file}." if file else "Name the jobs by their ids, or a --file.")
        try:
            restored = archive.restore(jobs)
        except (ArchivedJob.DoesNotExist, archive.DamagedArchive) as error:
            raise CommandError(f"{error}\nNothing was changed.") from None
        self.stdout.write(f"{words.count(len(restored), 'job')} restored.")
