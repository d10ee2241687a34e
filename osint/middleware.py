"""Response headers, the viewer's time zone and language, and where addresses of buttons lead."""

from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import resolve
from django.utils import timezone, translation

from jobs.language import SOURCE
from jobs.words import zone_of

Next = Callable[[HttpRequest], HttpResponse]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# The admin (django-unfold, with Alpine) and the API viewer bring inline styles and evaluate expressions.
LOOSER = POLICY.replace(
    "default-src 'self'",
    "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'",
)
LOOSER_PATHS = ("/admin/", "/api/docs")


def content_security_policy(get_response: Next) -> Next:
    """No inline style or script on our own pages."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        looser = request.path.startswith(LOOSER_PATHS)
        response.setdefault("Content-Security-Policy", LOOSER if looser else POLICY)
        return response

    return middleware


def viewer_time_zone(get_response: Next) -> Next:
    """Times are shown in the zone that the browser names in the `tz` cookie."""

    def middleware(request: HttpRequest) -> HttpResponse:
        with timezone.override(zone_of(request.COOKIES.get("tz", settings.TIME_ZONE))):
            return get_response(request)

    return middleware


PAGES = ("job-detail", "group-detail", "failure-detail", "subject-detail", "job-list", "failure-list", "subject-list", "notifications")


def buttons_stand_on_pages(get_response: Next) -> Next:
    """The address of a button takes only what the button sends. Who opens it, as after signing in again, comes to its page."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if response.status_code != 405 or request.method != "GET" or request.path.startswith("/api/"):
            return response
        messages.info(request, "Nothing was changed: you had been signed out, or opened the address of a button. Press it again here.")
        return redirect(page_above(request.path))

    return middleware


def page_above(path: str) -> str:
    while path := path.rstrip("/").rpartition("/")[0]:
        try:
            if resolve(f"{path}/").url_name in PAGES:
                return f"{path}/"
        except Http404:
            continue
    return "/"


def one_language_for_programs(get_response: Next) -> Next:
    """The API answers in English, whatever the browser or library that asks would like."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/api/"):
            return get_response(request)
        with translation.override(SOURCE):
            return get_response(request)

    return middleware
