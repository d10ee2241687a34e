"""Durations, sizes and counts in the words that pages, messages and the terminal share."""

import zoneinfo
from datetime import datetime

from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format, number_format


def duration(seconds: float | None) -> str:
    """4 ms, 0.4 s, 12 s, 2 min 08 s, 3 h 05 min, 2 d 4 h; empty for None."""
    if seconds is None:
        return ""
    if 0.0005 <= seconds < 0.05:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 1:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def about(seconds: float) -> str:
    """An estimate, no more exact than it is: about 40 s, about 3 min, about 2 h."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s" if seconds > 7 else "a few seconds"
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    return f"{round(seconds / 3600)} h"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """just now, 2 min ago, 4 h ago, yesterday, 12 Nov 2026."""
    now = now or timezone.now()
    seconds = (now - moment).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 22 * 3600:
        return f"{round(seconds / 3600)} h ago"
    days = (timezone.localtime(now).date() - timezone.localtime(moment).date()).days
    if days <= 1:
        return "yesterday"
    if days < 7:
        return f"{days} days ago"
    return date_format(timezone.localtime(moment), "j M Y")


def megabytes(value: float | None) -> str:
    """From MB: 0.4 MB, 286 MB, 1.2 GB; empty for None."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.1f} MB"
    return f"{value:.0f} MB" if value < 1000 else f"{value / 1024:.1f} GB"


def size(count: int) -> str:
    """From bytes: 812 B, 48 kB, 18.4 MB."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    return f"{count / 1_000_000:.1f} MB"


def count(number: int, noun: str, plural: str = "") -> str:
    """1 page, 1,000 pages. In English, as all sentences of the code are (jobs.language)."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def up_to(number: int, most: int) -> str:
    """1,204, or 10,000+ where more than `most` were not counted."""
    shown = number_format(min(number, most), use_l10n=True, force_grouping=True)
    return f"{shown}+" if number > most else shown


def csv_cell(text: str) -> str:
    """Text that no spreadsheet runs (OWASP, CSV injection): one that begins like a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of that name; that of the settings for what is none."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return zoneinfo.ZoneInfo(settings.TIME_ZONE)
