"""Dates in text: where they stand, what they say, and no more than they say.

Each form is a pattern with a function that reads it; a form that is no date (31 February) still takes its place,
so that nothing is read from its parts. What had to be assumed (the order of day and month, the year) is noted.
Months, weekdays and the words around them: English, German, French, Spanish, Italian, Portuguese, Dutch, Polish
and Russian.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any

MONTHS = {
    1: "january janvier januar jänner enero gennaio janeiro januari stycznia styczeń styczniu января январь январе jan",
    2: "february février februar febrero febbraio fevereiro februari lutego luty lutym февраля февраль феврале feb",
    3: "march mars märz marzo março maart marca marzec marcu марта март марте mar",
    4: "april avril abril aprile kwietnia kwiecień kwietniu апреля апрель апреле apr",
    5: "may mai mayo maggio maio mei maja maj maju мая май мае",
    6: "june juin juni junio giugno junho czerwca czerwiec czerwcu июня июнь июне jun",
    7: "july juillet juli julio luglio julho lipca lipiec lipcu июля июль июле jul",
    8: "august août agosto augustus sierpnia sierpień sierpniu августа август августе aug",
    9: "september septembre septiembre settembre setembro września wrzesień wrześniu сентября сентябрь сентябре sept sep",
    10: "october octobre oktober octubre ottobre outubro października październik październiku октября октябрь октябре oct okt",
    11: "november novembre noviembre novembro listopada listopad listopadzie ноября ноябрь ноябре nov",
    12: "december décembre dezember diciembre dicembre dezembro grudnia grudzień grudniu декабря декабрь декабре dec dez",
}
ABBREVIATIONS = {"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "sep", "oct", "okt", "nov", "dec", "dez"}
MONTH_OF = {name: number for number, names in MONTHS.items() for name in names.split()}
WEEKDAYS = (
    "monday montag lundi lunes lunedì понедельник", "tuesday dienstag mardi martes martedì вторник",
    "wednesday mittwoch mercredi miércoles mercoledì среду среда", "thursday donnerstag jeudi jueves giovedì четверг",
    "friday freitag vendredi viernes venerdì пятницу пятница", "saturday samstag samedi sábado sabato субботу суббота",
    "sunday sonntag dimanche domingo domenica воскресенье",
)  # fmt: skip
WEEKDAY_OF = {name: number for number, names in enumerate(WEEKDAYS) for name in names.split()}
SEASONS = {
    "spring": (3, 5), "frühling": (3, 5), "frühjahr": (3, 5), "printemps": (3, 5), "primavera": (3, 5), "весной": (3, 5), "весна": (3, 5),
    "summer": (6, 8), "sommer": (6, 8), "été": (6, 8), "verano": (6, 8), "estate": (6, 8), "летом": (6, 8), "лето": (6, 8),
    "autumn": (9, 11), "fall": (9, 11), "herbst": (9, 11), "automne": (9, 11), "otoño": (9, 11), "осенью": (9, 11), "осень": (9, 11),
    "winter": (12, 2), "hiver": (12, 2), "invierno": (12, 2), "зимой": (12, 2), "зима": (12, 2),
}  # fmt: skip
NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "ein": 1, "eine": 1, "einem": 1, "einer": 1, "zwei": 2, "drei": 3, "vier": 4, "fünf": 5, "sechs": 6,
    "un": 1, "une": 1, "deux": 2, "trois": 3, "quatre": 4, "cinq": 5, "una": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5,
    "два": 2, "две": 2, "три": 3, "четыре": 4, "пять": 5,
}  # fmt: skip
UNITS = {
    "day": "d", "days": "d", "tag": "d", "tagen": "d", "jour": "d", "jours": "d", "día": "d", "días": "d", "дня": "d", "дней": "d",
    "week": "w", "weeks": "w", "woche": "w", "wochen": "w", "semaine": "w", "semaines": "w", "semana": "w", "semanas": "w",
    "недели": "w", "недель": "w", "неделю": "w",
    "month": "m", "months": "m", "monat": "m", "monaten": "m", "mois": "m", "mes": "m", "meses": "m", "месяца": "m", "месяцев": "m",
    "year": "y", "years": "y", "jahr": "y", "jahren": "y", "an": "y", "ans": "y", "année": "y", "año": "y", "años": "y", "года": "y", "лет": "y",
}  # fmt: skip
DAY_WORDS = {
    "yesterday": -1, "today": 0, "tonight": 0, "tomorrow": 1, "gestern": -1, "heute": 0, "morgen": 1, "hier": -1, "aujourd'hui": 0,
    "aujourd’hui": 0, "demain": 1, "ayer": -1, "hoy": 0, "mañana": 1, "вчера": -1, "сегодня": 0, "завтра": 1,
}  # fmt: skip
# Words that are day words in their own language only, and something else in others.
DAY_WORDS_ONLY_IN = {"hier": "fr", "morgen": "de", "mañana": "es", "demain": "fr", "heute": "de"}
QUARTERS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}
PARTS = {
    "early": (1, 4), "beginning of": (1, 4), "start of": (1, 4), "anfang": (1, 4), "début": (1, 4), "principios de": (1, 4), "mid": (5, 8),
    "middle of": (5, 8), "mitte": (5, 8), "mi": (5, 8), "mediados de": (5, 8), "late": (9, 12), "end of": (9, 12), "ende": (9, 12),
    "fin": (9, 12), "finales de": (9, 12), "начале": (1, 4), "середине": (5, 8), "конце": (9, 12),
}  # fmt: skip
# What is counted, not dated: “in 1999 people died”, “the plant has 2000 workers”.
COUNTED = {
    "people", "men", "women", "children", "euro", "euros", "dollars", "usd", "eur", "chf", "gbp", "percent", "km", "kg", "mb", "gb", "kb", "ms",
    "metres", "meters", "miles", "tons", "tonnes", "times", "units", "copies", "members", "employees", "workers", "users", "words", "pages",
    "items", "shares", "votes", "jobs", "vessels", "ships", "volts", "watts", "calories", "teu", "personen", "menschen", "leute", "personnes",
    "personas", "человек", "hours", "minutes", "seconds", "days", "weeks", "years", "points", "steps", "rpm", "hz", "mah", "px", "kilometres",
}  # fmt: skip
LEADS_TO_A_YEAR = {
    "in", "since", "by", "until", "till", "of", "from", "during", "before", "after", "year", "around", "circa", "late", "early", "mid", "through",
    "the", "to", "and", "for", "seit", "bis", "ab", "von", "im", "jahr", "en", "de", "depuis", "desde", "в", "с", "до", "between", "summer", "winter",
}  # fmt: skip
MONTH_FIRST_DOMAINS = (".us", ".gov", ".mil", ".edu", ".ph")
# What a number after it names, which is no year: “Article 1995”.
NUMBERED = {
    "article", "room", "section", "page", "no", "nr", "number", "flight", "highway", "route", "model", "version", "chapter", "paragraph", "art",
    "form", "rfc", "iso", "din", "suite", "unit", "port", "error", "line", "ticket", "order", "invoice", "box", "bus", "zimmer", "seite",
}  # fmt: skip
YEAR_MIN, YEAR_MAX = 1500, 2199

DAY, WEEK, MONTH, QUARTER, SEASON, PART, YEAR, DECADE, TIME = "day", "week", "month", "quarter", "season", "part", "year", "decade", "time"


@dataclass(frozen=True)
class Found:
    """A date at `text[start:end]`: from `begins` to `ends`, both included, as exact as `precision` says.

    `begins` is None for a day or month whose year nothing tells; `key` then is --MM-DD (ISO 8601-1:2019 leaves
    out the year so).
    """

    start: int
    end: int
    begins: date | None
    ends: date | None
    precision: str
    rule: str  # absolute, partial, relative or range
    clock: str = ""
    note: str = ""
    yearless: tuple[int, int] | None = None  # month and day (0: none) without a year

    @property
    def key(self) -> str:
        """As ISO 8601 writes it, an interval with a slash."""
        if self.begins is None or self.ends is None:
            month, day = self.yearless or (0, 0)
            return f"--{month:02d}" + (f"-{day:02d}" if day else "")
        exact = {DAY: "%Y-%m-%d", TIME: f"%Y-%m-%dT{self.clock}", MONTH: "%Y-%m", YEAR: "%Y"}.get(self.precision, "%Y-%m-%d")
        first, last = iso(self.begins, exact), iso(self.ends, exact)
        return first if first == last else f"{first}/{last}"


def iso(day: date, form: str) -> str:
    return day.strftime(form.replace("%Y", f"{day.year:04d}"))


@dataclass(frozen=True)
class Context:
    """What helps to read a date: the day of the document, its language, the host that published it."""

    reference: date | None = None
    language: str = "en"
    host: str = ""
    month_first: bool | None = None  # None: nothing in the text tells


Reader = Callable[[re.Match, Context], Found | None]


def find_dates(text: str, *, reference: date | None = None, language: str = "en", host: str = "") -> list[Found]:
    """The dates of a text in their order; where two forms overlap the longer one counts."""
    context = Context(reference, language or "en", host.lower(), order_in(text))
    matches: list[tuple[int, int, int, re.Match, Reader]] = []
    places = list(windows(text))
    for priority, (pattern, reader) in enumerate(forms()):
        for first, last in places:
            matches += [(m.start(), -m.end(), priority, m, reader) for m in pattern.finditer(text, first, last)]
    matches.sort(key=lambda m: m[:3])
    found: list[Found] = []
    taken = 0
    for start, minus_end, _, match, reader in matches:
        if start < taken:
            continue
        try:
            read = reader(match, context)
        except KeyError:  # a letter that only looks the same without its case: Auguſt, aprıl
            continue
        if read is NOT_HERE:
            continue
        taken = -minus_end
        if read is not None:
            found.append(read)
    return found


WINDOW = 100  # characters around a sign of a date that are searched for its form; no form is longer


def windows(text: str) -> Iterator[tuple[int, int]]:
    """The pieces of a text in which a date may stand: around a digit, or a word that every form without digits has."""
    first = last = -1
    for match in signs().finditer(text):
        if match.start() - WINDOW > last:
            if last >= 0:
                yield first, last
            first = max(0, match.start() - WINDOW)
        last = match.end() + WINDOW
    if last >= 0:
        yield first, min(last, len(text))


@cache
def signs() -> re.Pattern:
    months = [name for name in MONTH_OF if name not in ABBREVIATIONS]
    return re.compile(rf"\d+|\b(?:{one_of([*DAY_WORDS, *WEEKDAY_OF, *months, *UNITS])})\b", re.IGNORECASE)


# -- what a match says ------------------------------------------------------------------------------------

# A reader answers this when its words mean something else, so that another form may read them.
NOT_HERE = Found(-1, -1, None, None, "", "")


def made(match: re.Match, begins: date, ends: date, precision: str, rule: str = "absolute", **more: Any) -> Found:
    return Found(match.start(), match.end(), begins, ends, precision, rule, **more)


def real(year: int, month: int, day: int) -> date | None:
    """None for what is no day of the calendar."""
    if not YEAR_MIN <= year <= YEAR_MAX or not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    return date(year, month, day)


def month_span(year: int, month: int) -> tuple[date, date]:
    return date(year, month, 1), date(year, month, monthrange(year, month)[1])


def months_span(first_year: int, first: int, last_year: int, last: int) -> tuple[date, date]:
    return month_span(first_year, first)[0], month_span(last_year, last)[1]


def month_number(word: str) -> int:
    return MONTH_OF[word.lower().rstrip(".")]


def full_year(digits: str) -> int:
    """Two digits are of this century up to 68 (POSIX strptime)."""
    year = int(digits)
    return year if len(digits) == 4 else year + (2000 if year <= 68 else 1900)


def nearest_year(month: int, day: int, reference: date) -> date | None:
    """The day whose year is closest to the reference; None for 29 February without a leap year near."""
    days = [d for d in (real(reference.year + n, month, day) for n in (-1, 0, 1)) if d is not None]
    return min(days, key=lambda d: abs((d - reference).days)) if days else None


def read_iso(match: re.Match, context: Context) -> Found | None:
    year, month, day, clock = match["y"], match["m"], match["d"], match["clock"]
    found = real(int(year), int(month), int(day))
    if found is None:
        return None
    if clock:
        return made(match, found, found, TIME, clock=clock[:5], note="in UTC" if match["zone"] in ("Z", "z") else "")
    return made(match, found, found, DAY)


def read_day(match: re.Match, context: Context) -> Found | None:
    """3 June 2023, June 3rd, 3. Juni: with or without a year."""
    month, day = month_number(match["month"]), int(match["day"])
    if match["year"]:
        found = real(int(match["year"]), month, day)
        return made(match, found, found, DAY) if found else None
    if not 1 <= day <= 31 or real(2024, month, day) is None:
        return None
    if context.language == "en" and match["month"].rstrip(".") in ("may", "march", "mars", "mar", "mai", "jan", "dec"):
        return NOT_HERE  # a verb, or no month: English writes those with a capital
    if context.reference is None:
        return Found(match.start(), match.end(), None, None, DAY, "partial", yearless=(month, day), note="its year is not known")
    found = nearest_year(month, day, context.reference)
    return made(match, found, found, DAY, "partial", note="year taken from the document's date") if found else None


def read_numeric(match: re.Match, context: Context) -> Found | None:
    """03/06/2023: the order is decided by the figures, the rest of the text, the host or the language."""
    first, second, year = int(match["a"]), int(match["b"]), full_year(match["year"])
    if match["sep"] == ".":
        month_first, why = False, ""
    elif first > 12 or second > 12:
        month_first, why = second > 12, ""
    else:
        month_first, why = order(context)
    month, day = (first, second) if month_first else (second, first)
    found = real(year, month, day)
    if found is None:
        return None
    note = f"read as {'month/day' if month_first else 'day/month'}, by {why}" if why else ""
    return made(match, found, found, DAY, note=note)


def order(context: Context) -> tuple[bool, str]:
    if context.month_first is not None:
        return context.month_first, "other dates of the text"
    if context.host.endswith(MONTH_FIRST_DOMAINS):
        return True, f"the host {context.host}"
    return False, "the host" if re.search(r"\.[a-z]{2}$", context.host) else f"the language ({context.language})"


def order_in(text: str) -> bool | None:
    """Whether the dates of a text that can only be read in one order put the month first."""
    votes = [
        int(b) > 12 for a, b in re.findall(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(?:19|20)\d\d(?!\d)", text) if (int(a) > 12) != (int(b) > 12)
    ]
    return None if not votes or len(set(votes)) > 1 else votes[0]


def read_month(match: re.Match, context: Context) -> Found | None:
    return made(match, *month_span(int(match["year"]), month_number(match["month"])), MONTH)


def read_bare_month(match: re.Match, context: Context) -> Found | None:
    """“in March”: of the year that ends with the document's date."""
    month = month_number(match["month"])
    if match["month"][0].islower() and context.language in ("en", "de"):
        return NOT_HERE
    if context.reference is None:
        return Found(match.start("month"), match.end(), None, None, MONTH, "partial", yearless=(month, 0), note="its year is not known")
    year = context.reference.year - (month > context.reference.month)
    begins, ends = month_span(year, month)
    return Found(match.start("month"), match.end(), begins, ends, MONTH, "partial", note="the last one before the document's date")


