"""Figures for Prometheus: the state of the queue, the workers and the machine, as they are when they are asked for."""

from collections.abc import Iterator
from typing import Any

from django.db.models import Count
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from jobs.models import Job
from jobs.resources import ResourceManager


class SeesAllJobs(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user and request.user.has_perm("jobs.view_all_jobs"))


class Figures:
    """A collector in the sense of prometheus_client."""

    def collect(self) -> Iterator[Metric]:
        stats = ResourceManager().get_queue_statistics()
        for name, help_text, value in (
            ("running", "Jobs that run.", stats["running"]),
            ("running_max", "Jobs that may run at once on a machine.", stats["running_max"]),
            ("stalled", "Running jobs that make no progress.", stats["stalled"]),
            ("held", "Waiting jobs that may not start, each with a reason.", stats["held"]),
            ("retrying", "Jobs that wait for the time of their next try.", stats["retrying"]),
        ):
            yield GaugeMetricFamily(f"fieldwork_jobs_{name}", help_text, value=value)
        waiting = GaugeMetricFamily("fieldwork_jobs_waiting", "Jobs that are due and wait for a worker.", labels=["priority"])
        oldest = GaugeMetricFamily("fieldwork_jobs_oldest_waiting_seconds", "How long the first of them waits.", labels=["priority"])
        for row in stats["by_priority"]:
            waiting.add_metric([row["priority"].lower()], row["count"])
            oldest.add_metric([row["priority"].lower()], row["oldest_waiting_s"] or 0)
        yield waiting
        yield oldest
        ended = GaugeMetricFamily("fieldwork_jobs_ended_24h", "Jobs that ended in the last 24 hours.", labels=["status"])
        for status, count in stats["ended_24h"].items():
            ended.add_metric([status.lower()], count)
        yield ended
        types = GaugeMetricFamily("fieldwork_jobs_running_by_type", "Jobs that run, by type.", labels=["type"])
        for job_type, count in Job.objects.running().order_by().values_list("job_type").annotate(Count("pk")):
            types.add_metric([job_type], count)
        yield types
        yield GaugeMetricFamily("fieldwork_workers", "Live workers.", value=stats["workers"])
        machine = stats["machine"]
        yield GaugeMetricFamily("fieldwork_machine_cpu_percent", "CPU of the web's machine, of all cores.", value=machine["cpu_percent"])
        yield GaugeMetricFamily(
            "fieldwork_machine_memory_used_bytes", "Memory of the web's machine that is taken.", value=machine["memory_used_gb"] * 1024**3
        )


class AnyFormat(BaseContentNegotiation):
    """There is one format, whatever the scraper says that it takes."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class MetricsView(APIView):
    """For people, and tokens of people, who may see all jobs."""

    content_negotiation_class = AnyFormat
    permission_classes = (SeesAllJobs,)

    @extend_schema(operation_id="metrics", responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Figures())  # type: ignore[arg-type]
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
