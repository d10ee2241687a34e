"""Pages that begin after a row instead of counting rows from the start: as quick at the end as at the beginning, and no row is
shown twice because new ones came in front."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

COUNTED = 2_000  # rows that are counted; of more it is only said that there are more


@dataclass(frozen=True)
class KeysetPage:
    """`newer` and `older` are the ids to go on from, None at that end."""

    rows: list[Any]
    older: Any = None
    newer: Any = None


def keyset_page(rows: QuerySet, sort: str, size: int, *, among: QuerySet, after: str = "", before: str = "") -> KeysetPage:
    """`rows` ordered by one column ("-created_at") and then by id; those after the row with the id `after`, or before `before`.

    That row is looked for `among` what the viewer may see, for it may not match the filters any more. An id that is none, or of a
    row that is gone or has no place in this order any more, begins at the start.
    """
    field, down = sort.lstrip("-"), sort.startswith("-")
    start = find(among, after or before)
    if start is not None and getattr(start, field) is None:
        start = None
    backwards = bool(before) and start is not None
    forward = down if not backwards else not down
    if start is not None:
        value, which = getattr(start, field), "lt" if forward else "gt"
        # the first condition says the same again, in the form that an index can follow
        rows = rows.filter(Q(**{f"{field}__{which}e": value}), Q(**{f"{field}__{which}": value}) | Q(**{f"pk__{which}": start.pk}))
    sign = "-" if forward else ""
    order = (f"{sign}{field}", f"{sign}pk")
    # the keys first: sorting whole rows takes twice as long where only a part of the table is seen
    keys = list(rows.order_by(*order).values_list("pk", flat=True)[: size + 1])
    found = list(rows.filter(pk__in=keys).order_by(*order))
    more, found = len(found) > size, found[:size]
    if backwards:
        found.reverse()
    if not found:
        return KeysetPage([])
    has_older, has_newer = (True, more) if backwards else (more, start is not None)
    return KeysetPage(found, found[-1].pk if has_older else None, found[0].pk if has_newer else None)


def find(rows: QuerySet, row_id: str) -> Any:
    try:
        return rows.filter(pk=uuid.UUID(row_id)).first()
    except ValueError:
        return None


def counted(rows: QuerySet) -> int:
    """How many there are, up to one more than COUNTED."""
    return rows.order_by().values("pk")[: COUNTED + 1].count()
