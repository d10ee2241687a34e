"""What the documents of a subject say about themselves: their day, their country, their sentences."""

import re
from collections.abc import Iterator
from datetime import date

from osint.dates import MONTH_OF
from osint.models import Document

# The country in which a phone number without a country code is dialled, by the top-level domain or else the language.
REGION_OF_LANGUAGE = {"de": "DE", "fr": "FR", "es": "ES", "it": "IT", "pt": "PT", "nl": "NL", "pl": "PL", "ru": "RU"}
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|Inc|Ltd|Co|Corp|No|Nr|vs|approx|ca|bzw|Sp|Gen|Col|Lt|Sen|Rep|Gov|ul|Av|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
    r"|\b[A-ZА-Я])\.$"
)
_END = re.compile(r"(?<![.!?…。！？])[.!?…。！？]+[\"'”’»)\]]*(?=\s+[\"'“‘«(\[]?[^\sa-zа-я])|[。！？]|\n+")


def published_on(document: Document) -> date:
    """The day that the page states; else that of its capture."""
    try:
        return date.fromisoformat(document.published[:10])
    except ValueError:
        return document.fetched_at.date()


def region_of(host: str, language: str) -> str | None:
    """ISO 3166 code, or None where nothing tells."""
    suffix = host.rpartition(".")[2].upper()
    if len(suffix) == 2 and suffix.isalpha() and suffix not in ("IO", "CO", "TV", "ME", "AI", "EU"):
        return "GB" if suffix == "UK" else suffix
    return "US" if suffix in ("GOV", "MIL", "EDU") else REGION_OF_LANGUAGE.get(language)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence, without the space around it."""
    start = 0
    for match in _END.finditer(text):
        if match[0].startswith(".") and is_abbreviation(text, start, match):
            continue
        yield from stripped(text, start, match.end())
        start = match.end()
    yield from stripped(text, start, len(text))


def is_abbreviation(text: str, start: int, point: re.Match) -> bool:
    """Whether a point ends no sentence: “Dr. Keller”, “3. Juni”."""
    before = text[max(start, point.start() - 12) : point.start() + 1]
    if re.search(r"\b\d{1,2}\.$", before):
        after = re.match(r"\s+(\w+)", text[point.end() : point.end() + 20])
        return after is not None and after[1].lower() in MONTH_OF
    return _ABBREVIATION.search(before) is not None


def stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end
