"""What the product says, in the language of the viewer.

Code and rows hold plain English sentences with what varies already in them: a log line, the reason of a hold, the end of a job.
They are translated where they are shown, so that what is stored, searched and answered by the API is one language, and a line
that was written yesterday is shown in the language of whoever reads it today. The catalogue has each sentence once, with {0},
{1}, … for what varies; what stands there is translated in turn, unless it stands in quotes and so is somebody's own word.
"""

import gettext
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from django.conf import settings
from django.utils import translation

SOURCE = "en"
DEPTH = 7  # sentences within sentences
SEPARATORS = (" · ", "; ", ". ", ", ", ": ")
VARIES = re.compile(r"\{(\d)\}")
NUMBER = re.compile(r"\d{1,3}(,\d{3})*(\.\d+)?")
SWAPPED = str.maketrans(",.", ".,")


@dataclass(frozen=True)
class Template:
    """`pattern` matches the English sentence; `order` has the number of each of its groups, `quoted` those within quotes."""

    pattern: re.Pattern[str]
    order: tuple[str, ...]
    quoted: frozenset[str]
    translated: str


class Catalogue:
    """The sentences of one language, found by their first word."""

    def __init__(self, language: str) -> None:
        self.plain: dict[str, str] = {}
        self.templates: dict[str, list[Template]] = defaultdict(list)
        for place in settings.LOCALE_PATHS:
            found: Any = gettext.translation("sentences", place, [language], fallback=True)
            entries = getattr(found, "_catalog", {})  # there is no other way to list what a catalogue has
            for text, translated in entries.items():
                if isinstance(text, str) and text and translated:
                    self.add(text, translated)
        for known in self.templates.values():
            known.sort(key=lambda template: -len(VARIES.sub("", template.pattern.pattern)))  # the most exact first

    def add(self, text: str, translated: str) -> None:
        order = tuple(VARIES.findall(text))
        if not order:
            self.plain[text] = translated
            return
        parts = VARIES.split(text)
        pattern = "".join("(.+?)" if n % 2 else re.escape(part) for n, part in enumerate(parts))
        quoted = frozenset(parts[n] for n in range(1, len(parts), 2) if parts[n - 1].endswith(("“", "'")))
        first = "" if text.startswith("{") else text.partition(" ")[0]
        template = Template(re.compile(pattern, re.DOTALL), order, quoted, translated)
        self.templates["" if VARIES.search(first) else first].append(template)

    def match(self, text: str, depth: int) -> str | None:
        """The whole of `text` as one sentence, or None."""
        if text in self.plain:
            return self.plain[text]
        for template in (*self.templates.get(text.partition(" ")[0], ()), *self.templates[""]):
            found = template.pattern.fullmatch(text)
            if found:
                values = dict(zip(template.order, found.groups(), strict=True))
                shown = {n: value if n in template.quoted else self.translate(value, depth - 1) for n, value in values.items()}
                return filled(template.translated, shown)
        return None

    def translate(self, text: str, depth: int = DEPTH) -> str:
        """What is not known stays as it is; of a text of several sentences, each is looked for."""
        if depth <= 0 or not text:
            return text
        if NUMBER.fullmatch(text):
            return text.translate(SWAPPED)
        whole = self.match(text, depth)
        if whole is not None:
            return whole
        for separator in SEPARATORS:
            if separator in text:
                return separator.join(self.translate(part, depth - 1) for part in text.split(separator))
        for end in (".", "…", ":"):
            if text.endswith(end):
                known = self.match(text[: -len(end)], depth)
                return text if known is None else known + end
        return text


def filled(text: str, values: dict[str, str]) -> str:
    return VARIES.sub(lambda part: values[part[1]], text)


@cache
def catalogue(language: str) -> Catalogue:
    return Catalogue(language)


@lru_cache(maxsize=8192)
def _told(text: str, language: str) -> str:
    return catalogue(language).translate(text)


def told(text: Any) -> str:
    """`text` in the language that is active."""
    text, language = str(text), (translation.get_language() or SOURCE).partition("-")[0]
    return text if language == SOURCE or not text else _told(text, language)
