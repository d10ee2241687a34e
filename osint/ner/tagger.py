"""The trained tagger: `model/` holds the CRF, the model that tells the style of a text, and the gazetteer."""

import gzip
import hashlib
from functools import cache
from pathlib import Path

import pycrfsuite

from osint.ner.features import FeatureMaker, Gazetteer, Style, decode, style_features, tokenise

FOLDER = Path(__file__).resolve().parent / "model"
FILES = ("ner.crf.gz", "style.crf.gz", "gazetteer.txt.gz")

Entity = tuple[int, int, str, float]  # start, end, type, score


class Model:
    """A CRF held in memory; crfsuite points into the bytes, so they are kept as long as the tagger."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.tagger = pycrfsuite.Tagger()
        self.tagger.open_inmemory(data)

    @classmethod
    def read(cls, path: Path) -> "Model":
        return cls(gzip.decompress(path.read_bytes()))

    def distribution(self, features: list[str]) -> Style:
        """Label probabilities of a sequence of one item."""
        self.tagger.set([features])
        return {label: self.tagger.marginal(label, 0) for label in self.tagger.labels()}


class Tagger:
    """Finds PERSON, ORGANISATION and LOCATION in a sentence; not to be shared between threads."""

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()
        self.name = f"crf-{digest[:8]}"  # another model is another engine
        self._maker = FeatureMaker(Gazetteer(folder / "gazetteer.txt.gz"))
        self._style = Model.read(folder / "style.crf.gz")
        self._ner = Model.read(folder / "ner.crf.gz")

    def entities(self, text: str) -> list[Entity]:
        """The entities of one sentence or short paragraph, in order; the score is the least marginal probability of its labels."""
        spans = tokenise(text)
        if not spans:
            return []
        style = self._style.distribution(style_features(text, spans))
        tagger = self._ner.tagger
        tagger.set(self._maker.features(text, spans, style))
        labels = tagger.tag()
        found = []
        for start, end, kind, first, stop in decode(labels, spans):
            score = min(tagger.marginal(labels[i], i) for i in range(first, stop))
            found.append((start, end, kind, round(score, 4)))
        return found


@cache
def load_tagger() -> Tagger:
    return Tagger(FOLDER)