def read_season(match: re.Match, context: Context) -> Found | None:
    first, last = SEASONS[match["season"].lower()]
    year = int(match["year"])
    return made(match, *months_span(year, first, year + (first > last), last), SEASON, note="of the northern hemisphere")


def read_quarter(match: re.Match, context: Context) -> Found | None:
    groups = match.groupdict()
    quarter = int(groups["n"]) if groups.get("n") else QUARTERS[groups["word"].lower()]
    year = full_year(groups["year"])
    return made(match, *months_span(year, 3 * quarter - 2, year, 3 * quarter), QUARTER)


def read_part(match: re.Match, context: Context) -> Found | None:
    """early 2019, mid-2019, end of 2019: a third of the year, which is as much as the word says."""
    first, last = PARTS[re.sub(r"[\s-]+", " ", match["part"].lower()).strip()]
    year = int(match["year"])
    return made(match, *months_span(year, first, year, last), PART, "partial", note="a third of the year")


def read_decade(match: re.Match, context: Context) -> Found | None:
    year = int(match["decade"])
    return made(match, date(year, 1, 1), date(year + 9, 12, 31), DECADE)


def read_year(match: re.Match, context: Context) -> Found | None:
    """A bare year, unless it counts something."""
    text = match.string
    before = re.search(r"([^\W\d_]+)\W*$", text[max(0, match.start() - 20) : match.start()])
    after = re.match(r"\s+([^\W\d_]+)", text[match.end() : match.end() + 25])
    if before and before[1].lower() in NUMBERED:
        return None
    if after:
        word = after[1].lower()
        leads = before is not None and before[1].lower() in LEADS_TO_A_YEAR
        plural = word.endswith("s") and not word.endswith(("ss", "us", "is", "as")) and len(word) > 3
        if word in COUNTED or (plural and not leads):
            return None
    year = int(match["year"])
    return made(match, date(year, 1, 1), date(year, 12, 31), YEAR)


