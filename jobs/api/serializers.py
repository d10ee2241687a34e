"""Jobs as JSON, and what a new job may say of itself."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs import items, registry
from jobs.bulk import ACTIONS
from jobs.errors import MEANING, InvalidParameters, UnknownJobType
from jobs.forms import priorities_for
from jobs.manager import JobManager, check_limits, check_rights
from jobs.models import ArchivedJob, Artifact, Job, JobAttempt, JobGroup, JobItem, JobLog
from jobs.presentation import badge, group_state, left_s, percent, sentence
from jobs.queries import subjects_of
from jobs.states import Level, Priority
from jobs.ways import ways_out


class PriorityField(serializers.ChoiceField):
    """By name, as the specification writes it: LOW, NORMAL, HIGH, URGENT."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=[(p.name, p.label) for p in Priority], **kwargs)

    def to_representation(self, value: Any) -> str:
        return Priority(value).name

    def to_internal_value(self, data: Any) -> Any:
        """Raises ValidationError also for one that the person may not choose."""
        value = int(Priority[super().to_internal_value(data)])
        if value not in [number for number, _ in priorities_for(self.context["request"].user)]:
            raise serializers.ValidationError("You may not start jobs with this priority.")
        return value


class ArtifactSerializer(serializers.ModelSerializer):
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Artifact
        fields = ("id", "name", "media_type", "size", "sha256", "created_at", "url")


class JobSerializer(serializers.ModelSerializer):
    priority = PriorityField(read_only=True)
    created_by = serializers.CharField(source="created_by.username", default=None, read_only=True)
    state = serializers.SerializerMethodField(help_text="The state as pages show it, such as “Completed, 37 of 1,000 failed”.")
    sentence = serializers.SerializerMethodField(help_text="How things stand, in words.")
    progress_percent = serializers.SerializerMethodField(help_text="Empty while the total is not known.")
    seconds_left = serializers.SerializerMethodField(help_text="Empty when nothing is known.")
    url = serializers.CharField(source="get_absolute_url", read_only=True)

    class Meta:
        model = Job
        fields = (
            "id", "url", "job_type", "name", "subject_id", "status", "state", "sentence", "priority", "queue_name", "created_by",
            "progress_percent", "current_step", "total_steps", "completed_steps", "problem_count", "created_at",
            "started_at", "completed_at", "run_after", "hold_reason", "estimated_duration", "seconds_left",
            "memory_usage_mb", "memory_peak_mb", "cpu_usage_percent", "result_data", "error_message", "error_kind",
            "error_advice", "retry_count", "max_retries", "worker_id", "attempt", "revision", "log_seq",
            "cancel_requested_at", "cancel_reason", "pause_requested_at", "pause_reason", "memory_limit_mb", "time_limit_s",
            "cpu_limit_s", "keep", "continues_id", "group_id", "run_if_failed",
        )  # fmt: skip
        read_only_fields = fields

    def get_state(self, job: Job) -> str:
        return badge(job).label

    def get_sentence(self, job: Job) -> str:
        return sentence(job)

    def get_progress_percent(self, job: Job) -> float | None:
        return percent(job)

    def get_seconds_left(self, job: Job) -> float | None:
        return left_s(job)


class WaySerializer(serializers.Serializer):
    """A way on: send `values` to the action of this name below the job's address."""

    key = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    detail = serializers.CharField()
    values = serializers.DictField()


class AttemptSerializer(serializers.ModelSerializer):
    class Meta:
        model = JobAttempt
        fields = (
            "number", "outcome", "worker_id", "host", "started_at", "ended_at", "error_kind", "error_message", "memory_peak_mb",
            "cpu_seconds", "samples",
        )  # fmt: skip


class JobDetailSerializer(JobSerializer):
    artifacts = ArtifactSerializer(many=True, read_only=True)
    attempts = AttemptSerializer(many=True, read_only=True)
    items = serializers.SerializerMethodField(help_text="How many items are ok, failed and skipped.")
    ways = serializers.SerializerMethodField(help_text="Ways on from here, the likeliest first.")
    error_meaning = serializers.SerializerMethodField(help_text="What an error of this kind means, in plain words.")
    depends_on = serializers.SerializerMethodField(help_text="Ids of the jobs that must be complete before this one starts.")

    class Meta:
        model = Job
        fields = (
            *JobSerializer.Meta.fields,
            "parameters", "error_traceback", "error_meaning", "artifacts", "attempts", "items", "ways", "depends_on",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField()))
    def get_items(self, job: Job) -> dict[str, int]:
        return items.counts(job.pk)

    @extend_schema_field(WaySerializer(many=True))
    def get_ways(self, job: Job) -> list[dict[str, Any]]:
        return list(WaySerializer(ways_out(job, self.context["request"].user), many=True).data)

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField()))
    def get_depends_on(self, job: Job) -> list[Any]:
        return list(job.dependencies.values_list("needs_id", flat=True))

    def get_error_meaning(self, job: Job) -> str:
        return MEANING.get(job.error_kind, "")


class ItemSerializer(serializers.ModelSerializer):
    class Meta:
        model = JobItem
        fields = ("key", "outcome", "kind", "reason", "attempt", "at")


