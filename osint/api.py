"""The API of subjects: list, make, investigate, search."""

import uuid
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from jobs.api.problems import Conflict
from jobs.api.serializers import GroupSerializer, PriorityField, Strict, as_validation_error
from jobs.api.views import Pages
from jobs.errors import InvalidParameters, NotAllowed
from jobs.states import Priority
from osint.investigation import investigate
from osint.models import Subject
from osint.search import search


class SubjectSerializer(serializers.ModelSerializer):
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Subject
        fields = ("id", "url", "name", "notes", "created_at")
        read_only_fields = ("id", "url", "created_at")


class InvestigateSerializer(Strict):
    """`scrape` holds the parameters of web_scraping; without it the documents that are there are investigated."""

    scrape = serializers.DictField(required=False, allow_null=True, default=None)
    priority = PriorityField(default=int(Priority.NORMAL))
    title = serializers.CharField(max_length=200, required=False, allow_blank=True, default="", help_text="Of the report.")


class HitSerializer(serializers.Serializer):
    document = serializers.UUIDField(source="document.pk")
    url = serializers.CharField(source="document.get_absolute_url")
    title = serializers.CharField(source="document.title")
    snippet = serializers.CharField(help_text="HTML: the words found are in <mark>, everything else is escaped.")


class SubjectViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.CreateModelMixin, viewsets.GenericViewSet):
    """Subjects that you may see. What is outside your scope is a 404."""

    queryset = Subject.objects.none()
    serializer_class = SubjectSerializer
    pagination_class = Pages
    lookup_value_converter = "uuid"

    def get_queryset(self) -> Any:
        return Subject.objects.visible_to(self.request.user)

    def perform_create(self, serializer: Any) -> None:
        serializer.save(created_by=self.request.user)

    @extend_schema(request=InvestigateSerializer, responses={201: GroupSerializer})
    @action(detail=True, methods=["post"])
    def investigate(self, request: Request, pk: uuid.UUID) -> Response:
        """Start a whole investigation: a group of jobs that depend on each other."""
        subject = self.get_object()
        body = InvestigateSerializer(data=request.data, context={"request": request})
        body.is_valid(raise_exception=True)
        try:
            group = investigate(subject, by=request.user, **body.validated_data)
        except InvalidParameters as error:
            raise as_validation_error(error) from None
        except NotAllowed as error:
            raise Conflict(str(error)) from None
        return Response(GroupSerializer(group).data, status=201, headers={"Location": f"/api/groups/{group.pk}"})

    @extend_schema(parameters=[OpenApiParameter("q", OpenApiTypes.STR, required=True)], responses=HitSerializer(many=True))
    @action(detail=True, pagination_class=None)
    def search(self, request: Request, pk: uuid.UUID) -> Response:
        """The documents of the subject that have all the words, best first; up to 200."""
        subject = self.get_object()
        text = request.query_params.get("q", "").strip()[:500]
        if not text:
            raise serializers.ValidationError({"q": ["Say what to look for."]})
        return Response(HitSerializer(search(subject.pk, text), many=True).data)
