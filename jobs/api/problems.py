"""Errors as problem details (RFC 9457): what was wrong, and where."""

from http import HTTPStatus
from typing import Any

from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler


class Conflict(APIException):
    """The request does not fit the state of the job; nothing was changed."""

    status_code = 409
    default_code = "conflict"


def problem_details(error: Exception, context: dict[str, Any]) -> Response | None:
    response = exception_handler(error, context)
    if response is None:
        return None
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(response.status_code).phrase,
        "status": response.status_code,
    }
    if isinstance(error, ValidationError):
        body["detail"] = "The request has errors; nothing was made or changed."
        body["errors"] = response.data if isinstance(response.data, dict) else {"request": response.data}
    else:
        body["detail"] = str(response.data.get("detail", "")) if isinstance(response.data, dict) else ""
    response.data = body
    response.content_type = "application/problem+json"
    return response
