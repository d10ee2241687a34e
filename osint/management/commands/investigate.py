"""Investigate a subject from the command line."""

import time
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs.errors import InvalidParameters, NotAllowed
from jobs.models import JobGroup
from jobs.presentation import group_state
from osint.investigation import investigate
from osint.models import Subject


class Command(BaseCommand):
    help = "Starts a whole investigation of a subject: scrape, entities, duplicates, timeline, export, report."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("subject", help="The name of the subject; it is made if there is none.")
        parser.add_argument("urls", nargs="*", help="Pages to fetch first. Without any, the documents that are there are investigated.")
        parser.add_argument("--sitemap", default="", help="The address of a site map.")
        parser.add_argument("--depth", type=int, default=0, help="Follow links so many times.")
        parser.add_argument("--user", required=True, help="Who starts it.")
        parser.add_argument("--wait", action="store_true", help="Until it has ended; the exit status then says how.")

    def handle(self, *args: Any, subject: str, urls: list[str], sitemap: str, depth: int, user: str, wait: bool, **options: Any) -> None:
        who = get_user_model().objects.filter(username=user, is_active=True).first()
        if who is None:
            raise CommandError(f"There is no active user {user!r}. Make one with: python manage.py createsuperuser")
        found = Subject.objects.visible_to(who).filter(name=subject).first() or Subject.objects.create(name=subject, created_by=who)
        scrape = {"urls": urls, "sitemap": sitemap, "depth": depth} if urls or sitemap else None
        try:
            group = investigate(found, scrape=scrape, by=who)
        except (InvalidParameters, NotAllowed) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{group.name}: {group.pk}")
        if wait:
            self.follow(group)

    def follow(self, group: JobGroup) -> None:
        last = ""
        while True:
            state = group_state(group)
            if state.sentence != last:
                self.stdout.write(f"{state.badge.label}: {state.sentence}")
                last = state.sentence
            if all(job.is_ended for job in state.jobs):
                break
            time.sleep(0.5)
        if state.badge.key != "completed":
            raise CommandError(f"{group.name} ended {state.badge.label.lower()}.")
