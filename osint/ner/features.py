"""Tokens, features and span decoding of the named-entity tagger; used for training and for inference alike."""

import gzip
import re
from functools import lru_cache
from pathlib import Path

Span = tuple[int, int]
Style = dict[str, float]

TOKEN = re.compile(
    r"https?://\S+"
    r"|(?<![^\W_])(?:[A-Za-z]\.){2,}"
    r"|\d+(?:[.,:]\d+)*(?![^\W_])"
    r"|(?<=@)\w+"
    r"|[^\W\d_]+n['’]t\b"
    r"|[^\W_]+(?:['’](?!(?:s|S|ve|re|ll|d|m)\b)[^\W\d_]+)?"
    r"|['’](?:s|S|ve|re|ll|d|m)\b"
    r"|\S"
)
CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
DETACHED = re.compile(r"\d[.,] \d|\w['’] [a-z]|\" \w")
LINK = re.compile(r"https?://\S+")
HANDLE = re.compile(r"(?<=[@#])\w+")
DIGIT = re.compile(r"\d")
NO_TAGS = ("none",)
EMOJI_FROM = "\u2100"
STOPS = frozenset(".;")
CAPITAL = frozenset(("Cap", "UP", "U1", "Mix", "Ap"))
LINKS = frozenset(("of", "the", "for", "and", "&", "de", "la", "del", "al", "bin", "von", "van", "on", "in"))
RUN_TAGS = frozenset(("T", "OH", "LH", "D", "K", "G0", "G1", "S0", "GF"))
HANDLE_MIN_PART = 3
CACHE = 100_000


class Gazetteer:
    """Word and phrase tags read from one gzipped text file: `tags<TAB>lower-cased phrase` lines."""

    def __init__(self, path: Path) -> None:
        self.words: dict[str, tuple[str, ...]] = {}
        self.phrases: dict[str, str] = {}
        self.longest: dict[str, int] = {}
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                tags, phrase = line.rstrip("\n").split("\t")
                if tags.startswith("="):
                    self._add_phrase(tags[1:], phrase)
                else:
                    self.words[phrase] = tuple(tags.split(" "))

    def _add_phrase(self, tag: str, phrase: str) -> None:
        parts = phrase.split(" ")
        self.phrases[phrase] = tag
        self.longest[parts[0]] = max(len(parts), self.longest.get(parts[0], 0))

    def matches(self, lowers: list[str]) -> list[str]:
        """Longest phrase matches, left to right: one `B-tag`, `I-tag` or empty string for each token."""
        marks = [""] * len(lowers)
        start = 0
        while start < len(lowers):
            longest = self.longest.get(lowers[start], 0)
            for size in range(min(longest, len(lowers) - start), 0, -1):
                tag = self.phrases.get(" ".join(lowers[start : start + size]))
                if tag:
                    marks[start] = f"B{min(size, 3)}-{tag}"
                    for inner in range(start + 1, start + size):
                        marks[inner] = f"I-{tag}"
                    break
            else:
                size = 1
            start += size
        return marks


def tokenise(text: str) -> list[Span]:
    """Character spans of the tokens of a text."""
    return [match.span() for match in TOKEN.finditer(text)]


@lru_cache(maxsize=CACHE)
def case_of(word: str) -> str:
    """Coarse letter-case class of a token."""
    if word.isalpha():
        if word.islower():
            return "lo"
        if word.isupper():
            return "U1" if len(word) == 1 else "UP"
        return "Cap" if word[0].isupper() and word[1:].islower() else "Mix"
    if word.startswith("http"):
        return "url"
    if word[0].isalpha():
        return "Ap" if word[0].isupper() else "ap"
    return "num" if word[0].isdigit() else word[0]


