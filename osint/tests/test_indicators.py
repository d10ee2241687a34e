"""Indicators against a hand-checked set, and one by one."""

import json
from pathlib import Path

import pytest

from osint.indicators import find_indicators, refang_url

GOLD = Path(__file__).parent / "gold" / "indicators.jsonl"


def test_the_hand_checked_set():
    """F1 over exact place, type and value; docs/quality.md has the figure of the first, blind run."""
    hits = missed = false = 0
    for line in GOLD.read_text().splitlines():
        row = json.loads(line)
        want = {tuple(found) for found in row["found"]}
        have = {(i.start, i.end, i.type, i.value) for i in find_indicators(row["text"])}
        hits, missed, false = hits + len(want & have), missed + len(want - have), false + len(have - want)
    assert 2 * hits / (2 * hits + missed + false) >= 0.97
    assert hits + missed >= 300


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("hxxps[://]evil[.]example[.]com/a?b=1", "url", "https://evil.example.com/a?b=1"),
        ("name (at) host (dot) org", "email", "name@host.org"),
        ("+41 44 555 01 20", "phone", "+41445550120"),
        ("10[.]0[.]0[.]1", "ipv4", "10.0.0.1"),
        ("2001:0db8::0001", "ipv6", "2001:db8::1"),
        ("cve-2021-44228", "cve", "CVE-2021-44228"),
        ("CH93 0076 2011 6238 5295 7", "iban", "CH9300762011623852957"),
        (
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "btc",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        ),
        ("47°22'36\"N 8°32'30\"E", "coordinates", "47.37667,8.54167"),
    ],
)
def test_one_by_one(text, kind, value):
    shown = f"Seen: {text} today."
    [found] = find_indicators(shown)
    assert (found.type, found.value, shown[found.start : found.end]) == (kind, value, text)


@pytest.mark.parametrize(
    "text",
    [
        "CH93 0076 2011 6238 5295 8", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
    ],
)  # fmt: skip
def test_what_fails_its_checksum_is_nothing(text):
    assert find_indicators(text) == []


def test_a_national_number_is_read_where_the_country_is_known():
    assert find_indicators("Tel. 044 668 18 00") == []
    [found] = find_indicators("Tel. 044 668 18 00", "CH")
    assert (found.value, found.properties) == ("+41446681800", {"region": "CH"})


@pytest.mark.parametrize(
    "text", ["+" + "1" * 400, "1" * 100_000, "a." * 50_000, "@" * 50_000, "[.]" * 30_000, "h" * 100_000, "1:" * 50_000, "\x00@\x00.com"]
)
def test_hostile_texts_are_survived(text):
    find_indicators(text, "DE")


def test_a_path_is_refanged_but_not_changed():
    assert refang_url("hXXp://A[.]example/Path[.]html?Q=(x)") == "http://A.example/Path.html?Q=(x)"
