"""Every path answers with and without a trailing slash."""

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from jobs.api.metrics import MetricsView
from jobs.api.views import GroupViewSet, JobViewSet

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("jobs", JobViewSet, basename="api-job")
router.register("groups", GroupViewSet, basename="api-group")

urlpatterns = [
    re_path(r"^schema/?$", SpectacularAPIView.as_view(), name="api-schema"),
    re_path(r"^docs/?$", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    re_path(r"^metrics/?$", MetricsView.as_view(), name="api-metrics"),
    path("", include(router.urls)),
]