# -- ranges -------------------------------------------------------------------------------------------------


def ranged(match: re.Match, begins: date | None, ends: date | None, precision: str) -> Found | None:
    groups = match.groupdict()
    if groups.get("and") and not groups.get("between"):
        return NOT_HERE  # two dates, not one that lasts
    if begins is None or ends is None or begins > ends:
        return None
    return made(match, begins, ends, precision, "range")


def read_days(match: re.Match, context: Context) -> Found | None:
    """3–5 June 2023, June 3–5, 2023, 30 May – 2 June 2023."""
    groups = match.groupdict()
    last_month = month_number(groups["month"])
    first_month = month_number(groups["month0"]) if groups.get("month0") else last_month
    if groups["year"]:
        year = int(groups["year"])
    elif context.reference is not None:
        near = nearest_year(last_month, int(groups["day"]), context.reference)
        if near is None:
            return None
        year = near.year
    else:
        return None
    first_year = int(groups["year0"]) if groups.get("year0") else year - (first_month > last_month)
    return ranged(match, real(first_year, first_month, int(groups["day0"])), real(year, last_month, int(groups["day"])), DAY)


def read_months(match: re.Match, context: Context) -> Found | None:
    """from May to July 2021, November 2020 – March 2021."""
    year = int(match["year"])
    first, last = month_number(match["month0"]), month_number(match["month"])
    first_year = int(match["year0"]) if match["year0"] else year - (first > last)
    return ranged(match, *months_span(first_year, first, year, last), MONTH)


