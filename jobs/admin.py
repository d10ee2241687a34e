"""Admin of jobs: to look at, to cancel and to retry. What a hand edit would falsify is read-only."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline

from jobs import registry
from jobs.errors import InvalidParameters, NotAllowed, UnknownJobType
from jobs.manager import JobManager
from jobs.models import ArchivedJob, Artifact, Job, JobAttempt, JobGroup, JobItem, JobLog, Notification, QueuePause, WorkerProcess
from jobs.presentation import badge, type_label


class ReadOnly:
    """Rows are written by the system alone; changing or removing them here would make pages untrue."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class AttemptInline(ReadOnly, TabularInline):
    model = JobAttempt
    extra = 0
    fields = ("number", "outcome", "worker_id", "started_at", "ended_at", "memory_peak_mb", "cpu_seconds", "error_message")
    readonly_fields = fields


class QueuePauseForm(forms.ModelForm):
    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        known = registry.pausable(cleaned.get("scope", ""))
        if cleaned.get("name") and cleaned["name"] not in known:
            self.add_error("name", f"Not known. Known are: {', '.join(known)}.")
        return cleaned


class TypeFilter(admin.SimpleListFilter):
    title = "type"
    parameter_name = "job_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return registry.choices()

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(job_type=self.value()) if self.value() else queryset


