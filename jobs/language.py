"""What the product says, in the language of the viewer.

Code and rows hold plain English sentences with what varies already in them: a log line, the reason of a hold, the end of a job.
They are translated where they are shown, so that what is stored, searched and answered by the API is one language, and a line
that was written yesterday is shown in the language of whoever reads it today. The catalogue has each sentence once, with {0},
{1}, … for what varies. What stands there is translated in turn, unless it is somebody's own word: in quotes, or written {0!}. In quotes, {0?} is the name of
a job, which is ours as a rule.
"""

import gettext
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from django.conf import settings
from django.utils import translation
from django.utils.formats import get_format

SOURCE = "en"
DEPTH = 7  # sentences within sentences
CHARS_MAX = 400  # a longer text is not looked for: it is somebody's, such as a message of a library
UNIT_CHARS = 4  # a template with no more of its own stands for numbers, such as {0} MB, {0} of {1}
PARTS = " · "  # between what a sentence is put together of, each by itself
NAMED = ": "  # between a name and what is said of it
SEPARATORS = ("; ", ". ", ", ", ": ")
VARIES = re.compile(r"\{(\d)([!?]?)\}")
NUMBER = re.compile(r"\d{1,3}(,\d{3})*(\.\d+)?|\d+(\.\d+)?")


@dataclass(frozen=True)
class Template:
    """`pattern` matches the English sentence; `order` has the number of each of its groups, `own` those that stay as they are.
    `fixed` is what of it does not vary."""

    pattern: re.Pattern[str]
    fixed: str
    order: tuple[str, ...]
    own: frozenset[str]
    translated: str

    @property
    def exactness(self) -> int:
        """Characters that do not vary: the most exact one that fits is meant."""
        return len(self.fixed)


class Catalogue:
    """The sentences of one language, found by their first word, or else by their last."""

    def __init__(self, language: str) -> None:
        self.plain: dict[str, str] = {}
        self.by_first: dict[str, list[Template]] = defaultdict(list)
        self.by_last: dict[str, list[Template]] = defaultdict(list)
        self.others: list[Template] = []
        for place in settings.LOCALE_PATHS:
            found: Any = gettext.translation("sentences", place, [language], fallback=True)
            entries = getattr(found, "_catalog", {})  # there is no other way to list what a catalogue has
            for text, translated in entries.items():
                if isinstance(text, str) and text and translated:
                    self.add(text, translated)

    def add(self, text: str, translated: str) -> None:
        parts = VARIES.split(text)  # text, number, mark, text, number, mark, …, text
        order = tuple(parts[1::3])
        if not order:
            self.plain[text] = translated
            return
        fixed = "".join(parts[::3])
        pattern = ("(.+?)" if len(fixed) > UNIT_CHARS else r"([\d.,]+)").join(re.escape(part) for part in parts[::3])
        marked = zip(order, parts[2::3], parts[::3], strict=False)
        own = frozenset(n for n, mark, before in marked if mark == "!" or (not mark and before.endswith(("“", "'"))))
        template = Template(re.compile(pattern, re.DOTALL), fixed, order, own, translated)
        first, last = text.split(" ", maxsplit=1)[0], text.rsplit(" ", maxsplit=1)[-1]
        if not VARIES.search(first):
            self.by_first[first].append(template)
        elif not VARIES.search(last):
            self.by_last[last].append(template)
        else:
            self.others.append(template)

    def match(self, text: str, depth: int) -> str | None:
        """The whole of `text` as one sentence, or None."""
        if text in self.plain:
            return self.plain[text]
        words = text.split(" ")
        candidates = (*self.by_first.get(words[0], ()), *self.by_last.get(words[-1], ()), *self.others)
        for template in sorted(candidates, key=lambda template: -template.exactness):
            found = template.pattern.fullmatch(text)
            if found:
                values = dict(zip(template.order, found.groups(), strict=True))
                return filled(template.translated, {n: v if n in template.own else self.value(v, depth) for n, v in values.items()})
        return None

    def value(self, text: str, depth: int) -> str:
        """What stands for a placeholder: a number as the language writes it, or a sentence again."""
        return localised(text) if NUMBER.fullmatch(text) else self.translate(text, depth - 1)

    def translate(self, text: str, depth: int = DEPTH) -> str:
        """What is not known stays as it is; of a text of several sentences, each is looked for."""
        if depth <= 0 or not text or len(text) > CHARS_MAX:
            return text
        if PARTS in text:
            return PARTS.join(self.translate(part, depth) for part in text.split(PARTS))
        whole = self.named(text, depth) or self.match(text, depth)
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

    def named(self, text: str, depth: int) -> str | None:
        """What is said of something that has a name of ours, such as a job: each side of the colon by itself, unless the colon
        belongs to a sentence. Otherwise what is said would be taken for a part of the name."""
        name, colon, rest = text.partition(NAMED)
        if not colon or name.count("“") != name.count("”"):
            return None
        known = self.match(name, depth)
        begins_so = self.by_first.get(text.split(" ", maxsplit=1)[0], ())
        if known is None or any(NAMED in template.fixed and template.pattern.fullmatch(text) for template in begins_so):
            return None
        return f"{known}{NAMED}{self.translate(rest, depth - 1)}"


def filled(text: str, values: dict[str, str]) -> str:
    return VARIES.sub(lambda part: values[part[1]], text)


def localised(number: str) -> str:
    """An English number with the separators of the language that is active."""
    parts = number.split(".")
    return get_format("DECIMAL_SEPARATOR").join([parts[0].replace(",", get_format("THOUSAND_SEPARATOR")), *parts[1:]])


@cache
def catalogue(language: str) -> Catalogue:
    return Catalogue(language)


@lru_cache(maxsize=8192)
def _told(text: str, language: str) -> str:
    return catalogue(language).translate(text)


def told(text: Any) -> str:
    """`text` in the language that is active."""
    text, language = str(text), current()
    return text if language == SOURCE or not text else _told(text, language)


def told_word(text: Any) -> str:
    """The same for a text that may be somebody's own: only if it is, as a whole, one of ours."""
    text, language = str(text), current()
    return text if language == SOURCE else catalogue(language).plain.get(text, text)


def current() -> str:
    return (translation.get_language() or SOURCE).partition("-")[0]
