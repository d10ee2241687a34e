"""Admin of subjects and documents, and of accounts in the same look."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from jobs.admin import ReadOnly
from osint.models import Document, DuplicatePair, Entity, Subject, TimelineEvent, Upload

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(BaseUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, ModelAdmin):
    pass


@admin.register(Subject)
class SubjectAdmin(ModelAdmin):
    list_display = ("name", "created_by", "created_at")
    search_fields = ("name",)
    filter_horizontal = ("members",)
    readonly_fields = ("created_by", "created_at")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)


@admin.register(Document)
class DocumentAdmin(ReadOnly, ModelAdmin):
    """Evidence: to look at, never to edit."""

    list_display = ("title", "url", "http_status", "fetched_at", "language", "subject", "job")
    list_filter = ("language", "http_status")
    search_fields = ("title", "url", "sha256")
    list_select_related = ("subject", "job")
    show_full_result_count = False


@admin.register(Entity)
class EntityAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "type", "mention_count", "subject", "created_at")
    list_filter = ("type",)
    search_fields = ("name", "key")
    list_select_related = ("subject",)
    show_full_result_count = False


@admin.register(TimelineEvent)
class TimelineEventAdmin(ReadOnly, ModelAdmin):
    list_display = ("begins", "ends", "precision", "title", "source_count", "subject")
    list_filter = ("precision",)
    search_fields = ("title",)
    list_select_related = ("subject",)
    show_full_result_count = False


@admin.register(DuplicatePair)
class DuplicatePairAdmin(ReadOnly, ModelAdmin):
    list_display = ("kind", "step", "score", "decision", "decided_by", "subject")
    list_filter = ("kind", "step", "decision")
    list_select_related = ("subject", "decided_by")
    show_full_result_count = False


@admin.register(Upload)
class UploadAdmin(ReadOnly, ModelAdmin):
    list_display = ("name", "size", "created_by", "created_at", "subject")
    search_fields = ("name", "sha256")
    list_select_related = ("subject", "created_by")