class GroupSerializer(serializers.ModelSerializer):
    """Jobs that were started as one. `jobs` are those that count: without those that a later one continues."""

    url = serializers.CharField(source="get_absolute_url", read_only=True)
    created_by = serializers.CharField(source="created_by.username", default=None, read_only=True)
    state = serializers.CharField(source="shown.badge.label")
    sentence = serializers.CharField(source="shown.sentence", help_text="How it stands, in words.")
    progress_percent = serializers.FloatField(source="shown.percent", help_text="The mean of its jobs.")
    jobs = JobSerializer(source="shown.jobs", many=True, read_only=True)

    class Meta:
        model = JobGroup
        fields = (
            "id", "url", "name", "subject_id", "created_by", "created_at", "completed_at", "state", "sentence", "progress_percent", "jobs",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, group: Any) -> dict[str, Any]:
        group.shown = group_state(group)
        return super().to_representation(group)


class ArchivedJobSerializer(serializers.ModelSerializer):
    """What stays of a job once its rows are in the archive."""

    archived = serializers.BooleanField(default=True, read_only=True)
    url = serializers.CharField(source="get_absolute_url", read_only=True)
    created_by = serializers.CharField(source="created_by.username", default=None, read_only=True)

    class Meta:
        model = ArchivedJob
        fields = (
            "id", "url", "archived", "job_type", "name", "subject_id", "status", "sentence", "created_by", "created_at",
            "completed_at", "archived_at",
        )  # fmt: skip


class Strict(serializers.Serializer):
    """Refuses what it does not know, by name: a mistyped field must not be silently without effect."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                known = ", ".join(self.fields)
                raise serializers.ValidationError({name: [f"Cannot be set. Known are: {known}."] for name in unknown})
        return super().to_internal_value(data)


class NewJobSerializer(Strict):
    """What a client may say of a new job. Anything else is refused by name."""

    job_type = serializers.CharField(max_length=64)
    parameters = serializers.DictField(default=dict)
    priority = PriorityField(default=int(Priority.NORMAL))
    subject_id = serializers.UUIDField(required=False, allow_null=True, default=None)
    max_retries = serializers.IntegerField(min_value=0, max_value=20, required=False)
    memory_limit_mb = serializers.IntegerField(required=False)
    time_limit_s = serializers.IntegerField(required=False)
    cpu_limit_s = serializers.IntegerField(required=False)
    depends_on = serializers.ListField(
        child=serializers.UUIDField(), required=False, max_length=100, help_text="It starts once these jobs are complete."
    )
    run_if_failed = serializers.BooleanField(default=False, help_text="It starts also when one of them fails or is cancelled.")

    def validate_job_type(self, value: str) -> str:
        try:
            return registry.get(value).name
        except UnknownJobType as error:
            raise serializers.ValidationError(str(error)) from None

    def validate_subject_id(self, value: Any) -> Any:
        subjects = subjects_of(self.context["request"].user)
        if value is not None and (subjects is None or not subjects.filter(pk=value).exists()):
            raise serializers.ValidationError("There is no subject with this id.")
        return value

    def validate_depends_on(self, value: list[Any]) -> list[Any]:
        visible = set(Job.objects.visible_to(self.context["request"].user).filter(pk__in=value).values_list("pk", flat=True))
        problems = [f"There is no job with the id {pk}." for pk in value if pk not in visible]
        if problems:
            raise serializers.ValidationError(problems)
        return value

    def create(self, validated_data: dict[str, Any]) -> Job:
        user = self.context["request"].user
        limits = {name: validated_data.get(name) for name in LIMITS}
        try:
            check_limits(**limits)
            check_rights(Job(job_type=validated_data["job_type"]), limits, user)
            return JobManager().create_job(**validated_data, created_by=user)
        except InvalidParameters as error:
            raise as_validation_error(error) from None


LIMITS = ("memory_limit_mb", "time_limit_s", "cpu_limit_s")


def as_validation_error(error: InvalidParameters) -> serializers.ValidationError:
    """Limits, subject and dependencies are fields of the request; everything else is a parameter of the type."""
    fields = {"subject": "subject_id", **{name: name for name in (*LIMITS, "max_retries", "depends_on")}}
    own = {fields[name]: texts for name, texts in error.errors.items() if name in fields}
    return serializers.ValidationError(own or {"parameters": error.errors})


class ReasonSerializer(Strict):
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class RetrySerializer(Strict):
    """All optional. Other parameters begin from the start; other limits go on from what is done."""

    parameters = serializers.DictField(required=False)
    memory_limit_mb = serializers.IntegerField(required=False)
    time_limit_s = serializers.IntegerField(required=False)
    cpu_limit_s = serializers.IntegerField(required=False)


class KeepSerializer(Strict):
    keep = serializers.BooleanField()


class BulkSerializer(Strict):
    """Either `ids`, or `filter` with the filters of the list; `dry_run` only counts."""

    action = serializers.ChoiceField(choices=[(name, action.label) for name, action in ACTIONS.items()])
    priority = PriorityField(required=False, default=None, allow_null=True, help_text="For the action priority.")
    ids = serializers.ListField(child=serializers.UUIDField(), required=False, allow_empty=False, max_length=10_000)
    filter = serializers.DictField(required=False)
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    dry_run = serializers.BooleanField(default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("ids" in attrs) == ("filter" in attrs):
            raise serializers.ValidationError({"ids": ["Give either ids or a filter."]})
        if "filter" in attrs and not attrs["filter"]:
            raise serializers.ValidationError({"filter": ["Must name at least one filter, such as state."]})
        if attrs["action"] == "priority" and attrs["priority"] is None:
            raise serializers.ValidationError({"priority": ["Say which priority the jobs shall have."]})
        return attrs


class LogSerializer(serializers.ModelSerializer):
    level = serializers.SerializerMethodField()

    class Meta:
        model = JobLog
        fields = ("id", "seq", "attempt", "level", "message", "timestamp", "step_name", "data")

    def get_level(self, row: JobLog) -> str:
        return Level(row.level).name
