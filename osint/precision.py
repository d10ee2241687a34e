"""The date of an event in words that are no more exact than it is known."""

from osint.models import TimelineEvent


def when(event: TimelineEvent) -> str:
    """As exact as it is known."""
    p = TimelineEvent.Precision
    first, last = event.begins, event.ends
    if event.precision == p.TIME:
        return f"{first:%-d %b %Y}, {event.clock}"
    if event.precision == p.DAY:
        return f"{first:%-d %b %Y}" if first == last else f"{first:%-d %b %Y} – {last:%-d %b %Y}"
    if event.precision == p.YEAR:
        return f"{first.year}" if first.year == last.year else f"{first.year} – {last.year}"
    if event.precision == p.DECADE:
        return f"{first.year}s"
    if event.precision == p.QUARTER:
        return f"Q{(first.month + 2) // 3} {first.year}"
    same = (first.year, first.month) == (last.year, last.month)
    return f"{first:%b %Y}" if same else f"{first:%b %Y} – {last:%b %Y}"
