"""Whose turn it is at a host, shared by all jobs on all machines through the database."""

import time

from django.db import transaction

from osint.models import HostTurn

FURTHEST_S = 86_400.0  # a turn further away comes from a clock that was wrong


def reserve(origin: tuple[str, str, int], delay_s: float) -> float:
    """Take the next turn at a host; returns the seconds to wait for it.

    The row lock puts those who ask at once in order. A host that was not asked for `delay_s` is free now.
    """
    scheme, host, port = origin
    name = f"{scheme}://{host}:{port}"[:300]
    with transaction.atomic():
        HostTurn.objects.get_or_create(origin=name, defaults={"next_at": 0.0})
        turn = HostTurn.objects.select_for_update().get(origin=name)
        now = time.time()
        mine = turn.next_at if now <= turn.next_at <= now + FURTHEST_S else now
        HostTurn.objects.filter(origin=name).update(next_at=mine + delay_s)
    return mine - now
