"""Train the named-entity tagger: `python train.py GOLD_FOLDER OUT_FOLDER` (GOLD_FOLDER holds train.jsonl).

Writes gazetteer.txt.gz, style.crf.gz and ner.crf.gz. The same input gives the same files: L-BFGS needs no random numbers,
and the folds of the style model have a fixed seed.
"""

import argparse
import gzip
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pycrfsuite
from build_gazetteer import build
from ner_features import FeatureMaker, Gazetteer, Style, encode, style_features, tokenise
from predict import Model

FOLDS = 5
SEED = 7
STYLE_OF_SOURCE = {"wnut-train": "wnut", "wnut-dev": "comment"}
STYLE_SETTINGS = {"c1": 0.1, "c2": 0.1, "max_iterations": 60, "feature.minfreq": 2}
NER_SETTINGS = {"c1": 0.08, "c2": 0.6, "max_iterations": 80, "feature.minfreq": 1}


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


def train(gold: Path, out: Path) -> None:
    """Build the gazetteer, then the style model, then the tagger."""
    out.mkdir(parents=True, exist_ok=True)
    with open(gold / "train.jsonl", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    texts = [document["text"] for document in documents]
    build(out / "gazetteer.txt.gz")
    spans = [tokenise(text) for text in texts]
    styles_in = [style_features(text, span) for text, span in zip(texts, spans, strict=True)]
    kinds = [STYLE_OF_SOURCE.get(document["source"], document["source"]) for document in documents]
    write_gzip(out / "style.crf.gz", fit([[row] for row in styles_in], [[kind] for kind in kinds], STYLE_SETTINGS))
    maker = FeatureMaker(Gazetteer(out / "gazetteer.txt.gz"))
    styles = cross_fitted_styles(styles_in, kinds)
    rows = [maker.features(text, span, style) for text, span, style in zip(texts, spans, styles, strict=True)]
    labels = [encode(span, document["entities"]) for span, document in zip(spans, documents, strict=True)]
    write_gzip(out / "ner.crf.gz", fit(rows, labels, NER_SETTINGS))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gold", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    train(arguments.gold, arguments.out)
