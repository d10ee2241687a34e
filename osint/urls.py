from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path
from rest_framework.routers import SimpleRouter

from osint import views
from osint.api import SubjectViewSet

router = SimpleRouter(use_regex_path=True)
router.trailing_slash = "/?"
router.register("subjects", SubjectViewSet, basename="api-subject")

urlpatterns = [
    path("sign-in/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", auth.LogoutView.as_view(), name="logout"),
    path("health/", views.health, name="health"),
    path("subjects/", views.subject_list, name="subject-list"),
    path("subjects/<uuid:subject_id>/", views.subject_detail, name="subject-detail"),
    path("documents/<uuid:document_id>/", views.document_detail, name="document-detail"),
    path("api/", include(router.urls)),
    path("api/", include("jobs.api.urls")),
    path("admin/", admin.site.urls),
    path("", include("jobs.urls")),
]