def read_years(match: re.Match, context: Context) -> Found | None:
    first = int(match["year0"])
    last = int(match["year"]) if len(match["year"]) == 4 else first // 100 * 100 + int(match["year"])
    if last <= first:
        return NOT_HERE
    return ranged(match, date(first, 1, 1), date(last, 12, 31), YEAR)


# -- relative to the document's date ---------------------------------------------------------------------------


def relative(match: re.Match, begins: date, ends: date, precision: str) -> Found:
    return made(match, begins, ends, precision, "relative", note="counted from the document's date")


def read_day_word(match: re.Match, context: Context) -> Found | None:
    word = match["word"].lower()
    only = DAY_WORDS_ONLY_IN.get(word)
    if context.reference is None or (only and only != context.language):
        return NOT_HERE
    day = context.reference + timedelta(days=DAY_WORDS[word])
    return relative(match, day, day, DAY)


def read_weekday(match: re.Match, context: Context) -> Found | None:
    """last Tuesday, next Friday, on Monday: the past one, unless the words say otherwise."""
    reference = context.reference
    if reference is None:
        return NOT_HERE
    weekday, which = WEEKDAY_OF[match["weekday"].lower()], (match["which"] or "").lower()
    back = (reference.weekday() - weekday) % 7
    if which in NEXT:
        day = reference + timedelta(days=7 - back)
    elif which in LAST:
        day = reference - timedelta(days=back or 7)
    elif which in THIS:
        day = reference + timedelta(days=weekday - reference.weekday())
    elif re.search(r"\b(will|wird|werden|shall|to be held)\b[^.!?]*$", match.string[max(0, match.start() - 120) : match.start()]):
        day = reference + timedelta(days=(7 - back) % 7)
    else:
        day = reference - timedelta(days=back)
    return relative(match, day, day, DAY)


