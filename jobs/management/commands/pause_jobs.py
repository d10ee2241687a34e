"""Let no job of a queue or of a type start, or let them start again."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs import registry
from jobs.models import QueuePause


class Command(BaseCommand):
    help = "Holds all waiting jobs of a queue or of a job type. Running jobs go on."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--queue")
        what.add_argument("--type")
        parser.add_argument("--reason", default="", help="Shown on the page of each held job.")
        parser.add_argument("--resume", action="store_true", help="Let them start again.")

    def handle(self, *args: Any, queue: str | None, type: str | None, reason: str, resume: bool, **options: Any) -> None:
        scope, name = (QueuePause.Scope.QUEUE, queue) if queue else (QueuePause.Scope.TYPE, type)
        known = registry.pausable(scope)
        if name not in known:
            raise CommandError(f"There is no {scope.label.lower()} {name!r}. Known are: {', '.join(known)}.")
        if resume:
            if not QueuePause.objects.filter(scope=scope, name=name).delete()[0]:
                raise CommandError(f"The {scope.label.lower()} {name!r} is not paused. Nothing was changed.")
            self.stdout.write(f"Jobs of the {scope.label.lower()} {name} start again.")
            return
        if len(reason) > 150:
            raise CommandError("A reason has up to 150 characters.")
        QueuePause.objects.update_or_create(scope=scope, name=name, defaults={"reason": reason, "paused_by": "the command line"})
        self.stdout.write(f"Jobs of the {scope.label.lower()} {name} are held. Resume with --resume.")
