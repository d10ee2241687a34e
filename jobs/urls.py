from django.urls import path

from jobs import views

urlpatterns = [
    path("", views.dashboard, name="dashboard"),
    path("jobs/", views.job_list, name="job-list"),
    path("jobs/new/", views.job_new, name="job-new"),
    path("jobs/new/<slug:job_type>/", views.job_new, name="job-new-of"),
    path("jobs/bulk/", views.job_bulk, name="job-bulk"),
    path("jobs/<uuid:job_id>/", views.job_detail, name="job-detail"),
    path("jobs/<uuid:job_id>/live/", views.job_live, name="job-live"),
    path("jobs/<uuid:job_id>/log/", views.job_log, name="job-log"),
    path("jobs/<uuid:job_id>/cancel/", views.job_cancel, name="job-cancel"),
    path("jobs/<uuid:job_id>/retry/", views.job_retry, name="job-retry"),
    path("jobs/<uuid:job_id>/run-now/", views.job_run_now, name="job-run-now"),
    path("jobs/<uuid:job_id>/retry-items/", views.job_retry_items, name="job-retry-items"),
    path("jobs/<uuid:job_id>/continue/", views.job_continue, name="job-continue"),
    path("jobs/<uuid:job_id>/pause/", views.job_pause, name="job-pause"),
    path("jobs/<uuid:job_id>/resume/", views.job_resume, name="job-resume"),
    path("jobs/<uuid:job_id>/keep/", views.job_keep, name="job-keep"),
    path("jobs/<uuid:job_id>/items/", views.job_items, name="job-items"),
    path("jobs/<uuid:job_id>/items.csv", views.job_items_csv, name="job-items-csv"),
    path("groups/<uuid:group_id>/", views.group_detail, name="group-detail"),
    path("groups/<uuid:group_id>/cancel/", views.group_cancel, name="group-cancel"),
    path("groups/<uuid:group_id>/retry/", views.group_retry, name="group-retry"),
    path("failures/", views.failure_list, name="failure-list"),
    path("failures/<str:fingerprint>/", views.failure_detail, name="failure-detail"),
    path("failures/<str:fingerprint>/acknowledge/", views.failure_acknowledge, name="failure-acknowledge"),
    path("failures/<str:fingerprint>/retry-items/", views.failure_retry_items, name="failure-retry-items"),
    path("artifacts/<uuid:artifact_id>/", views.artifact, name="artifact"),
    path("notifications/", views.notifications, name="notifications"),
]
