"""Words and small pieces for templates."""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext as _

from jobs import words
from jobs.language import told, told_word

register = template.Library()

register.filter("told", told)
register.filter("told_word", told_word)
register.filter("duration", lambda seconds: told(words.duration(seconds)))
register.filter("about", lambda seconds: told(words.about(seconds)))
register.filter("megabytes", lambda value: told(words.megabytes(value)))
register.filter("filesize", lambda count: told(words.size(count)))


@register.filter
def ago(moment: datetime | None) -> str:
    """“2 min ago” with the exact time on hover; kept current by the page's script."""
    if moment is None:
        return ""
    exact = timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html('<time datetime="{}" title="{}" data-ago>{}</time>', moment.isoformat(), exact, told(words.ago(moment)))


@register.filter
def since(moment: datetime) -> str:
    """“since 09:14”, “since 3 May, 09:14”, in the viewer's zone."""
    local = timezone.localtime(moment)
    text = date_format(local, "H:i" if local.date() == timezone.localdate() else "j M, H:i")
    exact = local.strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html('{} <time datetime="{}" title="{}">{}</time>', _("since"), moment.isoformat(), exact, text)


@register.filter
def at(moment: datetime) -> str:
    """“at 09:41:10”, in the viewer's zone; with the day when it is another one. The countdown is in the badge."""
    local = timezone.localtime(moment)
    same_day = local.date() == timezone.localdate()
    clock = date_format(local, "H:i:s" if same_day else "H:i")
    text = told(f"at {clock}" if same_day else f"on {date_format(local, 'j M')} at {clock}")
    return format_html('<time datetime="{}">{}</time>', moment.isoformat(), text)


@register.simple_tag
def counted(number: int, noun: str, plural: str = "") -> str:
    return told(words.count(number, noun, plural))


@register.simple_tag
def badge(shown: Any) -> str:
    """`shown` is a jobs.presentation.Badge. Not a template of its own: lists have fifty of them."""
    return format_html('<span class="badge {}">{}<span>{}</span></span>', shown.key, icon(shown.key), told(shown.label))


@register.simple_tag
@cache
def icon(name: str) -> str:
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', static("icons.svg"), name)


@register.inclusion_tag("jobs/_bars.html")
def bars(counts: list[int]) -> dict[str, Any]:
    """A chart of failures in each of the last hours, the oldest first."""
    top = max(counts, default=0)
    shown = [{"x": n * 10, "y": 90 - 84 * count / top, "h": 84 * count / top} for n, count in enumerate(counts) if count]
    says = f"{words.count(sum(counts), 'failure')} in the last {len(counts)} hours" + (f", at most {top:,} in one of them" if top else "")
    return {"bars": shown, "width": 10 * len(counts), "says": told(says)}


@register.inclusion_tag("jobs/_counts.html")
def counts_chart(counts: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """(name, count) as rows with bars, the longest as wide as the place allows."""
    rows = list(counts)
    top = max((count for _, count in rows), default=0)
    return {"rows": [{"label": told(name), "count": count, "width": f"{100 * count / top if top else 0:.1f}"} for name, count in rows]}


@register.simple_tag
def gauge(value: float, most: float, limit: float) -> dict[str, Any]:
    """How much of something is taken, and the limit, in percent, as text that no language changes."""
    return {"value": f"{min(100.0, 100 * value / most):.1f}", "limit": f"{min(100.0, 100 * limit / most):.1f}", "over": value >= limit}