LAST = {"last", "past", "letzten", "vergangenen", "vorigen", "dernier", "pasado", "прошлый", "прошлую", "прошлое", "passé", "scorso"}
NEXT = {"next", "coming", "nächsten", "kommenden", "prochain", "próximo", "следующий", "следующую"}
THIS = {"this", "diesen", "ce", "este"}


def read_ago(match: re.Match, context: Context) -> Found | None:
    """two weeks ago, vor drei Tagen: as exact as its unit."""
    reference = context.reference
    if reference is None:
        return NOT_HERE
    word = match["n"].lower()
    count, unit = int(word) if word.isdigit() else NUMBERS[word], UNITS[match["unit"].lower()]
    if unit == "d":
        day = reference - timedelta(days=count)
        return relative(match, day, day, DAY) if count < 40_000 else None
    if unit == "w":
        day = reference - timedelta(weeks=count)
        return relative(match, day - timedelta(days=day.weekday()), day + timedelta(days=6 - day.weekday()), WEEK) if count < 6000 else None
    if unit == "m":
        months = reference.year * 12 + reference.month - 1 - count
        return relative(match, *month_span(months // 12, months % 12 + 1), MONTH) if months > YEAR_MIN * 12 else None
    year = reference.year - count
    return relative(match, date(year, 1, 1), date(year, 12, 31), YEAR) if year > YEAR_MIN else None


def read_span(match: re.Match, context: Context) -> Found | None:
    """last month, this year, next week, earlier this month."""
    reference = context.reference
    if reference is None:
        return NOT_HERE
    step = {"last": -1, "next": 1}.get(match["which"].lower(), 0)
    unit = match["unit"].lower()
    if unit == "week":
        monday = reference - timedelta(days=reference.weekday()) + timedelta(weeks=step)
        begins, ends, precision = monday, monday + timedelta(days=6), WEEK
    elif unit == "month":
        months = reference.year * 12 + reference.month - 1 + step
        begins, ends = month_span(months // 12, months % 12 + 1)
        precision = MONTH
    else:
        begins, ends, precision = date(reference.year + step, 1, 1), date(reference.year + step, 12, 31), YEAR
    if match["part"] and match["part"].lower() == "earlier" and not step:
        ends = min(ends, reference)
    elif match["part"] and match["part"].lower() == "later" and not step:
        begins = max(begins, reference)
    return relative(match, begins, ends, precision)


# -- the forms ----------------------------------------------------------------------------------------------------


def one_of(words: Iterator[str] | dict | set | list) -> str:
    return "|".join(re.escape(word) for word in sorted(set(words), key=lambda w: (-len(w), w)))


@cache
def forms() -> list[tuple[re.Pattern, Reader]]:
    """The patterns with their readers; those that say more come first among equally long ones."""
    m = rf"(?:{one_of(MONTH_OF.keys() - ABBREVIATIONS)}|(?:{one_of(ABBREVIATIONS)})\.?)"
    y, d, dash = r"(?:1[5-9]|20|21)\d\d", r"\d{1,2}", r"\s?[-–—‑]\s?"
    nth, of = r"(?:st|nd|rd|th|er|ème|º|ª|\.)?", r"(?:\s+(?:of|de|del|di)\s+|\s+)"
    not_before, not_after = r"(?<![\w.,/:#$€£+-])", r"(?![\w/])(?![.,]\d)(?!-\d)"
    to = rf"(?:{dash}|\s+(?:to|until|till|through|bis|a|au|à|al|hasta|по|до)\s+|(?P<and>\s+(?:and|und|y|et|e|и)\s+))"
    lead = r"(?:(?:from|(?P<between>between|zwischen|entre|между)|von|vom|de|du|с|desde|dal)\s+(?:the\s+)?)?"
    year_after = rf"(?:(?:,\s*|\s+(?:of|de|del)\s+|\s+)(?P<year>{y}))"
    part = one_of([*PARTS])
    season, quarter = one_of(SEASONS), one_of(QUARTERS)
    weekday = one_of(WEEKDAY_OF)
    number, unit = rf"\d{{1,4}}|{one_of(NUMBERS)}", one_of(UNITS)

    def form(pattern: str, reader: Reader) -> tuple[re.Pattern, Reader]:
        return re.compile(pattern, re.IGNORECASE), reader

    return [
        form(rf"{not_before}{lead}(?P<day0>{d}){nth}(?:{of}(?P<month0>{m})(?:,?\s+(?P<year0>{y}))?)?{to}(?:the\s+)?(?P<day>{d}){nth}{of}(?P<month>{m}){year_after}?{not_after}", read_days),
        form(rf"{not_before}{lead}(?P<month0>{m})\s+(?P<day0>{d}){nth}(?:,\s*(?P<year0>{y}))?{to}(?P<month>{m})\s+(?P<day>{d}){nth}(?:,?\s+(?P<year>{y}))?{not_after}", read_days),
        form(rf"{not_before}(?P<month>{m})\s+(?P<day0>{d}){nth}{dash}(?P<day>{d}){nth}(?:,?\s+(?P<year>{y}))?{not_after}", read_days),
        form(rf"{not_before}{lead}(?P<month0>{m})(?:\s+(?:de\s+)?(?P<year0>{y}))?{to}(?P<month>{m})(?:\s+|\s+de\s+|\s+of\s+)(?P<year>{y}){not_after}", read_months),
        form(rf"{not_before}{lead}(?P<year0>{y}){to}(?P<year>{y}|(?<=[-–—])\d\d){not_after}", read_years),
        form(rf"(?<![\w.-])(?P<y>{y})(?P<s>[-/])(?P<m>\d\d)(?P=s)(?P<d>\d\d)(?:[T ](?P<clock>[0-2]\d:[0-5]\d(?::[0-5]\d(?:\.\d+)?)?)(?P<zone>\s?(?:Z|[+-]\d\d:?\d\d))?)?(?![\w-])", read_iso),
        form(rf"{not_before}(?P<day>{d}){nth}{of}(?P<month>{m}){year_after}?(?:\s*(?:года|г\.|r\.))?{not_after}", read_day),
        form(rf"{not_before}(?P<month>{m})\s+(?:the\s+)?(?P<day>{d})(?:st|nd|rd|th)?(?:(?:,\s*|\s+)(?P<year>{y}))?(?!\d)(?![.,:]\d)(?!\s?(?:%|percent|per cent|million|people|euro))(?![\w/])", read_day),
        form(r"(?<![\w./,+-])(?P<a>\d{1,2})(?P<sep>[/.])(?P<b>\d{1,2})(?P=sep)(?P<year>(?:19|20)\d\d)(?![\d/])(?!\.\d)", read_numeric),
        form(r"(?<![\w./,+-])(?P<a>\d{1,2})(?P<sep>/)(?P<b>\d{1,2})/(?P<year>\d\d)(?![\d/])(?!\.\d)", read_numeric),
        form(r"(?<![\w./,+-])(?P<a>\d{2})(?P<sep>-)(?P<b>\d{2})-(?P<year>(?:19|20)\d\d)(?![\w-])", read_numeric),
        form(rf"{not_before}(?P<month>{m})(?:,?\s+|\s+(?:de|of|del)\s+)(?P<year>{y})(?:\s*(?:года|г\.))?{not_after}", read_month),
        form(rf"{not_before}(?:the\s+)?(?P<season>{season})(?:\s+(?:of|de|del|des\s+Jahres)\s+|\s+)(?P<year>{y})(?:[/-]\d\d(?:\d\d)?)?(?:\s+года)?{not_after}", read_season),
        form(rf"{not_before}Q(?P<n>[1-4])(?:\s+|/|\s+of\s+|-)(?P<year>{y}){not_after}", read_quarter),
        form(rf"{not_before}(?P<n>[1-4])Q\s?(?P<year>{y}|\d\d){not_after}", read_quarter),
        form(rf"{not_before}(?P<year>{y})[\s-]?Q(?P<n>[1-4]){not_after}", read_quarter),
        form(rf"{not_before}(?:the\s+)?(?P<word>{quarter})\s+quarter\s+(?:of\s+)?(?P<year>{y}){not_after}", read_quarter),
        form(rf"{not_before}(?:the\s+)?(?P<part>{part})[\s-]+(?P<year>{y})(?:\s+года)?{not_after}", read_part),
        form(r"(?<![\w.,/:#$€£+-])(?:(?:the|années|años|die|den)\s+)?(?P<decade>(?:1[5-9]|20)\d0)(?:['’]?s|er(?:\s+Jahren?)?|-х)\b", read_decade),
        form(r"(?<![\w.,/:#$€£+-])(?:années|años)\s+(?P<decade>(?:1[5-9]|20)\d0)\b", read_decade),
        form(rf"\b(?P<n>{number})\s+(?P<unit>{unit})\s+(?:ago|назад)\b", read_ago),
        form(rf"\b(?:vor|il y a|hace)\s+(?P<n>{number})\s+(?P<unit>{unit})\b", read_ago),
        form(rf"\b(?:on\s+)?(?:(?P<which>{one_of(LAST | NEXT | THIS)})\s+)(?P<weekday>{weekday})\b", read_weekday),
        form(rf"\b(?P<weekday>{weekday})\s+(?P<which>dernier|prochain|pasado|próximo|scorso)\b", read_weekday),
        form(rf"\b(?:on|am|le|el|в|во)\s+(?P<weekday>{weekday})(?P<which>)\b(?!\s*,?\s*(?:the\s+)?\d)(?!\s*,?\s*(?:{m})\s)", read_weekday),
        form(rf"\b(?P<word>{one_of(DAY_WORDS)})\b", read_day_word),
        form(r"\b(?:(?P<part>earlier|later)\s+)?(?P<which>last|this|next)\s+(?P<unit>week|month|year)\b", read_span),
        form(rf"\b(?:in|since|until|till|during|by|of|im|seit|en|desde|depuis|в)\s+(?:(?:early|mid|late)[\s-])?(?P<month>{one_of(k for k in MONTH_OF if len(k) > 3 or k in ('may', 'mai', 'mei', 'maj', 'мая', 'май'))})\b(?![\s,]+\d)(?!\s+(?:{y}))", read_bare_month),
        form(r"(?<![\w.,/:#$€£+-])(?<!\d\s)(?P<year>(?:19|20)\d\d)(?![\w/%])(?![.,:]\d)(?!-\d)(?!\s\d)", read_year),
    ]  # fmt: skip
