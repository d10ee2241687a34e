from django.urls import re_path

from jobs.consumers import JobConsumer, JobListConsumer

websocket_urlpatterns = [
    re_path(r"^ws/jobs/?$", JobListConsumer.as_asgi()),
    re_path(r"^ws/jobs/(?P<job_id>[^/]+)/?$", JobConsumer.as_asgi()),
]
