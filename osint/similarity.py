"""How alike two texts, two names or two records are; and which of many are worth comparing.

Documents: MinHash over runs of five words (Broder 1997) with banded hashing finds candidates, and each is verified by
the exact Jaccard similarity. Records and names: blocking, then the model of Fellegi and Sunter (1969): each field adds
evidence for or against, as much as its agreement is unlikely by chance. Nothing compares all with all.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import jellyfish
import numpy as np
from anyascii import anyascii
from rapidfuzz.distance import JaroWinkler
from rapidfuzz.process import cpdist
from rensa import RMinHash, RMinHashLSH

# -- documents ----------------------------------------------------------------------------------------------

SHINGLE_WORDS = 5
SHINGLES_MAX = 50_000  # the first ones of a long document: enough to know it again
PERMUTATIONS, BANDS = 128, 32  # finds pairs from a Jaccard of about 0.42 on: (1/32)^(1/4)
DOCUMENTS_ALIKE = 0.6
SEED = 42


def shingles(text: str) -> set[str]:
    """Runs of five words, lower-case; all words as one for a shorter text."""
    words = re.findall(r"\w+", text.casefold())[: SHINGLES_MAX + SHINGLE_WORDS]
    if len(words) <= SHINGLE_WORDS:
        return {" ".join(words)} if words else set()
    return {" ".join(words[n : n + SHINGLE_WORDS]) for n in range(len(words) - SHINGLE_WORDS + 1)}


class NearDuplicates:
    """Texts are added one by one; each says with which earlier ones it should be compared."""

    def __init__(self) -> None:
        self.lsh = RMinHashLSH(threshold=DOCUMENTS_ALIKE, num_perm=PERMUTATIONS, num_bands=BANDS)

    def add(self, number: int, found: set[str]) -> list[int]:
        minhash = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
        minhash.update(sorted(found))
        earlier = sorted(self.lsh.query(minhash))
        self.lsh.insert(number, minhash)
        return earlier


def jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right) if left or right else 0.0


# -- normal forms ---------------------------------------------------------------------------------------------

LEGAL_FORMS = {
    "ltd", "limited", "inc", "incorporated", "corp", "corporation", "co", "company", "llc", "llp", "plc", "ag", "gmbh", "kg", "se", "sa", "sas",
    "sarl", "bv", "nv", "oy", "ab", "as", "spa", "srl", "sl", "pte", "pty", "ooo", "oao", "zao", "pao", "ao", "kft", "zrt", "doo", "dd", "the",
    "sp", "z", "o", "zoo",
}  # fmt: skip
TITLES = {
    "mr",
    "mrs",
    "ms",
    "miss",
    "dr",
    "prof",
    "professor",
    "sir",
    "lord",
    "lady",
    "herr",
    "frau",
    "senator",
    "president",
    "judge",
    "captain",
}


def plain(text: str) -> str:
    """Latin letters and digits in lower case, whatever the script: Зеленский and Zelenskij become alike."""
    return re.sub(r"[^a-z0-9]+", " ", anyascii(text).lower()).strip()


def name_tokens(text: str, kind: str) -> list[str]:
    """The words of a name that tell it from others: without titles and legal forms."""
    words = plain(text).split()
    idle = LEGAL_FORMS if kind == "organisation" else TITLES
    return [word for word in words if word not in idle] or words


# -- records and names ------------------------------------------------------------------------------------------

BUCKET_MAX = 40  # a larger block says too little; its records meet in others
AGREE_M = 0.9  # share of true pairs that agree in a field: what typing errors leave (Winkler 2006 gives 0.8 to 0.95)
ALIKE_FROM = 0.75  # Jaro-Winkler below this is a disagreement
U_MIN = 1e-5
PAIRS_AT_ONCE = 200_000
PRIOR_BITS = -7.0  # candidates of blocking, not of all pairs: about one in a hundred is true
LIKELY = 0.99  # probability from which a pair is taken as the same
WORTH_A_LOOK = 0.5


@dataclass(frozen=True)
class Pair:
    """Two positions, the probability that they are the same, and why."""

    left: int
    right: int
    score: float
    reasons: tuple[str, ...]


class Records:
    """Rows of a table with the same columns, compared field by field.

    Values are compared by Jaro-Winkler; a field of which each value is rare weighs more than one of few values.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.size = len(rows)
        self.columns = sorted({name for row in rows for name in row})
        self.values = {name: [plain(str(row.get(name) or "")) for row in rows] for name in self.columns}
        self.values = {name: values for name, values in self.values.items() if any(values)}
        self.chance = {name: agreement_by_chance(values) for name, values in self.values.items()}
        self.names = [name for name in self.values if self.chance[name] < 0.999]

    def candidates(self) -> np.ndarray:
        """Pairs that share a rare value, the sound of two fields, or a piece of one; each once, as (n, 2) positions."""
        blocks = [pairs_in(keys, self.size) for keys in self.blocks()]
        found = np.unique(np.concatenate(blocks)) if blocks else np.empty(0, dtype=np.int64)
        return np.stack([found // self.size, found % self.size], axis=1) if len(found) else np.empty((0, 2), dtype=np.int64)

    def blocks(self) -> Iterable[np.ndarray]:
        """Keys, one number per record: records with the same key are compared; below 0 is no key."""
        rare = sorted(self.names, key=lambda name: self.chance[name])
        for name in rare:
            if self.chance[name] < 0.01:
                yield coded(self.values[name])
        sounds = [coded([sound(value) for value in self.values[name]]) for name in rare[:8]]
        for one, other in combinations(sounds, 2):
            yield np.where((one >= 0) & (other >= 0), one * (other.max(initial=0) + 1) + other, -1)
        # a value that stands in another column, such as given name and surname swapped
        rows = zip(*(self.values[name] for name in rare[:8]), strict=True)
        words = [sorted(value for value in row if value and not value.isdigit())[:2] for row in rows]
        yield coded(["|".join(row) if len(row) == 2 else "" for row in words])

    def compare(self, pairs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(probability of each pair, similarity per column: nan where a value is missing)."""
        bits = np.full(len(pairs), PRIOR_BITS)
        alike: dict[str, np.ndarray] = {}
        for name in self.names:
            values = np.array(self.values[name], dtype=object)
            left, right = values[pairs[:, 0]], values[pairs[:, 1]]
            similar = cpdist(left, right, scorer=JaroWinkler.normalized_similarity, dtype=np.float32)
            similar[(left == "") | (right == "")] = np.nan
            alike[name] = similar
            bits += evidence(similar, self.chance[name])
        return 1 / (1 + np.exp2(-np.clip(bits, -60, 60))), alike

    def pairs(self, least: float = WORTH_A_LOOK) -> list[Pair]:
        """The pairs that are at least so likely the same, the likeliest first."""
        candidates = self.candidates()
        found = []
        for first in range(0, len(candidates), PAIRS_AT_ONCE):
            some = candidates[first : first + PAIRS_AT_ONCE]
            scores, alike = self.compare(some)
            for n in np.flatnonzero(scores >= least):
                reasons = tuple(self.reasons(some[n], {name: float(values[n]) for name, values in alike.items()}))
                found.append(Pair(int(some[n, 0]), int(some[n, 1]), round(float(scores[n]), 4), reasons))
        return sorted(found, key=lambda pair: (-pair.score, pair.left, pair.right))

    def reasons(self, pair: np.ndarray, alike: dict[str, float]) -> Iterable[str]:
        """What speaks for a pair, the rarest agreement first, and what speaks against it."""
        for name in sorted(alike, key=lambda name: self.chance[name]):
            similar = alike[name]
            label = name.replace("_", " ")
            if similar == 1.0:
                yield f"same {label}"
            elif similar >= 0.9:
                yield f"{label} alike ({self.values[name][pair[0]]} / {self.values[name][pair[1]]})"
            elif similar < ALIKE_FROM:
                yield f"other {label}"


def coded(values: Sequence[str]) -> np.ndarray:
    """A number for each different value, -1 for an empty one."""
    numbers: dict[str, int] = {"": -1}
    return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), dtype=np.int64, count=len(values))


def pairs_in(keys: np.ndarray, size: int) -> np.ndarray:
    """All pairs of positions with the same key, as left * size + right, but for keys that too many share."""
    order = np.argsort(keys, kind="stable")
    _, place, counts = np.unique(keys[order], return_inverse=True, return_counts=True)
    small = (counts[place] <= BUCKET_MAX) & (keys[order] >= 0)
    order, place = order[small], place[small]
    found = []
    for step in range(1, BUCKET_MAX):
        same = place[step:] == place[:-step] if step < len(place) else np.empty(0, dtype=bool)
        if not same.any():
            break
        found.append(order[:-step][same] * size + order[step:][same])
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def agreement_by_chance(values: Sequence[str]) -> float:
    """The probability that two records agree in this field although they are not the same (the u of the model)."""
    counts = Counter(filter(None, values))
    total = sum(counts.values())
    if total < 2:
        return 1.0
    return max(U_MIN, sum(n * (n - 1) for n in counts.values()) / (total * (total - 1)))


def evidence(similar: np.ndarray, chance: float) -> np.ndarray:
    """Bits for or against: log2(m/u) where the values agree, log2((1-m)/(1-u)) where they do not, between them in between."""
    agree = np.log2(AGREE_M / chance)
    differ = np.log2((1 - AGREE_M) / (1 - chance))
    share = np.clip((similar - ALIKE_FROM) / (1 - ALIKE_FROM), 0, 1)
    return np.nan_to_num(differ + share * (agree - differ), nan=0.0)


def sound(value: str) -> str:
    """How the first word of a value sounds; digits as they are, in order, so that a swap of two does not matter."""
    if not value:
        return ""
    if value.replace(" ", "").isdigit():
        return "".join(sorted(value.replace(" ", "")))
    return jellyfish.metaphone(value.split(maxsplit=1)[0]) or value[:4]


# -- names ------------------------------------------------------------------------------------------------------

NAMES_LINKED = 0.95
DOCUMENTS_LINKED = 0.8
NAMES_WORTH_A_LOOK = 0.82


def alike_names(names: Sequence[str], kind: str) -> list[Pair]:
    """Names that likely mean the same: other spellings, other scripts, other order, initials, with or without legal form.

    `kind` is person, organisation or place. Compared are names that share the sound of a word, its beginning, or
    all initials.
    """
    tokens = [name_tokens(name, kind) for name in names]
    buckets: dict[str, set[int]] = defaultdict(set)
    for number, words in enumerate(tokens):
        for key in name_keys(words):
            buckets[key].add(number)
    candidates = {pair for members in buckets.values() if 1 < len(members) <= BUCKET_MAX for pair in combinations(sorted(members), 2)}
    found = []
    for left, right in sorted(candidates):
        score, reasons = name_score(tokens[left], tokens[right], kind)
        if score >= NAMES_WORTH_A_LOOK:
            found.append(Pair(left, right, round(score, 4), tuple(reasons)))
    return sorted(found, key=lambda pair: (-pair.score, pair.left, pair.right))


def name_keys(words: Sequence[str]) -> set[str]:
    keys = {f"b{word[:4]}" for word in words if len(word) > 2} | {f"s{jellyfish.metaphone(word)}" for word in words if len(word) > 2}
    if len(words) > 1:
        keys.add("i" + "".join(sorted(word[0] for word in words)))
    acronym = "".join(word[0] for word in words)
    return keys | ({f"a{acronym}"} if len(words) > 2 else {f"a{words[0]}"} if len(words) == 1 and len(words[0]) < 7 else set())


def name_score(left: Sequence[str], right: Sequence[str], kind: str) -> tuple[float, list[str]]:
    """From 0 to 1, with what speaks for it. Words are matched with their best partner; initials and acronyms may stand for words."""
    if not left or not right:
        return 0.0, []
    if sorted(left) == sorted(right):
        return 1.0, ["the same words" if list(left) == list(right) else "the same words in another order"]
    if kind == "organisation" and is_acronym(left, right):
        return 0.86, [f"{' '.join(left if len(left) < len(right) else right)} are the initials of the other"]
    short, long = (left, right) if len(left) <= len(right) else (right, left)
    total, reasons, free = 0.0, [], list(long)
    for word in short:
        best = max(free, key=lambda other: word_score(word, other)) if free else ""
        score = word_score(word, best) if best else 0.0
        total += score * weight(word)
        if best:
            free.remove(best)
        if 0.7 <= score < 1:
            reasons.append(f"{word} / {best} " + ("is an initial" if 1 in (len(word), len(best)) else "alike"))
    share = total / sum(map(weight, short))
    missing = sum(map(weight, free)) / sum(map(weight, long))
    if free:
        reasons.append(f"without {' '.join(free)}")
    if len(short) == 1 and kind == "person" and len(long) > 1:
        return 0.0, []  # a surname alone is anybody of the family
    return share * (1 - 0.35 * missing), reasons


def word_score(one: str, other: str) -> float:
    if one == other:
        return 1.0
    if len(one) == 1 or len(other) == 1:
        return 0.85 if one[0] == other[0] else 0.0
    similar = JaroWinkler.normalized_similarity(one, other)
    if similar < 0.85:
        return 0.0
    if min(len(one), len(other)) > 3 and jellyfish.metaphone(one) == jellyfish.metaphone(other):
        return max(similar, 0.93)
    return 1 - 2 * (1 - similar)  # one letter makes another given name: Maria, Mario


def weight(word: str) -> float:
    """A longer word says more than a short one."""
    return min(len(word), 6) / 6


def is_acronym(left: Sequence[str], right: Sequence[str]) -> bool:
    short, long = (left, right) if len(left) < len(right) else (right, left)
    return len(short) == 1 and len(long) > 2 and short[0] == "".join(word[0] for word in long)
