"""Jobs as JSON, and what a new job may say of itself."""

from typing import Any

from rest_framework import serializers

from jobs import registry
from jobs.errors import InvalidParameters, UnknownJobType
from jobs.forms import priorities_for
from jobs.manager import JobManager
from jobs.models import Artifact, Job, JobLog
from jobs.presentation import left_s, percent, sentence
from jobs.queries import subjects_of
from jobs.states import Level, Priority


class PriorityField(serializers.ChoiceField):
    """By name, as the specification writes it: LOW, NORMAL, HIGH, URGENT."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=[(p.name, p.label) for p in Priority], **kwargs)

    def to_representation(self, value: Any) -> str:
        return Priority(value).name

    def to_internal_value(self, data: Any) -> Any:
        return int(Priority[super().to_internal_value(data)])


class ArtifactSerializer(serializers.ModelSerializer):
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Artifact
        fields = ("id", "name", "media_type", "size", "sha256", "created_at", "url")


class JobSerializer(serializers.ModelSerializer):
    priority = PriorityField(read_only=True)
    created_by = serializers.CharField(source="created_by.username", default=None, read_only=True)
    sentence = serializers.SerializerMethodField(help_text="How things stand, in words.")
    progress_percent = serializers.SerializerMethodField(help_text="Empty while the total is not known.")
    seconds_left = serializers.SerializerMethodField(help_text="Empty when nothing is known.")
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Job
        fields = (
            "id", "url", "job_type", "name", "subject_id", "status", "sentence", "priority", "queue_name", "created_by",
            "progress_percent", "current_step", "total_steps", "completed_steps", "problem_count", "created_at",
            "started_at", "completed_at", "run_after", "hold_reason", "estimated_duration", "seconds_left",
            "memory_usage_mb", "memory_peak_mb", "cpu_usage_percent", "result_data", "error_message", "error_kind",
            "error_advice", "retry_count", "max_retries", "worker_id", "attempt", "revision", "log_seq",
            "cancel_requested_at", "cancel_reason",
        )  # fmt: skip
        read_only_fields = fields

    def get_sentence(self, job: Job) -> str:
        return sentence(job)

    def get_progress_percent(self, job: Job) -> float | None:
        return percent(job)

    def get_seconds_left(self, job: Job) -> float | None:
        return left_s(job)


class JobDetailSerializer(JobSerializer):
    artifacts = ArtifactSerializer(many=True, read_only=True)

    class Meta:
        model = Job
        fields = (*JobSerializer.Meta.fields, "parameters", "error_traceback", "artifacts")
        read_only_fields = fields


class NewJobSerializer(serializers.Serializer):
    """What a client may say of a new job. Anything else is refused by name."""

    job_type = serializers.CharField(max_length=64)
    parameters = serializers.DictField(default=dict)
    priority = PriorityField(default=int(Priority.NORMAL))
    subject_id = serializers.UUIDField(required=False, allow_null=True, default=None)
    max_retries = serializers.IntegerField(min_value=0, max_value=20, required=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                known = ", ".join(self.fields)
                raise serializers.ValidationError({name: [f"Cannot be set. Known are: {known}."] for name in unknown})
        return super().to_internal_value(data)

    def validate_job_type(self, value: str) -> str:
        try:
            return registry.get(value).name
        except UnknownJobType as error:
            raise serializers.ValidationError(str(error)) from None

    def validate_priority(self, value: int) -> int:
        if value not in [number for number, _ in priorities_for(self.context["request"].user)]:
            raise serializers.ValidationError("You may not start jobs with this priority.")
        return value

    def validate_subject_id(self, value: Any) -> Any:
        subjects = subjects_of(self.context["request"].user)
        if value is not None and (subjects is None or not subjects.filter(pk=value).exists()):
            raise serializers.ValidationError("There is no subject with this id.")
        return value

    def create(self, validated_data: dict[str, Any]) -> Job:
        try:
            return JobManager().create_job(**validated_data, created_by=self.context["request"].user)
        except InvalidParameters as error:
            raise serializers.ValidationError({"parameters": error.errors}) from None


class CancelSerializer(serializers.Serializer):
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class LogSerializer(serializers.ModelSerializer):
    level = serializers.SerializerMethodField()

    class Meta:
        model = JobLog
        fields = ("id", "seq", "attempt", "level", "message", "timestamp", "step_name", "data")

    def get_level(self, row: JobLog) -> str:
        return Level(row.level).name
