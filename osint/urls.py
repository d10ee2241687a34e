from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path
from django.views.i18n import JavaScriptCatalog, set_language
from rest_framework.routers import SimpleRouter

from osint import views
from osint.api import SubjectViewSet

router = SimpleRouter(use_regex_path=True)
router.trailing_slash = "/?"
router.register("subjects", SubjectViewSet, basename="api-subject")

urlpatterns = [
    path("sign-in/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("sign-out/", auth.LogoutView.as_view(), name="logout"),
    path("language/", set_language, name="set_language"),
    path("words.js", JavaScriptCatalog.as_view(domain="djangojs"), name="javascript-catalog"),
    path("health/", views.health, name="health"),
    path("subjects/", views.subject_list, name="subject-list"),
    path("subjects/<uuid:subject_id>/", views.subject_detail, name="subject-detail"),
    *(
        path(f"subjects/<uuid:subject_id>/{name}/", view, name=f"subject-{name}")
        for name, view in (
            ("documents", views.subject_documents),
            ("entities", views.subject_entities),
            ("timeline", views.subject_timeline),
            ("duplicates", views.subject_duplicates),
            ("files", views.subject_files),
            ("search", views.subject_search),
            ("investigate", views.subject_investigate),
            ("upload", views.subject_upload),
        )
    ),
    path("entities/<uuid:entity_id>/", views.entity_detail, name="entity-detail"),
    path("duplicates/<uuid:pair_id>/", views.decide_pair, name="decide-pair"),
    path("uploads/<uuid:upload_id>/", views.upload, name="upload"),
    path("scrape/check/", views.check_urls, name="check-urls"),
    path("documents/<uuid:document_id>/", views.document_detail, name="document-detail"),
    path("api/", include(router.urls)),
    path("api/", include("jobs.api.urls")),
    path("admin/", admin.site.urls),
    path("", include("jobs.urls")),
]
