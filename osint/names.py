"""Names of people, organisations and places: by our own model, or by spaCy where it is installed and chosen.

The model is in `osint/ner` with its sources and licences. `NER_ENGINE=spacy:en_core_web_sm` chooses an installed spaCy
pipeline instead.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from osint.ner.tagger import Tagger, load_tagger
from osint.texts import sentences

TYPES = {"PERSON": "person", "ORGANISATION": "organisation", "LOCATION": "place"}
SPACY_TYPES = {"PERSON": "person", "PER": "person", "ORG": "organisation", "GPE": "place", "LOC": "place", "FAC": "place"}
SENTENCE_CHARS_MAX = 2_000  # a longer one is read in pieces
LETTERS = re.compile(r"[A-Za-zÀ-ɏ]")
TITLES = re.compile(r"^(?:(?:mr|mrs|ms|dr|prof|sir|herr|frau|mme|m)\.?\s+)+", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:the|der|die|das|le|la|les|el|los)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """`text[start:end]` names a person, an organisation or a place; `score` is how sure the engine is, from 0 to 1."""

    start: int
    end: int
    type: str
    engine: str
    score: float


class Engine(Protocol):
    name: str
    note: str

    def find(self, text: str, language: str) -> list[Name]: ...


@cache
def engine() -> Engine:
    """The engine that the settings choose, loaded once in a process. Raises ImproperlyConfigured, in words."""
    chosen = settings.NER_ENGINE
    if not chosen:
        return OwnModel(load_tagger())
    kind, _, pipeline = chosen.partition(":")
    if kind != "spacy" or not pipeline:
        raise ImproperlyConfigured(f"NER_ENGINE is empty or spacy:PIPELINE, such as spacy:en_core_web_sm, not {chosen!r}.")
    return SpacyPipeline(pipeline)


class OwnModel:
    """A linear-chain CRF, trained on English; it reads other languages in Latin script with less certainty."""

    note = ""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self.name = tagger.name

    def find(self, text: str, language: str) -> list[Name]:
        found = []
        for start, piece in pieces(text):
            if LETTERS.search(piece):
                for first, last, kind, score in self.tagger.entities(piece):
                    found.append(Name(start + first, start + last, TYPES[kind], self.name, score))
        return found


class SpacyPipeline:
    """An installed spaCy pipeline; it gives no scores, so each name counts as 1."""

    note = "Names were found by spaCy, which gives no scores"

    def __init__(self, pipeline: str) -> None:
        try:
            import spacy

            self.pipeline: Any = spacy.load(pipeline, disable=["lemmatizer", "textcat"])
        except (ImportError, OSError) as error:
            raise ImproperlyConfigured(f"NER_ENGINE names the spaCy pipeline {pipeline!r}, which is not installed: {error}") from None
        self.name = f"spacy:{pipeline}"

    def find(self, text: str, language: str) -> list[Name]:
        found = []
        for start, piece in pieces(text):
            for span in self.pipeline(piece).ents:
                if span.label_ in SPACY_TYPES:
                    found.append(Name(start + span.start_char, start + span.end_char, SPACY_TYPES[span.label_], self.name, 1.0))
        return found


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """The sentences of a text with their places; an endless one is cut between words."""
    for start, end in sentences(text):
        at = start
        while end - at > SENTENCE_CHARS_MAX:
            cut = text.rfind(" ", at + 1, at + SENTENCE_CHARS_MAX)
            cut = cut if cut > at else at + SENTENCE_CHARS_MAX
            yield at, text[at:cut]
            at = cut
        yield at, text[at:end]


def tidy(surface: str) -> str:
    """A name as it is shown: on one line, without a title, an article, quotes or a genitive."""
    text = " ".join(surface.split()).strip("\"'“”‘’«»,;:()[]")
    text = text if re.search(r"\.\w\.$", text) else text.rstrip(".")  # U.S. keeps its point
    text = re.sub(r"['’]s?$", "", text)
    return ARTICLE.sub("", TITLES.sub("", text)) or text


def key_of(name: str) -> str:
    """By which two mentions are the same entity: letters without case, other spellings are for duplicate detection."""
    return re.sub(r"[^\w&+]+", " ", name.casefold()).strip()
