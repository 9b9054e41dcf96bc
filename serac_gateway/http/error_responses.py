"""From an error to an HTTP response: one table, two shapes, and the headers that go with it.

On /v1 a client expects OpenAI's error object, on /serac/v1 a problem (RFC 9457). Status and wording of
every GatewayError stand in `_RESPONSES` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

import msgspec

from serac_gateway.auth.api_keys import redacted
from serac_gateway.errors import (
    ApiKeyNotFoundError,
    AuthenticationError,
    ConfigError,
    ContradictionError,
    EditConflictError,
    EditNotFoundError,
    EditPurgedError,
    GatewayError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    LoopDetectedError,
    ModelUnavailableError,
    PermissionDeniedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    RateLimitedError,
    ReloadRefusedError,
    RequestNotFoundError,
    StoreUnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
)

PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
"""What a 503 tells a client to wait: a store that restarts or a model that loads needs seconds."""


class _ErrorResponse(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    code: str
    """OpenAI's `code`, and with dashes the problem's `type`."""
    openai_type: str
    title: str


def _response(status: int, code: str, openai_type: str, title: str) -> _ErrorResponse:
    return _ErrorResponse(status=status, code=code, openai_type=openai_type, title=title)


_RESPONSES: dict[type[GatewayError], _ErrorResponse] = {
    GatewayError: _response(500, "internal_error", "server_error", "The gateway failed"),
    ConfigError: _response(500, "misconfigured", "server_error", "The gateway is misconfigured"),
    ReloadRefusedError: _response(409, "reload_refused", "conflict_error", "Nothing was reloaded"),
    InvalidRequestError: _response(
        400, "invalid_request", "invalid_request_error", "The request is not valid"
    ),
    AuthenticationError: _response(
        401, "invalid_api_key", "authentication_error", "An API key is needed"
    ),
    PermissionDeniedError: _response(
        403, "permission_denied", "permission_error", "The API key does not allow this"
    ),
    RateLimitedError: _response(
        429, "rate_limit_exceeded", "rate_limit_error", "The API key's requests are spent for now"
    ),
    RequestNotFoundError: _response(
        404, "request_not_found", "not_found_error", "The request is not remembered"
    ),
    ApiKeyNotFoundError: _response(404, "api_key_not_found", "not_found_error", "There is no such API key"),
    EditNotFoundError: _response(404, "edit_not_found", "not_found_error", "There is no such edit"),
    EditPurgedError: _response(410, "edit_purged", "not_found_error", "The edit was purged"),
    EditConflictError: _response(
        409, "edit_conflict", "conflict_error", "The edit contradicts what is stored"
    ),
    ContradictionError: _response(
        409, "edit_contradicts", "conflict_error", "The edit contradicts edits in force"
    ),
    IdempotencyKeyReusedError: _response(
        422, "idempotency_key_reused", "invalid_request_error", "The idempotency key was used before"
    ),
    PreconditionFailedError: _response(
        412, "precondition_failed", "conflict_error", "The edit has changed meanwhile"
    ),
    PreconditionRequiredError: _response(
        428, "precondition_required", "invalid_request_error", "The header If-Match is needed"
    ),
    UpstreamError: _response(502, "upstream_unreachable", "server_error", "The upstream cannot be reached"),
    UpstreamTimeoutError: _response(504, "upstream_timeout", "server_error", "The upstream took too long"),
    LoopDetectedError: _response(
        508, "loop_detected", "invalid_request_error", "The request goes round in a loop"
    ),
    StoreUnavailableError: _response(
        503, "store_unavailable", "server_error", "The edit store is unavailable"
    ),
    ModelUnavailableError: _response(503, "model_unavailable", "server_error", "A model is unavailable"),
}  # fmt: skip


def problem(error: GatewayError) -> tuple[int, dict[str, object]]:
    """Status and body of `error` as a problem: type, title, status, detail, field and its details."""
    response = _RESPONSES[type(error)]
    body = problem_body(response.status, response.code, response.title, redacted(error.message))
    if error.field is not None:
        body["field"] = error.field
    details = {
        name: redacted(value) if isinstance(value, str) else value for name, value in error.details.items()
    }
    return response.status, {**details, **body}


def error_headers(status: int, details: Mapping[str, object]) -> dict[str, str]:
    """The headers that an error of `status` has besides its content type."""
    if status == HTTPStatus.UNAUTHORIZED:
        return {"www-authenticate": "Bearer"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"retry-after": str(RETRY_AFTER_S)}
    if status == HTTPStatus.TOO_MANY_REQUESTS and "retry_after_s" in details:
        wait_s = cast("int", details["retry_after_s"])
        return {
            "retry-after": str(wait_s),
            "x-ratelimit-limit-requests": str(details["limit"]),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{wait_s}s",
        }
    return {}


def problem_body(status: int, code: str, title: str, detail: str) -> dict[str, object]:
    """The members that every problem has."""
    name = code.replace("_", "-")
    return {"type": f"urn:serac:problem:{name}", "title": title, "status": status, "detail": detail}
