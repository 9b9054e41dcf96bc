"""From an error to an HTTP response: one table, two shapes.

On /v1 a client expects OpenAI's error object, on /serac/v1 a problem (RFC 9457). Status and wording of
every GatewayError stand in `_RESPONSES` and nowhere else.
"""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from serac_gateway.errors import (
    AuthenticationError,
    ConfigError,
    EditConflictError,
    EditNotFoundError,
    GatewayError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    ModelUnavailableError,
    PermissionDeniedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    StoreUnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
)

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
"""What a 503 tells a client to wait: a store that restarts or a model that loads needs seconds."""

_MAX_SHOWN_CHARS = 200
_LIMIT = re.compile(r"(?:[<>]=?|length [<>]=?) (-?\d+)")


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
    InvalidRequestError: _response(
        400, "invalid_request", "invalid_request_error", "The request is not valid"
    ),
    AuthenticationError: _response(
        401, "invalid_api_key", "authentication_error", "An API key is needed"
    ),
    PermissionDeniedError: _response(
        403, "permission_denied", "permission_error", "The API key does not allow this"
    ),
    EditNotFoundError: _response(404, "edit_not_found", "not_found_error", "There is no such edit"),
    EditConflictError: _response(
        409, "edit_conflict", "conflict_error", "The edit contradicts what is stored"
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
    StoreUnavailableError: _response(
        503, "store_unavailable", "server_error", "The edit store is unavailable"
    ),
    ModelUnavailableError: _response(503, "model_unavailable", "server_error", "A model is unavailable"),
}  # fmt: skip


def openai_error(error: GatewayError) -> tuple[int, dict[str, object]]:
    """Status and body of `error` in OpenAI's shape."""
    response = _response_of(error)
    return response.status, {
        "error": {
            "message": error.message,
            "type": response.openai_type,
            "param": error.field,
            "code": response.code,
        }
    }


def problem(error: GatewayError) -> tuple[int, dict[str, object]]:
    """Status and body of `error` as a problem: type, title, status, detail, field and its details."""
    response = _response_of(error)
    body = _problem_body(response.status, response.code, response.title, error.message)
    if error.field is not None:
        body["field"] = error.field
    return response.status, {**error.details, **body}


def problem_of_http_exception(exc: HTTPException) -> dict[str, object]:
    """Litestar's own refusals (no such path, wrong method, body too large, bad parameter) as a problem."""
    phrase = HTTPStatus(exc.status_code).phrase
    body = _problem_body(exc.status_code, phrase.lower().replace(" ", "_"), phrase, exc.detail)
    if isinstance(exc, ValidationException) and isinstance(exc.extra, list) and exc.extra:
        first: dict[str, Any] = exc.extra[0]
        field = str(first.get("key", "")) or None
        message = str(first.get("message", exc.detail))
        body["detail"] = f"{field}: {message}" if field else message
        if field:
            body["field"] = field
        if limit := limit_in(message):
            body["limit"] = limit
    return body


def limit_in(message: str) -> int | None:
    """The limit that a msgspec message names: 5 in "Expected `int` <= 5"; None if it names none."""
    found = _LIMIT.search(message)
    return int(found[1]) if found else None


def _problem_body(status: int, code: str, title: str, detail: str) -> dict[str, object]:
    name = code.replace("_", "-")
    return {"type": f"urn:serac:problem:{name}", "title": title, "status": status, "detail": detail}


def _response_of(error: GatewayError) -> _ErrorResponse:
    return next(_RESPONSES[base] for base in type(error).__mro__ if base in _RESPONSES)


def _problem_response(
    status: int, body: dict[str, object], headers: dict[str, str] | None = None
) -> Response[dict[str, object]]:
    headers = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("retry-after", str(RETRY_AFTER_S))
    return Response(body, status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


def _on_gateway_error(request: Request[Any, Any, Any], exc: GatewayError) -> Response[dict[str, object]]:
    status, body = problem(exc)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("%s %s: %s", request.method, request.url.path, exc.message)
    return _problem_response(status, body)


def _on_http_exception(request: Request[Any, Any, Any], exc: HTTPException) -> Response[dict[str, object]]:
    if exc.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _on_unexpected(request, exc)
    body = problem_of_http_exception(exc)
    field = body.get("field")
    if isinstance(field, str):
        field = body["field"] = _name_on_the_wire(request, field)
        value = (
            request.query_params.get(field) or request.path_params.get(field) or request.headers.get(field)
        )
        if value is not None:
            body["value"] = str(value)[:_MAX_SHOWN_CHARS]
    return _problem_response(exc.status_code, body, exc.headers)


def _name_on_the_wire(request: Request[Any, Any, Any], parameter: str) -> str:
    """The name of a handler's parameter as clients know it: "state" for `edit_state`."""
    declared = request.route_handler.parsed_fn_signature.parameters.get(parameter)
    definition = declared.kwarg_definition if declared else None
    return getattr(definition, "name", None) or parameter


def _on_unexpected(request: Request[Any, Any, Any], exc: Exception) -> Response[dict[str, object]]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    detail = "the gateway failed on this request; its log tells why, under this response's x-request-id"
    return _problem_response(500, _problem_body(500, "internal_error", "The gateway failed", detail))


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    GatewayError: _on_gateway_error,
    HTTPException: _on_http_exception,
    Exception: _on_unexpected,
}
"""For Litestar, everywhere but on /v1, whose handler makes its own error bodies with `openai_error`."""
