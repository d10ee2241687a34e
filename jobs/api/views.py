"""The JSON API: list, detail, create, cancel, retry, logs, stats."""

import uuid
from typing import Any

from django.http import Http404
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, pagination, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jobs.api.problems import Conflict
from jobs.api.serializers import CancelSerializer, JobDetailSerializer, JobSerializer, LogSerializer, NewJobSerializer
from jobs.errors import NotAllowed
from jobs.filters import JobFilter
from jobs.manager import JobManager
from jobs.models import Job, JobLog
from jobs.resources import ResourceManager
from jobs.states import Level, Status


class Pages(pagination.PageNumberPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500


class JobViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Jobs that you may see. What is outside your scope is a 404."""

    queryset = Job.objects.none()
    serializer_class = JobSerializer
    filter_backends = (DjangoFilterBackend,)
    filterset_class = JobFilter
    pagination_class = Pages
    lookup_value_regex = "[^/.]+"

    def get_queryset(self) -> Any:
        return Job.objects.visible_to(self.request.user).select_related("created_by")

    def get_object(self) -> Job:
        try:
            job_id = uuid.UUID(self.kwargs["pk"])
        except ValueError:
            raise Http404("A job's id is a UUID, such as 01970000-0000-7000-8000-000000000000.") from None
        job = self.get_queryset().filter(pk=job_id).first()
        if job is None:
            raise Http404("There is no job with this id.")
        return job

    @extend_schema(responses=JobDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(JobDetailSerializer(self.get_object()).data)

    @extend_schema(request=NewJobSerializer, responses={201: JobDetailSerializer})
    def create(self, request: Request) -> Response:
        """Start a job. It is stored when this answers, and starts as soon as a worker is free."""
        new = NewJobSerializer(data=request.data, context={"request": request})
        new.is_valid(raise_exception=True)
        try:
            job = new.save()
        except NotAllowed as error:
            raise Conflict(str(error)) from None
        return Response(JobDetailSerializer(job).data, status=201, headers={"Location": f"/api/jobs/{job.pk}"})

    @extend_schema(request=CancelSerializer, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Ask the job to stop. 409 if it has ended already or was asked before."""
        job = self.get_object()
        said = CancelSerializer(data=request.data)
        said.is_valid(raise_exception=True)
        accepted = JobManager().cancel_job(job.pk, said.validated_data["reason"], by=request.user)
        job.refresh_from_db()
        if not accepted:
            was = "is being cancelled already" if job.status == Status.RUNNING else f"has ended: {job.get_status_display()}"
            raise Conflict(f"This job {was}. Nothing was changed.")
        return Response(JobDetailSerializer(job).data)

    @extend_schema(request=None, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Let a failed job go on, at once. 409 if it is not failed."""
        try:
            job = JobManager().retry_job(self.get_object().pk, by=request.user)
        except NotAllowed as error:
            raise Conflict(f"{error} Nothing was changed.") from None
        return Response(JobDetailSerializer(job).data)

    @extend_schema(
        parameters=[
            OpenApiParameter("after", OpenApiTypes.INT, description="Only lines after this number."),
            OpenApiParameter("level", OpenApiTypes.STR, description="Only this level and above.", enum=Level.names),
        ],
        responses=LogSerializer(many=True),
        filters=False,
    )
    @action(detail=True, filterset_class=None)
    def logs(self, request: Request, pk: str) -> Response:
        """The log, oldest line first, in pages."""
        rows = JobLog.objects.filter(job=self.get_object()).order_by("seq")
        try:
            rows = rows.filter(seq__gt=int(request.query_params.get("after", 0)))
        except (ValueError, OverflowError):
            raise ValidationError({"after": ["Must be the number of a log line."]}) from None
        level = request.query_params.get("level", "").upper()
        if level and level not in Level.names:
            raise ValidationError({"level": [f"Must be one of {', '.join(Level.names)}."]})
        if level:
            rows = rows.filter(level__gte=Level[level])
        return self.get_paginated_response(LogSerializer(self.paginate_queryset(rows), many=True).data)

    @extend_schema(responses=OpenApiTypes.OBJECT, filters=False)
    @action(detail=False, filterset_class=None, pagination_class=None)
    def stats(self, request: Request) -> Response:
        """What waits, runs and ended in the last 24 hours, of the jobs that you may see; and the machine."""
        return Response(ResourceManager().get_queue_statistics(request.user))
