"""Problems (RFC 9457): what Litestar answers to an exception of a handler, a guard or its own routing."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.routes import HTTPRoute
from litestar.types import ExceptionHandlersMap

from serac_gateway.auth.api_keys import redacted
from serac_gateway.control_plane.http.bodies import allowed_values, limit_in
from serac_gateway.errors import (
    GatewayError,
    StoreUnavailableError,
    error_headers,
)
from serac_gateway.observability.metrics import Instruments

log = logging.getLogger(__name__)

_MAX_QUOTED_CHARS = 200
_INFERENCE_PATH = re.compile(
    r"/(chat|completions|responses|messages|models|embeddings|audio|images|moderations|rerank|score|files)\b"
)
"""Paths of the OpenAI-compatible API for which a client's base URL lacks /v1."""
_AnyRequest = Request[Any, Any, Any]


def exception_handlers(instruments: Instruments) -> ExceptionHandlersMap:
    """Handlers that answer every exception with a problem; store failures are counted in `instruments`."""

    def on_gateway_error(request: _AnyRequest, exc: GatewayError) -> Response[dict[str, object]]:
        if isinstance(exc, StoreUnavailableError):
            instruments.add_store_error("control plane")
        return _on_gateway_error(request, exc)

    return {
        GatewayError: on_gateway_error,
        HTTPException: _on_http_exception,
        Exception: _on_unexpected,
    }


def _on_gateway_error(request: _AnyRequest, exc: GatewayError) -> Response[dict[str, object]]:
    status, body = problem(exc)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("%s %s: %s", request.method, redacted(request.url.path), redacted(exc.message))
    return _response(status, body, error_headers(status, exc.details))


def _on_http_exception(request: _AnyRequest, exc: HTTPException) -> Response[dict[str, object]]:
    status = HTTPStatus(exc.status_code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _on_unexpected(request, exc)
    body = problem_body(status, status.phrase.lower().replace(" ", "_"), status.phrase, exc.detail)
    headers = dict(exc.headers or {})
    if status is HTTPStatus.NOT_FOUND:
        body |= _nothing_at(request.url.path)
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(_methods_at(request))
        body["detail"] = (
            f"{request.method} is not possible at {_abbreviated(request.url.path)!r}; use {headers['allow']}"
        )
    elif status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = request.route_handler.resolve_request_max_body_size()
        body |= {"field": "body", "limit": limit, "detail": f"the body is larger than {limit:,} bytes"}
    elif isinstance(exc, ValidationException) and isinstance(exc.extra, list) and exc.extra:
        body |= _parameter_problem(request, exc.extra[0])
    return _response(status, body, headers)


def _nothing_at(path: str) -> dict[str, object]:
    """The problem's detail; for a client of OpenAI's API, which reads no problems, its `error` too."""
    short = _abbreviated(path)
    if not _INFERENCE_PATH.match(path):
        what_there_is = "/console has pages, /serac/schema lists the calls, and /v1 goes to the chat model"
        return {"detail": f"there is nothing at {short!r}; {what_there_is}"}
    message = (
        f"there is nothing at {short!r}; the OpenAI-compatible API is below /v1: end the client's base"
        f" URL with /v1, as in {_abbreviated('/v1' + path)!r}"
    )
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "not_found"}
    return {"detail": message, "error": error}


def _on_unexpected(request: _AnyRequest, exc: Exception) -> Response[dict[str, object]]:
    log.error("%s %s failed", request.method, redacted(request.url.path), exc_info=exc)
    detail = "the gateway failed on this request; its log says why"
    return _response(500, problem_body(500, "internal_error", "The gateway failed", detail))


def _parameter_problem(request: _AnyRequest, violation: dict[str, Any]) -> dict[str, object]:
    """The first bad parameter as Litestar describes it, under the name that clients use."""
    parameter, message = str(violation.get("key", "")), str(violation.get("message", ""))
    declared = request.route_handler.parsed_fn_signature.parameters.get(parameter)
    if parameter == "data":
        return {"field": "body", "detail": "the body is empty; send a JSON object"}
    if declared is None:
        return {"detail": message}
    name = getattr(declared.kwarg_definition, "name", None) or parameter
    body: dict[str, object] = {"field": name}
    value = request.query_params.get(name)
    if value is not None:
        body["value"] = _abbreviated(value)
        if repr(value) not in message:
            message += f", here {_abbreviated(value)!r}"
    if limit := limit_in(message):
        body["limit"] = limit
    if allowed := allowed_values(declared.annotation):
        message += f"; use one of {', '.join(allowed)}"
    return {**body, "detail": f"{name}: {message}"}


def _methods_at(request: _AnyRequest) -> list[str]:
    path = request.url.path.rstrip("/") or "/"
    return sorted(
        {
            str(method)
            for route in request.app.routes
            if isinstance(route, HTTPRoute)
            and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", route.path_format), path)
            for method in route.methods
        }
    )


def _response(
    status: int, body: dict[str, object], headers: dict[str, str] | None = None
) -> Response[dict[str, object]]:
    return Response(body, status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


def _abbreviated(text: str) -> str:
    return redacted(text)[:_MAX_QUOTED_CHARS]


PROBLEM_MEDIA_TYPE = "application/problem+json"


def problem(error: GatewayError) -> tuple[int, dict[str, object]]:
    """Status and body of `error` as a problem: type, title, status, detail, field and its details."""
    body = problem_body(error.status, error.code, error.title, redacted(error.message))
    if error.field is not None:
        body["field"] = error.field
    details = {
        name: redacted(value) if isinstance(value, str) else value for name, value in error.details.items()
    }
    return error.status, {**details, **body}


def problem_body(status: int, code: str, title: str, detail: str) -> dict[str, object]:
    """The members that every problem has."""
    name = code.replace("_", "-")
    return {"type": f"urn:serac:problem:{name}", "title": title, "status": status, "detail": detail}
