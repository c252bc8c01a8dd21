"""Errors in the shape of OpenAI's protocol, with the right status and one sentence."""

from __future__ import annotations

import re

from starlette.responses import Response

from charloom.errors import (
    CharloomError,
    ModelError,
    QueueFullError,
    SettingsError,
    TextError,
    UnknownCharacterError,
)
from charloom.server.wire import to_json, without_surrogates

LONGEST = 1000
"""Characters of a message: it may quote what the client sent."""

RETRY_SECONDS = 1
"""After which a client may ask again, if the queue is full: as long as many texts take."""

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
"""The `type` of an error by its status; below 500, all others are invalid requests."""


class ApiError(Exception):
    """An error that a client receives.

    status: of the response; message: what must hold, what was found, what to do; code: a word for programs;
    retry_seconds: after which the client may try again.
    """

    def __init__(self, status: int, message: str, code: str | None = None, retry_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.retry_seconds = status, message, code, retry_seconds


def api_error(error: Exception) -> ApiError:
    """The error that a client receives for one of charloom's errors. Any other is a bug in charloom."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return ApiError(429, str(error), "queue_full", retry_seconds=RETRY_SECONDS)
    if isinstance(error, UnknownCharacterError):
        return ApiError(400, str(error), "unknown_character")
    if isinstance(error, SettingsError | TextError):
        return ApiError(400, str(error))
    if isinstance(error, ModelError):
        return ApiError(422, str(error), "nothing_to_choose")
    if isinstance(error, CharloomError):
        return ApiError(503, str(error))
    return ApiError(500, f"this is a bug in charloom, {type(error).__name__}; the log of the server shows where")


def body_of(error: ApiError) -> dict[str, object]:
    """The error as JSON. `param` is the argument that the message names first, if it names one."""
    message = without_surrogates(error.message)
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    named = re.match(r"`([A-Za-z_]\w*)", message)
    kind = KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": named and named[1], "code": error.code}}


def error_response(error: ApiError) -> Response:
    """The response for an error."""
    headers = {} if error.retry_seconds is None else {"retry-after": str(error.retry_seconds)}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(to_json(body_of(error)), error.status, headers, media_type="application/json")
