"""What people type into a search box, as queries of the full-text indexes of SQLite (FTS5) and PostgreSQL (tsquery)."""

import re

WORDS_MAX = 20
# PostgreSQL keeps an address, a host or a decimal as one word, which no query of its parts would meet: these become spaces
MARKS = ".,:;/\\@-_+=?&#%~|()[]{}<>\"'`!*$^"


def terms_of(text: str) -> list[list[str]]:
    """Each term is a list of words that stand together: one for a word, more for a quoted phrase."""
    terms = [re.findall(r"[^\W_]+", phrase or word) for phrase, word in re.findall(r'"([^"]*)"|(\S+)', text.replace("\x00", ""))]
    return [term for term in terms if term][:WORDS_MAX]


def words_sql(expression: str) -> str:
    """SQL for the text of `expression` with spaces for MARKS; immutable, so that a generated column can have it."""
    quoted = MARKS.replace("\\", "\\\\").replace("'", "''")
    return f"translate({expression}, E'{quoted}', '{' ' * len(MARKS)}')"


def as_fts5(terms: list[list[str]], *, beginning: bool = True) -> str:
    """All terms; with `beginning` the last word may be the beginning of one."""
    quoted = ['"' + " ".join(term) + '"' for term in terms]
    return " AND ".join(quoted) + (" *" if beginning and len(terms[-1]) == 1 else "")


def as_tsquery(terms: list[list[str]], weight: str = "", *, beginning: bool = True) -> str:
    """As `as_fts5`, for the configuration “simple”; with `weight` only in words of that weight, such as D."""
    label = f":{weight}" if weight else ""
    parts = [" <-> ".join(f"'{word}'{label}" for word in term) for term in terms]
    if beginning and len(terms[-1]) == 1:
        parts[-1] = f"'{terms[-1][0]}':*{weight}"
    return " & ".join(f"({part})" for part in parts)
