"""Jobs that wait for each other, as a small drawing: columns from left to right, each job right of all that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jobs.models import Job, JobDependency

WIDTH, HEIGHT = 168, 44  # of a job
ACROSS, DOWN = 210, 58  # from one to the next
JOBS_MAX = 60  # more are a list, not a drawing


@dataclass(frozen=True)
class Node:
    job: Job
    x: int
    y: int


@dataclass(frozen=True)
class Graph:
    """`lines` are the points of each arrow. Sizes are in the units of an SVG."""

    nodes: list[Node]
    lines: list[str]
    width: int
    height: int


def graph_of(jobs: Sequence[Job]) -> Graph | None:
    """None where none of these waits for another, or where they are too many. One query."""
    known: dict[UUID, Job] = {job.pk: job for job in jobs}
    if len(known) > JOBS_MAX:
        return None
    edges = list(JobDependency.objects.filter(job__in=known, needs__in=known).order_by("pk").values_list("needs_id", "job_id"))
    if not edges:
        return None
    columns = columns_of(list(known), edges)
    places: dict[Any, Node] = {}
    filled: dict[int, int] = {}
    for pk, job in known.items():
        column = columns[pk]
        row = filled.get(column, 0)
        filled[column] = row + 1
        places[pk] = Node(job, column * ACROSS + 1, row * DOWN + 1)
    lines = [arrow(places[needs], places[job]) for needs, job in edges]
    return Graph(list(places.values()), lines, max(filled) * ACROSS + WIDTH + 2, (max(filled.values()) - 1) * DOWN + HEIGHT + 2)


def columns_of(ids: list[Any], edges: list[tuple[Any, Any]]) -> dict[Any, int]:
    """One more than the furthest of those it needs. There are no circles: a job can only need older ones."""
    needs: dict[Any, list[Any]] = {pk: [] for pk in ids}
    for before, after in edges:
        needs[after].append(before)
    found: dict[Any, int] = {}
    for _ in ids:
        for pk in ids:
            found[pk] = max((found.get(before, 0) + 1 for before in needs[pk]), default=0)
    return found


def arrow(start: Node, end: Node) -> str:
    x, y, to_x, to_y = start.x + WIDTH, start.y + HEIGHT // 2, end.x, end.y + HEIGHT // 2
    middle = to_x - (ACROSS - WIDTH) // 2
    return f"{x},{y} {middle},{y} {middle},{to_y} {to_x},{to_y}"
