"""The pages about jobs. Each works without JavaScript; the scripts make it move."""

from jobs.views.actions import (
    group_cancel,
    group_detail,
    group_retry,
    job_cancel,
    job_continue,
    job_keep,
    job_pause,
    job_resume,
    job_retry,
    job_retry_items,
    job_run_now,
)
from jobs.views.dashboard import dashboard, slow, throughput
from jobs.views.failures import failure_acknowledge, failure_detail, failure_list, failure_retry_items
from jobs.views.job import artifact, artifact_preview, job_detail, job_items, job_items_csv, job_lines, job_live, job_log, job_new
from jobs.views.lists import job_bulk, job_list, job_list_csv, view_delete, view_save
from jobs.views.scope import navigation
from jobs.views.styleguide import styleguide
from jobs.views.told import mail_settings, notifications

__all__ = [
    "artifact",
    "artifact_preview",
    "dashboard",
    "failure_acknowledge",
    "failure_detail",
    "failure_list",
    "failure_retry_items",
    "group_cancel",
    "group_detail",
    "group_retry",
    "job_bulk",
    "job_cancel",
    "job_continue",
    "job_detail",
    "job_items",
    "job_items_csv",
    "job_keep",
    "job_lines",
    "job_list",
    "job_list_csv",
    "job_live",
    "job_log",
    "job_new",
    "job_pause",
    "job_resume",
    "job_retry",
    "job_retry_items",
    "job_run_now",
    "mail_settings",
    "navigation",
    "notifications",
    "slow",
    "styleguide",
    "throughput",
    "view_delete",
    "view_save",
]
