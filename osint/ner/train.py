"""Make the model of `osint.ner` anew: `make train-ner`, which needs the gold data (GOLD, default ../shared/data).

Writes gazetteer.txt.gz, style.crf.gz and ner.crf.gz into `model/`. The same input gives the same files: L-BFGS needs no
random numbers, and the folds of the style model have a fixed seed.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import pycrfsuite

from osint.ner.features import FeatureMaker, Gazetteer, Style, encode, style_features, tokenise
from osint.ner.gazetteer import build
from osint.ner.tagger import FOLDER, Model

FOLDS = 5
SEED = 7
STYLE_OF_SOURCE = {"wnut-train": "wnut", "wnut-dev": "comment"}
STYLE_SETTINGS = {"c1": 0.1, "c2": 0.1, "max_iterations": 60, "feature.minfreq": 2}
NER_SETTINGS = {"c1": 0.08, "c2": 0.6, "max_iterations": 80, "feature.minfreq": 1}
CLEAN_SOURCES = frozenset(("uner-dev", "wikigold"))
CLEAN_COPIES = 2


def fit(rows: list[list[list[str]]], labels: list[list[str]], settings: dict[str, Any]) -> bytes:
    """Train one CRF and give back the model file's bytes."""
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    for row, label in zip(rows, labels, strict=True):
        if row:
            trainer.append(row, label)
    trainer.set_params(settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.crf"
        trainer.train(str(path))
        return path.read_bytes()


def cross_fitted_styles(features: list[list[str]], labels: list[str]) -> list[Style]:
    """Style probabilities of every training text from a model that has not seen it."""
    chooser = random.Random(SEED)
    fold = [chooser.randrange(FOLDS) for _ in features]
    styles: list[Style] = [{} for _ in features]
    for held in range(FOLDS):
        inside = [i for i in range(len(features)) if fold[i] != held]
        model = Model(fit([[features[i]] for i in inside], [[labels[i]] for i in inside], STYLE_SETTINGS))
        for i in range(len(features)):
            if fold[i] == held:
                styles[i] = model.distribution(features[i])
    return styles


def write_gzip(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, mtime=0))


def train(documents: list[dict[str, Any]], out: Path) -> None:
    """Build the gazetteer, then the style model, then the tagger."""
    out.mkdir(parents=True, exist_ok=True)
    build(out / "gazetteer.txt.gz")
    texts = [document["text"] for document in documents]
    spans = [tokenise(text) for text in texts]
    style_rows = [style_features(text, span) for text, span in zip(texts, spans, strict=True)]
    kinds = [STYLE_OF_SOURCE.get(document["source"], document["source"]) for document in documents]
    write_gzip(out / "style.crf.gz", fit([[row] for row in style_rows], [[kind] for kind in kinds], STYLE_SETTINGS))
    styles = cross_fitted_styles(style_rows, kinds)
    maker = FeatureMaker(Gazetteer(out / "gazetteer.txt.gz"))
    rows, labels = [], []
    for document, text, span, style in zip(documents, texts, spans, styles, strict=True):
        copies = CLEAN_COPIES if document["source"] in CLEAN_SOURCES else 1
        rows += [maker.features(text, span, style)] * copies
        labels += [encode(span, document["entities"])] * copies
    write_gzip(out / "ner.crf.gz", fit(rows, labels, NER_SETTINGS))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gold", type=Path)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    source = arguments.gold / "ner" / "train.jsonl"
    if not source.exists():
        print(f"There is no {source}: say where the gold data are with GOLD=folder", file=sys.stderr)
        return 2
    with open(source, encoding="utf-8") as lines:
        train([json.loads(line) for line in lines], arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
