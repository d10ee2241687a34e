"""The JSON API: list, detail, create, all that can be asked of a job, items, logs, stats."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.http import Http404, QueryDict
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import mixins, pagination, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import bulk, conf, items
from jobs.api.problems import Conflict
from jobs.api.serializers import (
    ArchivedJobSerializer,
    BulkSerializer,
    GroupSerializer,
    ItemSerializer,
    JobDetailSerializer,
    JobSerializer,
    KeepSerializer,
    LogSerializer,
    NewJobSerializer,
    ReasonSerializer,
    RetrySerializer,
    as_validation_error,
)
from jobs.errors import InvalidParameters, NotAllowed, UnknownJobType
from jobs.filters import JobFilter
from jobs.manager import JobManager
from jobs.models import ArchivedJob, Job, JobGroup, JobItem, JobLog
from jobs.queries import few_subjects
from jobs.resources import ResourceManager
from jobs.states import Level, Status


def strictly_filtered(given: dict[str, Any], jobs: QuerySet, request: Request) -> tuple[QuerySet, bool]:
    """(the jobs that all of `given` match, whether there may be more than a search finds).

    Raises ValidationError for what makes no sense: leaving it out would act on more.
    """
    unknown = sorted(set(given) - set(JobFilter.base_filters))
    if unknown:
        raise ValidationError({"filter": [f"Unknown: {', '.join(unknown)}. Known are: {', '.join(JobFilter.base_filters)}."]})
    query = QueryDict(mutable=True)
    for name, value in given.items():
        query.setlist(name, [str(v) for v in value] if isinstance(value, list) else [str(value)])
    filters = JobFilter(query, queryset=jobs, request=request)
    if not filters.is_valid():
        raise ValidationError({"filter": filters.form.errors})
    found = filters.qs.order_by("-created_at", "-id")  # the search is made here, and says then whether there are more
    return found, filters.has_more


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
        return Job.objects.visible_to(self.request.user, within=few_subjects(self.request)).select_related("created_by")

    def get_object(self) -> Job:
        try:
            job_id = uuid.UUID(self.kwargs["pk"])
        except ValueError:
            raise Http404("A job's id is a UUID, such as 01970000-0000-7000-8000-000000000000.") from None
        job = self.get_queryset().filter(pk=job_id).first()
        if job is None:
            raise Http404("There is no job with this id.")
        return job

    def detail_of(self, job: Job, status: int = 200, **options: Any) -> Response:
        return Response(JobDetailSerializer(job, context=self.get_serializer_context()).data, status=status, **options)

    @extend_schema(responses=PolymorphicProxySerializer("JobOrStub", [JobDetailSerializer, ArchivedJobSerializer], None))
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The job; for an archived one what stays of it, with `archived` true."""
        try:
            return self.detail_of(self.get_object())
        except Http404:
            stub = self.archived()
            if stub is None:
                raise
            return Response(ArchivedJobSerializer(stub).data)

    def archived(self) -> ArchivedJob | None:
        try:
            job_id = uuid.UUID(self.kwargs["pk"])
        except ValueError:
            return None
        return ArchivedJob.objects.visible_to(self.request.user).select_related("created_by").filter(pk=job_id).first()

    def said(self, serializer: type[serializers.Serializer]) -> dict[str, Any]:
        """The checked body; but a job outside the scope is a 404, whatever was sent about it."""
        self.get_object()
        body = serializer(data=self.request.data)
        body.is_valid(raise_exception=True)
        return body.validated_data

    def asked(self, ask: Any, refused: str = "") -> Response:
        """Do what was asked of the job; 409 in words when it does not fit. A new job answers 201 with its address."""
        job = self.get_object()
        try:
            answer = ask(job)
        except InvalidParameters as error:
            raise as_validation_error(error) from None
        except (NotAllowed, UnknownJobType) as error:
            raise Conflict(f"{error} Nothing was changed.") from None
        if answer is False:
            raise Conflict(f"{refused} Nothing was changed.")
        if isinstance(answer, Job) and answer.pk != job.pk:
            return self.detail_of(answer, 201, headers={"Location": f"/api/jobs/{answer.pk}"})
        job.refresh_from_db()
        return self.detail_of(job)

    @extend_schema(request=NewJobSerializer, responses={201: JobDetailSerializer})
    def create(self, request: Request) -> Response:
        """Start a job. It is stored when this answers, and starts as soon as a worker is free."""
        new = NewJobSerializer(data=request.data, context={"request": request})
        new.is_valid(raise_exception=True)
        try:
            job = new.save()
        except NotAllowed as error:
            raise Conflict(str(error)) from None
        return self.detail_of(job, 201, headers={"Location": f"/api/jobs/{job.pk}"})

    @extend_schema(request=ReasonSerializer, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Ask the job to stop. 409 if it has ended already or was asked before."""
        job = self.get_object()
        said = self.said(ReasonSerializer)
        accepted = JobManager().cancel_job(job.pk, said["reason"], by=request.user)
        job.refresh_from_db()
        if not accepted:
            was = "is being cancelled already" if job.status == Status.RUNNING else f"has ended: {job.get_status_display()}"
            raise Conflict(f"This job {was}. Nothing was changed.")
        return self.detail_of(job)

    @extend_schema(request=RetrySerializer, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Let a failed job go on, at once. 409 if it is not failed, or a limit is above what you may set."""
        said = self.said(RetrySerializer)
        return self.asked(lambda job: JobManager().retry_job(job.pk, by=request.user, **said))

    @extend_schema(request=None, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def run_now(self, request: Request, pk: str) -> Response:
        """Bring the next try of a waiting job forward to now. 409 if it does not wait for a time."""
        return self.asked(lambda job: JobManager().run_now(job.pk, by=request.user))

    @extend_schema(request=None, responses={201: JobDetailSerializer})
    @action(detail=True, methods=["post"])
    def retry_items(self, request: Request, pk: str) -> Response:
        """A new job for the items that failed. 409 if none did, or the job has not ended."""
        return self.asked(lambda job: JobManager().retry_items(job.pk, by=request.user))

    @extend_schema(request=None, responses={201: JobDetailSerializer})
    @action(detail=True, methods=["post"], url_path="continue")
    def go_on(self, request: Request, pk: str) -> Response:
        """A new job that takes a cancelled one on from what it had done. 409 if it is not cancelled."""
        return self.asked(lambda job: JobManager().continue_job(job.pk, by=request.user))

    @extend_schema(request=ReasonSerializer, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Hold a waiting job, or stop a running one at its next checkpoint. 409 if neither is possible."""
        said = self.said(ReasonSerializer)
        refused = "This job has ended, is paused already, or is being cancelled."
        return self.asked(lambda job: JobManager().pause_job(job.pk, said["reason"], by=request.user), refused)

    @extend_schema(request=None, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Let a paused job go on where it stopped. 409 if it is not paused."""
        return self.asked(lambda job: JobManager().resume_job(job.pk, by=request.user), "This job is not paused.")

    @extend_schema(request=KeepSerializer, responses=JobDetailSerializer)
    @action(detail=True, methods=["post"])
    def keep(self, request: Request, pk: str) -> Response:
        """Protect a job from cleanup, or no longer. 409 if it is so already."""
        said = self.said(KeepSerializer)
        keep = said["keep"]
        return self.asked(lambda job: JobManager().set_keep(job.pk, keep, by=request.user), "It is so already.")

    @extend_schema(
        parameters=[
            OpenApiParameter("outcome", OpenApiTypes.STR, enum=JobItem.Outcome.values),
            OpenApiParameter("q", OpenApiTypes.STR, description="Text in the item or its reason."),
        ],
        responses=ItemSerializer(many=True),
        filters=False,
    )
    @action(detail=True, filterset_class=None)
    def items(self, request: Request, pk: str) -> Response:
        """What became of each item, in pages."""
        job = self.get_object()
        outcome = request.query_params.get("outcome", "")
        if outcome and outcome not in JobItem.Outcome.values:
            raise ValidationError({"outcome": [f"Must be one of {', '.join(JobItem.Outcome.values)}."]})
        rows = items.find(job.pk, outcome, request.query_params.get("q", "").replace("\x00", "")[:200])
        return self.get_paginated_response(ItemSerializer(self.paginate_queryset(rows), many=True).data)

    @extend_schema(request=BulkSerializer, responses=OpenApiTypes.OBJECT, filters=False)
    @action(detail=False, methods=["post"], filterset_class=None, pagination_class=None)
    def bulk(self, request: Request) -> Response:
        """One action on many jobs: how many match, whether more do than a search finds, and what came of each. 409 if none does."""
        body = BulkSerializer(data=request.data, context={"request": request})
        body.is_valid(raise_exception=True)
        data = body.validated_data
        jobs = self.get_queryset().order_by("-created_at", "-id")
        jobs, more = (jobs.filter(pk__in=data["ids"]), False) if "ids" in data else strictly_filtered(data["filter"], jobs, request)
        matched = jobs.count()
        if not matched:
            raise Conflict("No job that you may see matches. Nothing was changed.")
        if data["dry_run"]:
            return Response({"matched": matched, "more": more, "done": 0, "outcomes": []})
        outcomes = bulk.act(
            data["action"], list(jobs[: conf.get("bulk_max")]), by=request.user, reason=data["reason"], priority=data["priority"]
        )
        rows = [{"id": outcome.job.pk, "done": outcome.done, "detail": outcome.detail} for outcome in outcomes]
        return Response({"matched": matched, "more": more, "done": sum(o.done for o in outcomes), "outcomes": rows})

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


class GroupViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Jobs that were started as one, such as an investigation."""

    queryset = JobGroup.objects.none()
    serializer_class = GroupSerializer
    pagination_class = Pages

    def get_queryset(self) -> Any:
        return JobGroup.objects.visible_to(self.request.user).select_related("created_by")

    def get_object(self) -> Any:
        try:
            uuid.UUID(self.kwargs["pk"])
        except ValueError:
            raise Http404("There is no group with this id.") from None
        return super().get_object()

    @extend_schema(request=ReasonSerializer, responses=GroupSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Ask all its open jobs to stop. 409 if none is open."""
        group = self.get_object()
        body = ReasonSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        if not JobManager().cancel_group(group, body.validated_data["reason"], by=request.user):
            raise Conflict("All jobs of this group have ended or are being cancelled. Nothing was changed.")
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=None, responses=GroupSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Take up what failed or was cancelled. 409 while a job of it is open, or when all are complete."""
        try:
            JobManager().retry_group(self.get_object(), by=request.user)
        except (NotAllowed, InvalidParameters, UnknownJobType) as error:
            raise Conflict(f"{error} Nothing was changed.") from None
        return Response(self.get_serializer(self.get_object()).data)