@admin.register(Job)
class JobAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "type_shown", "state", "priority", "progress", "created_by", "created_at", "worker_id")
    list_filter = ("status", TypeFilter, "priority", "queue_name", "created_at")
    search_fields = ("id", "name", "error_message")
    date_hierarchy = "created_at"
    list_select_related = ("created_by",)
    list_per_page = 50
    show_full_result_count = False
    inlines = (AttemptInline,)
    actions = ("cancel_jobs", "retry_jobs", "pause_jobs", "resume_jobs", "keep_jobs")

    @admin.display(description="Type", ordering="job_type")
    def type_shown(self, job: Job) -> str:
        return type_label(job.job_type)

    @admin.display(description="State", ordering="status")
    def state(self, job: Job) -> str:
        """In the words of the pages, where held and retrying are told from waiting."""
        return badge(job).label

    @admin.display(description="Progress")
    def progress(self, job: Job) -> str:
        if job.total_steps:
            return f"{job.completed_steps:,} of {job.total_steps:,}"
        return f"{job.completed_steps:,}" if job.completed_steps else "–"

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.change_job")

    @admin.action(description="Cancel selected jobs", permissions=["operate"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        accepted = sum(JobManager().cancel_job(pk, "by an administrator", by=request.user) for pk in ids(queryset))
        self.report(request, "cancelled", accepted, queryset.count() - accepted, "had ended already")

    @admin.action(description="Retry selected jobs", permissions=["operate"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        accepted = refused = 0
        for pk in ids(queryset):
            try:
                JobManager().retry_job(pk, by=request.user)
                accepted += 1
            except NotAllowed:
                refused += 1
        self.report(request, "put back in the queue", accepted, refused, "were not failed")

    @admin.action(description="Pause selected jobs", permissions=["operate"])
    def pause_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        accepted = refused = 0
        for pk in ids(queryset):
            try:
                paused = JobManager().pause_job(pk, by=request.user)
            except NotAllowed:
                paused = False
            accepted, refused = accepted + paused, refused + (not paused)
        self.report(request, "paused or stopping at a checkpoint", accepted, refused, "could not be paused")

    @admin.action(description="Resume selected jobs", permissions=["operate"])
    def resume_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        accepted = sum(JobManager().resume_job(pk, by=request.user) for pk in ids(queryset))
        self.report(request, "resumed", accepted, queryset.count() - accepted, "were not paused")

    @admin.action(description="Keep selected jobs from cleanup", permissions=["operate"])
    def keep_jobs(self, request: HttpRequest, queryset: QuerySet) -> None:
        accepted = sum(JobManager().set_keep(pk, True, by=request.user) for pk in ids(queryset))
        self.report(request, "kept", accepted, queryset.count() - accepted, "were kept already")

    def report(self, request: HttpRequest, done: str, accepted: int, refused: int, why: str) -> None:
        text = f"{accepted:,} {done}." + (f" {refused:,} {why} and were left alone." if refused else "")
        self.message_user(request, text, messages.SUCCESS if accepted else messages.WARNING)


def ids(queryset: QuerySet) -> list[Any]:
    return list(queryset.values_list("pk", flat=True))


@admin.register(JobAttempt)
class JobAttemptAdmin(ReadOnly, ModelAdmin):
    list_display = ("job", "number", "outcome", "worker_id", "started_at", "ended_at", "memory_peak_mb", "cpu_seconds")
    list_filter = ("outcome",)
    search_fields = ("job__id", "worker_id", "error_message")
    list_select_related = ("job",)
    show_full_result_count = False


@admin.register(JobLog)
class JobLogAdmin(ReadOnly, ModelAdmin):
    list_display = ("timestamp", "job", "seq", "level", "message")
    list_filter = ("level",)
    search_fields = ("job__id",)
    list_select_related = ("job",)
    show_full_result_count = False
    ordering = ("-timestamp",)


@admin.register(Artifact)
class ArtifactAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "job", "media_type", "size", "sha256", "created_at")
    search_fields = ("name", "sha256", "job__id")
    list_select_related = ("job",)


@admin.register(JobItem)
class JobItemAdmin(ReadOnly, ModelAdmin):
    list_display = ("key", "job", "outcome", "kind", "reason", "attempt", "at")
    list_filter = ("outcome", "kind")
    search_fields = ("job__id",)
    list_select_related = ("job",)
    show_full_result_count = False


@admin.register(JobGroup)
class JobGroupAdmin(ReadOnly, ModelAdmin):
    """Jobs that were started as one: cancel and retry act on all of them."""

    list_display = ("name", "outcome", "created_by", "created_at", "completed_at")
    list_filter = ("outcome",)
    search_fields = ("id", "name")
    list_select_related = ("created_by",)
    show_full_result_count = False
    actions = ("cancel_groups", "retry_groups")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.change_job")

    @admin.action(description="Cancel selected groups", permissions=["operate"])
    def cancel_groups(self, request: HttpRequest, queryset: QuerySet) -> None:
        jobs = sum(JobManager().cancel_group(group, "by an administrator", by=request.user) for group in queryset)
        self.message_user(request, f"{jobs:,} of their jobs are cancelled.", messages.SUCCESS if jobs else messages.WARNING)

    @admin.action(description="Take up what did not complete", permissions=["operate"])
    def retry_groups(self, request: HttpRequest, queryset: QuerySet) -> None:
        for group in queryset:
            try:
                taken_up = JobManager().retry_group(group, by=request.user)
                self.message_user(request, f"{group}: {len(taken_up):,} of its jobs are taken up again.")
            except (NotAllowed, InvalidParameters, UnknownJobType) as error:
                self.message_user(request, f"{group}: {error} Nothing was changed.", messages.WARNING)


@admin.register(ArchivedJob)
class ArchivedJobAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "job_type", "status", "created_by", "completed_at", "archived_at", "archive")
    list_filter = ("status", "job_type")
    search_fields = ("id", "name")
    list_select_related = ("created_by", "archive")
    show_full_result_count = False


@admin.register(QueuePause)
class QueuePauseAdmin(ModelAdmin):
    """Adding a row holds the jobs of a queue or type; deleting it lets them start again."""

    form = QueuePauseForm
    list_display = ("scope", "name", "reason", "paused_by", "created_at")
    fields = ("scope", "name", "reason")

    def save_model(self, request: HttpRequest, obj: QueuePause, form: Any, change: bool) -> None:
        obj.paused_by = request.user.get_username()
        super().save_model(request, obj, form, change)


@admin.register(Notification)
class NotificationAdmin(ReadOnly, ModelAdmin):
    list_display = ("user", "text", "status", "created_at", "read_at")
    list_filter = ("status",)
    list_select_related = ("user",)


@admin.register(WorkerProcess)
class WorkerProcessAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "queue_name", "host", "pid", "started_at", "seen", "job")

    @admin.display(description="Seen")
    def seen(self, worker: WorkerProcess) -> str:
        return f"{(timezone.now() - worker.seen_at).total_seconds():.0f} s ago"

    @admin.display(description="Job")
    def job(self, worker: WorkerProcess) -> Any:
        return Job.objects.running().filter(worker_id=worker.name).first() or "idle"
