"""Every form of a date that the timeline must read, and what must not be taken for one."""

import time
from datetime import date

import pytest

from osint.dates import find_dates

REFERENCE = date(2024, 5, 15)  # a Wednesday


def read(text, language="en", reference=REFERENCE, host=""):
    return [(text[f.start : f.end], f.key, f.precision) for f in find_dates(text, reference=reference, language=language, host=host)]


@pytest.mark.parametrize(
    ("written", "key", "precision", "language"),
    [
        ("3 June 2023", "2023-06-03", "day", "en"),
        ("June 3, 2023", "2023-06-03", "day", "en"),
        ("June 3rd", "2024-06-03", "day", "en"),
        ("03/06/2023", "2023-06-03", "day", "en"),
        ("2023-06-03", "2023-06-03", "day", "en"),
        ("2023-06-03T14:05Z", "2023-06-03T14:05", "time", "en"),
        ("June 2023", "2023-06", "month", "en"),
        ("summer 2023", "2023-06-01/2023-08-31", "season", "en"),
        ("Q2 2023", "2023-04-01/2023-06-30", "quarter", "en"),
        ("2023", "2023", "year", "en"),
        ("the 1990s", "1990-01-01/1999-12-31", "decade", "en"),
        ("mid-2019", "2019-05-01/2019-08-31", "part", "en"),
        ("3–5 June 2023", "2023-06-03/2023-06-05", "day", "en"),
        ("from May to July 2021", "2021-05/2021-07", "month", "en"),
        ("last Tuesday", "2024-05-14", "day", "en"),
        ("yesterday", "2024-05-14", "day", "en"),
        ("two weeks ago", "2024-04-29/2024-05-05", "week", "en"),
        ("earlier this month", "2024-05", "month", "en"),
        ("on Monday", "2024-05-13", "day", "en"),
        ("14 mars 2024", "2024-03-14", "day", "fr"),
        ("3. Juni 2023", "2023-06-03", "day", "de"),
        ("3 de junio de 2023", "2023-06-03", "day", "es"),
        ("3 июня 2023", "2023-06-03", "day", "ru"),
        ("30 May – 2 June 2023", "2023-05-30/2023-06-02", "day", "en"),
        ("between 2019 and 2021", "2019/2021", "year", "en"),
        ("next Friday", "2024-05-17", "day", "en"),
        ("mardi dernier", "2024-05-14", "day", "fr"),
        ("vor zwei Wochen", "2024-04-29/2024-05-05", "week", "de"),
        ("в июне 2023", "2023-06", "month", "ru"),
    ],
)
def test_forms(written, key, precision, language):
    for text in (written, f"It happened {written}, they say.", f"({written})"):
        [(_, found, exact)] = read(text, language)
        assert (found, exact) == (key, precision), text


@pytest.mark.parametrize(
    "text",
    [
        "version 2023.1.4", "v2.3.2019", "1,999 people", "about 2000 workers", "+41 44 2023 1999", "call 555-2019", "you may go", "It may 3 times fail",
        "they march on 5 fronts", "March on!", "31 February", "31 February 2023", "30/02/2023", "2023-13-45", "Article 1995", "€2019", "12.345", "20231-05",
    ],
)  # fmt: skip
def test_what_is_no_date(text):
    assert read(text) == []


def test_the_order_of_day_and_month_is_decided_and_said():
    [by_host] = find_dates("03/06/2023", reference=REFERENCE, host="www.sec.gov")
    assert (by_host.key, by_host.note) == ("2023-03-06", "read as month/day, by the host www.sec.gov")
    _, by_text = find_dates("12/25/2020 and 03/04/2021", reference=REFERENCE)
    assert (by_text.key, by_text.note) == ("2021-03-04", "read as month/day, by other dates of the text")
    [by_language] = find_dates("03.06.2023", reference=REFERENCE, language="de")
    assert by_language.key == "2023-06-03"


def test_without_the_documents_day_nothing_is_invented():
    assert find_dates("yesterday, on Monday, two weeks ago, last year") == []
    [found] = find_dates("June 3rd")
    assert (found.begins, found.key) == (None, "--06-03")


def test_two_dates_are_no_range():
    assert [key for _, key, _ in read("on 3 May 2020 and 2 June 2020")] == ["2020-05-03", "2020-06-02"]


@pytest.mark.parametrize("text", ["1" * 400_000, "May " * 100_000, "3 " * 200_000, "from " * 100_000, "\x00" * 1000, "‏15 مايو 2023" * 1000])
def test_hostile_texts_take_bounded_time(text):
    began = time.process_time()
    find_dates(text, reference=REFERENCE)
    assert time.process_time() - began < 60  # quadratic patterns would take hours
