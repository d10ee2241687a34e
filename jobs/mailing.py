"""When a person gets mail about an end, by what they wish: at once, after their quiet hours, in the morning, or never."""

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

from jobs.language import SOURCE
from jobs.models import MailWish
from jobs.states import Status
from jobs.words import zone_of

DIGEST_AT = time(8)
Mail = MailWish.Mail


def mail_due(user_id: Any, subject_id: UUID | None, status: str, now: datetime) -> datetime | None:
    """None for no mail. A wish about the subject goes before the general one; quiet hours are those of the general one."""
    wishes = {w.subject_id: w for w in MailWish.objects.filter(Q(subject_id=None) | Q(subject_id=subject_id), user_id=user_id)}
    general = wishes.get(None) or MailWish()
    mail = (wishes.get(subject_id) or general).mail
    if mail == Mail.NONE or (mail == Mail.FAILURES and status != Status.FAILED) or status == Status.RUNNING:
        return None
    return next_time(DIGEST_AT, general.zone, now) if mail == Mail.DIGEST else after_quiet_hours(general, now)


def language_of(user_id: Any) -> str:
    """In which a person gets mail: the one in which they said of what."""
    return MailWish.objects.filter(user_id=user_id, subject_id=None).values_list("language", flat=True).first() or SOURCE


def next_time(wanted: time, zone: str, now: datetime) -> datetime:
    """The next moment at which clocks in `zone` show this time."""
    local = now.astimezone(zone_of(zone))
    moment = local.replace(hour=wanted.hour, minute=wanted.minute, second=0, microsecond=0)
    return moment if moment > local else (moment + timedelta(days=1))


def after_quiet_hours(wish: MailWish, now: datetime) -> datetime:
    """Now, or the end of the quiet hours that are going on; they may go past midnight."""
    begin, end = wish.quiet_from, wish.quiet_until
    if begin is None or end is None or begin == end:
        return now
    local = now.astimezone(zone_of(wish.zone)).time()
    is_quiet = begin <= local < end if begin < end else local >= begin or local < end
    return next_time(end, wish.zone, now) if is_quiet else now


def save_wishes(user: Any, general: Mapping[str, Any], by_subject: Mapping[UUID, str]) -> None:
    """`general` has mail, quiet_from, quiet_until, zone and language; an empty text for a subject means as in general."""
    MailWish.objects.update_or_create(user=user, subject_id=None, defaults=dict(general))
    for subject_id, mail in by_subject.items():
        if mail:
            MailWish.objects.update_or_create(user=user, subject_id=subject_id, defaults={"mail": mail})
        else:
            MailWish.objects.filter(user=user, subject_id=subject_id).delete()
