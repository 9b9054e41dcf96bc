"""In which shape a client of /v1 reads an error: OpenAI's, or Anthropic's; as a body, or as an event."""

from __future__ import annotations

from enum import Enum, auto

from serac_gateway.auth.api_keys import redacted
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.protocols.base import stream_event
from serac_gateway.errors import (
    GatewayError,
)


class ErrorShape(Enum):
    """Whose error object a client expects."""

    OPENAI = auto()
    RESPONSES = auto()
    """OpenAI's too; as an event it has a name and a number."""
    ANTHROPIC = auto()


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_shape(exchange: Exchange) -> ErrorShape:
    """By the path, and by the header that every client of Anthropic's sends."""
    path: bytes = exchange.scope["raw_path"]
    if path.startswith(b"/v1/messages") or exchange.header(b"anthropic-version") is not None:
        return ErrorShape.ANTHROPIC
    return ErrorShape.RESPONSES if path.startswith(b"/v1/responses") else ErrorShape.OPENAI


def error_body(exchange: Exchange, error: GatewayError) -> tuple[int, dict[str, object]]:
    """Status and body of `error` for this client."""
    status, body = openai_error(error)
    if error_shape(exchange) is not ErrorShape.ANTHROPIC:
        return status, body
    return status, {
        "type": "error",
        "error": {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": _members(body)["message"]},
        "request_id": exchange.request_id.decode(),
    }


def error_event(exchange: Exchange, error: GatewayError, number: int = 0) -> bytes:
    """`error` as the last event of a stream, the `number`-th if its API numbers events."""
    _, body = error_body(exchange, error)
    match error_shape(exchange):
        case ErrorShape.OPENAI:
            return stream_event(body)
        case ErrorShape.ANTHROPIC:
            return stream_event(body, "error")
        case ErrorShape.RESPONSES:
            # The documented event has the members flat; OpenAI sends them under `error`, where its client
            # looks for them.
            flat = {name: value for name, value in _members(body).items() if name != "type"}
            return stream_event({"type": "error", "sequence_number": number, **flat, **body}, "error")


def _members(body: dict[str, object]) -> dict[str, object]:
    members = body["error"]
    assert isinstance(members, dict)
    return members


def openai_error(error: GatewayError) -> tuple[int, dict[str, object]]:
    """Status and body of `error` in OpenAI's shape."""
    return error.status, {
        "error": {
            "message": redacted(error.message),
            "type": error.openai_type,
            "param": error.field,
            "code": error.code,
        }
    }