@lru_cache(maxsize=CACHE)
def shape_of(word: str) -> str:
    """Letter shape with runs longer than three cut short."""
    shape = "".join("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word[:20])
    return re.sub(r"(.)\1{2,}", r"\1\1+", shape)


class FeatureMaker:
    """Turns a text's tokens into lists of feature strings."""

    def __init__(self, gazetteer: Gazetteer) -> None:
        self.gazetteer = gazetteer
        self.own = lru_cache(maxsize=CACHE)(self._own)
        self.near = lru_cache(maxsize=CACHE)(self._near)
        self.handle = lru_cache(maxsize=CACHE)(self._handle)

    def tags(self, word: str) -> tuple[str, ...]:
        return self.gazetteer.words.get(word.lower(), NO_TAGS)

    def _own(self, word: str) -> tuple[str, ...]:
        """Features of a token by itself."""
        lower, case = word.lower(), case_of(word)
        out = ["w=" + word, "l=" + lower, "s=" + shape_of(word), "c=" + case, f"n={min(len(word), 10)}"]
        if case not in ("url", "num") and len(word) > 1:
            out += [f"p{k}={lower[:k]}" for k in (1, 2, 3, 4) if len(lower) > k]
            out += [f"e{k}={lower[-k:]}" for k in (1, 2, 3, 4) if len(lower) > k]
        tags = self.tags(word)
        out += [f"g={tag}" for tag in tags]
        out += [f"gc={tag}|{case}" for tag in tags]
        out.append("G=" + ",".join(tags) + case)
        return tuple(out)

    def _near(self, word: str, where: str) -> tuple[str, ...]:
        """Features that a token lends to its neighbour at offset `where`."""
        lower, case = word.lower(), case_of(word)
        out = [f"{where}l={lower}", f"{where}c={case}"]
        out += [f"{where}g={tag}|{case}" for tag in self.tags(word)]
        if where in ("-1", "+1"):
            out += [f"{where}e={lower[-3:]}", f"{where}s={shape_of(word)}"]
        return tuple(out)

    def _handle(self, word: str) -> tuple[str, ...]:
        """Features of the word behind an @ or #: its parts by camel case or by known names, and its letter groups."""
        parts = CAMEL.findall(word)
        if len(parts) < 2:
            parts = self._split_by_names(word.lower()) or parts
        lowers = [part.lower() for part in parts]
        out = [f"hp={part}" for part in lowers]
        tags = [self._name_tags(part) for part in lowers]
        out += [f"hg={tag}" for group in tags for tag in group]
        if tags:
            out += ["h0=" + ",".join(tags[0]), "hz=" + ",".join(tags[-1])]
        low = "^" + word.lower()[:20] + "$"
        out += [f"h3={low[i : i + 3]}" for i in range(len(low) - 2)]
        out += [f"h4={low[i : i + 4]}" for i in range(len(low) - 3)]
        return tuple(out)

    def _name_tags(self, word: str) -> tuple[str, ...]:
        if len(word) < HANDLE_MIN_PART:
            return ("short",)
        return tuple(tag for tag in self.tags(word) if tag[0] != "z")

    def _split_by_names(self, lower: str) -> list[str]:
        """First cut of a run-together handle into a known given name and something else."""
        words = self.gazetteer.words
        for cut in range(min(len(lower) - HANDLE_MIN_PART, 10), HANDLE_MIN_PART, -1):
            if any(tag[0] == "G" for tag in words.get(lower[:cut], ())):
                return [lower[:cut], lower[cut:]]
        return []

    def features(self, text: str, spans: list[Span], style: Style) -> list[list[str]]:
        """One list of feature strings for each token; `style` gives the probability of each kind of text."""
        view = TextView(text, spans)
        marks = self.gazetteer.matches(view.lowers)
        groups = [",".join(self.tags(word)[:2]) for word in view.words]
        runs = self.runs(view)
        flags = text_flags(text, view.words)
        best = max(style, key=lambda name: style[name])
        level = str(int(style["btc"] * 8))
        rows = []
        for i, word in enumerate(view.words):
            row = list(self.own(word))
            self._add_neighbours(row, view, i)
            self._add_joint(row, view, groups, i)
            add_marks(row, marks, view.cases[i], i)
            row += runs[i]
            kind = self._add_handle(row, view, i)
            row += [f"f={flag}|{kind}" for flag in flags]
            row += (f"t={best}|{kind}", f"tb={level}|{kind}", f"tg={best}|{groups[i]}|{kind}", f"tl={best}|{view.lowers[i]}")
            if marks[i]:
                row.append(f"tm={best}|{marks[i]}")
            rows.append(row)
        return rows

    def _add_neighbours(self, row: list[str], view: "TextView", i: int) -> None:
        words, lowers, cases, last = view.words, view.lowers, view.cases, len(view.words) - 1
        row += self.near(words[i - 1] if i else "<s>", "-1")
        row += self.near(words[i + 1] if i < last else "</s>", "+1")
        if i > 1:
            row += self.near(words[i - 2], "-2")
            row += (f"b-2={lowers[i - 2]} {lowers[i - 1]}", f"c-2={cases[i - 2]} {cases[i - 1]} {cases[i]}")
        if i < last - 1:
            row += self.near(words[i + 2], "+2")
            row += (f"b+2={lowers[i + 1]} {lowers[i + 2]}", f"c+2={cases[i]} {cases[i + 1]} {cases[i + 2]}")

    def _add_joint(self, row: list[str], view: "TextView", groups: list[str], i: int) -> None:
        lowers, cases, gaps, last = view.lowers, view.cases, view.gaps, len(view.words) - 1
        low, case, group = lowers[i], cases[i], groups[i]
        low_before, case_before, group_before = (lowers[i - 1], cases[i - 1], groups[i - 1]) if i else ("<s>", "<s>", "<s>")
        low_after, case_after, group_after = (lowers[i + 1], cases[i + 1], groups[i + 1]) if i < last else ("</s>", "</s>", "</s>")
        row += (
            f"b-1={low_before} {low}",
            f"b+1={low} {low_after}",
            f"cc={case_before} {case} {case_after}",
            f"gb={group_before}|{group}|{case}",
            f"ga={group}|{group_after}|{case}",
            f"sp={gaps[i]:d}{gaps[i + 1]:d}{case}",
        )

    def _add_handle(self, row: list[str], view: "TextView", i: int) -> str:
        """Add features of handles and hashtags; gives the token's kind: its case, or its part in a handle."""
        case = view.cases[i]
        if case in "@#" and not view.gaps[i + 1]:
            row += ["n" + feature for feature in self.handle(view.words[i + 1])]
            return "@" + case
        if i and view.words[i - 1] in "@#" and not view.gaps[i]:
            row += self.handle(view.words[i])
            return view.words[i - 1] + "w"
        return case

    def runs(self, view: "TextView") -> list[tuple[str, ...]]:
        """For each token in a run of capitalised words: the run's size, ends, surroundings and kinds of word."""
        lowers, last = view.lowers, len(view.words) - 1
        out: list[tuple[str, ...]] = [()] * len(lowers)
        start = 0
        while start <= last:
            if view.cases[start] not in CAPITAL:
                start += 1
                continue
            end = start
            while end < last and view.gaps[end + 1]:
                if view.cases[end + 1] in CAPITAL:
                    end += 1
                elif lowers[end + 1] in LINKS and end + 1 < last and view.cases[end + 2] in CAPITAL and view.gaps[end + 2]:
                    end += 2
                else:
                    break
            out[start : end + 1] = self._run_rows(view, start, end)
            start = end + 1
        return out

    def _run_rows(self, view: "TextView", start: int, end: int) -> list[tuple[str, ...]]:
        lowers, size = view.lowers, min(end - start + 1, 6)
        before = lowers[start - 1] if start else "<s>"
        after = lowers[end + 1] if end + 1 < len(lowers) else "</s>"
        kinds = sorted({tag for word in view.words[start : end + 1] for tag in self.tags(word) if tag in RUN_TAGS})
        shared = (
            f"rz={lowers[end]}",
            f"ra={lowers[start]}",
            f"rb={before}",
            f"rc={after}",
            f"rd={before}|{after}",
            f"rn={size}",
            "rk=" + ",".join(kinds),
        )
        return [
            (*shared, f"rp={min(i - start, 3)}/{min(end - i, 3)}", f"rq={','.join(kinds)}|{min(end - i, 3)}") for i in range(start, end + 1)
        ]


class TextView:
    """A text's tokens with their lower-cased forms, letter-case classes and the gaps before them (one more at the end)."""

    __slots__ = ("cases", "gaps", "lowers", "words")

    def __init__(self, text: str, spans: list[Span]) -> None:
        self.words = [text[a:b] for a, b in spans]
        self.lowers = [word.lower() for word in self.words]
        self.cases = [case_of(word) for word in self.words]
        self.gaps = [i == 0 or spans[i - 1][1] < spans[i][0] for i in range(len(spans))] + [True]


def add_marks(row: list[str], marks: list[str], case: str, i: int) -> None:
    """Add phrase matches of the token and of its neighbours."""
    if marks[i]:
        row += ("m=" + marks[i], f"mc={marks[i]}|{case}")
    if i and marks[i - 1]:
        row.append("m-1=" + marks[i - 1])
    if i + 1 < len(marks) and marks[i + 1]:
        row.append("m+1=" + marks[i + 1])


def text_flags(text: str, words: list[str]) -> list[str]:
    """Marks of the kind of text: shouting, lower case, links, detached punctuation, talk."""
    letters = [word for word in words if len(word) > 1 and word.isalpha()]
    upper = sum(word.isupper() for word in letters)
    capital = sum(word[0].isupper() for word in letters)
    marks = (
        ("shout", upper * 2 > len(letters)),
        ("lower", letters and not capital),
        ("title", len(letters) > 2 and capital * 3 > len(letters) * 2),
        ("at", "@" in text),
        ("hash", "#" in text),
        ("rt", text.startswith("RT ")),
        ("reply", text[:1] == "@"),
        ("detached", DETACHED.search(text)),
        ("emoji", text and max(text) > EMOJI_FROM),
        ("stop", text.rstrip()[-1:] in STOPS),
    )
    link = "tco" if "http://t.co" in text else "tcos" if "https://t.co" in text else "url" if "http" in text else "nourl"
    return [link, *(name for name, holds in marks if holds)]


def style_features(text: str, spans: list[Span]) -> list[str]:
    """Features of a whole text for the model that tells the kind of text."""
    found = {f"len{min(len(spans) // 5, 8)}"}
    before, last_end, sign = "<s>", -1, ""
    for start, end in spans:
        word = text[start:end]
        kind = style_kind(word, sign)
        if sign:
            found.add(f"{sign}{len(word)}")
        elif word.isalpha():
            found.add("w=" + word.lower())
            found.add("W=" + word)
        found.add(f"k={before}{'_' if start > last_end else ''}{kind}")
        before, last_end, sign = kind, end, word if word in "@#" else ""
    found.add(f"k={before}</s>")
    plain = DIGIT.sub("0", HANDLE.sub("H", LINK.sub("U", text)))
    found.update("3=" + plain[i : i + 3] for i in range(len(plain) - 2))
    return sorted(found)


def style_kind(word: str, sign: str) -> str:
    """Coarse kind of a token: link with its host, handle, number, punctuation mark or letter case."""
    if word.startswith("http"):
        return "/".join(word.lower().split("/", 3)[:3])
    if sign:
        return "H"
    return "0" if word[0].isdigit() else case_of(word)


def decode(labels: list[str], spans: list[Span]) -> list[tuple[int, int, str, int, int]]:
    """Entities of a BIO label sequence: start, end, type and the token range."""
    found: list[tuple[int, int, str, int, int]] = []
    start, kind = -1, ""
    for i, label in enumerate([*labels, "O"]):
        if start >= 0 and label != "I-" + kind:
            found.append((spans[start][0], spans[i - 1][1], kind, start, i))
            start = -1
        if label[0] == "B" or (label[0] == "I" and start < 0):
            start, kind = i, label[2:]
    return found


def encode(spans: list[Span], entities: list[tuple[int, int, str]]) -> list[str]:
    """BIO labels of the tokens; entities whose ends fall inside a token are left out."""
    starts = {a: i for i, (a, _) in enumerate(spans)}
    ends = {b: i for i, (_, b) in enumerate(spans)}
    labels = ["O"] * len(spans)
    for a, b, kind in entities:
        if a in starts and b in ends:
            labels[starts[a]] = "B-" + kind
            for i in range(starts[a] + 1, ends[b] + 1):
                labels[i] = "I-" + kind
    return labels
