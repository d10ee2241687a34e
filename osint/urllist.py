"""A pasted or uploaded list of web addresses: which can be fetched, which stand there twice, which are refused and why."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from osint.fetching import Refused, normalise, unresolved
from osint.indicators import refang_url

PROBLEMS_SHOWN = 10
_SCHEME = re.compile(r"(?:h(?:tt|xx|\*\*)ps?|f[tx]ps?)\s?(?:://|\[:\]//|\[://\]|:\[//\]|\(:\)//|:\\\\)", re.IGNORECASE)


@dataclass
class UrlList:
    """`good` in the order given; `refused` pairs each address with its reason and its line."""

    good: list[str] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    given: int = 0

    @property
    def duplicates(self) -> int:
        return self.given - len(self.good) - len(self.refused)

    def problems(self) -> list[str]:
        """The first ones in words, and how many more there are."""
        shown = [f"Line {line}, {url[:80]}: {reason}" if line else reason for line, url, reason in self.refused[:PROBLEMS_SHOWN]]
        more = len(self.refused) - PROBLEMS_SHOWN
        return [*shown, *([f"And {more:,} more."] if more > 0 else [])]


def read_urls(value: str | Sequence[str]) -> UrlList:
    """Each address is refanged, put into the form that we compare, and judged on its own."""
    lines = re.split(r"[\r\n,]+|\s+(?=https?://)", value) if isinstance(value, str) else value
    given = [line.strip() for line in lines if line and line.strip()]
    found = UrlList(given=len(given))
    good: dict[str, int] = {}
    for number, url in enumerate(given, 1):
        try:
            good.setdefault(normalise(refang_url(url) if _SCHEME.match(url) else url), number)
        except Refused as refused:
            found.refused.append((number, url, str(refused)))
    missing = unresolved(urlsplit(url).hostname or "" for url in good)
    for host in sorted(missing):
        for url in [url for url in good if urlsplit(url).hostname == host]:
            found.refused.append((good.pop(url), url, f"The host {host} cannot be found in the DNS."))
    found.refused.sort()
    found.good = list(good)
    return found
