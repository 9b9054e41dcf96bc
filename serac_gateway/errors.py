"""Every error that the gateway raises on purpose.

    GatewayError
    ├── ConfigError                 exits at start, code 2
    ├── ReloadRefusedError          409
    ├── InvalidRequestError         400
    │   └── UnreadableError         400
    │       ├── TooLongToReadError  413
    │       └── UnsupportedEncodingError 415
    │           └── UnsupportedCharacterSetError 415
    ├── AuthenticationError         401
    │   └── InvalidTokenError       401
    ├── PermissionDeniedError       403
    │   ├── ForeignHostError        403
    │   └── ForeignOriginError      403
    ├── UnsupportedMediaTypeError   415
    ├── RateLimitedError            429
    ├── ApiKeyNotFoundError         404
    ├── RequestNotFoundError        404
    ├── WebhookNotFoundError        404
    ├── EditNotFoundError           404
    │   └── EditPurgedError         410
    ├── EditConflictError           409
    │   ├── ContradictionError      409
    │   ├── DamagedRecordError      409
    │   └── IdempotencyKeyReusedError 422
    ├── ProposalNotFoundError       404
    ├── ProposalConflictError       409
    │   └── ApprovalNeededError     409
    ├── PreconditionFailedError     412
    ├── PreconditionRequiredError   428
    ├── UpstreamError               502
    │   └── UpstreamTimeoutError    504
    ├── ReplyWithheldError          403
    ├── LoopDetectedError           508
    ├── WebSocketRefusedError       426
    ├── StoreUnavailableError       503
    ├── IdentityProviderError       503
    ├── NamespaceQuarantinedError   503
    ├── BodyMemoryError             503
    └── ModelUnavailableError       503
        └── AnswerDeclinedError     503

A message names the bad value, what is allowed and what to do. Each class carries its HTTP status, code and
title; the bodies are written by data_plane/protocols/errors.py (OpenAI's and Anthropic's shapes) and
control_plane/http/problems.py (RFC 9457). An upstream's own status is no error: it passes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar, cast

RETRY_AFTER_S = 2
"""The Retry-After of a 503: a restarting store or a loading model needs seconds."""


class GatewayError(Exception):
    """Base of all errors that the gateway raises on purpose.

    Attributes:
        message: One or two sentences for the person who has to act on it.
        field: The name of the offending field, parameter or header, if there is one.
        details: Further JSON-ready facts, such as ``{"value": 300, "limit": 256}``.
    """

    status: ClassVar[int] = 500
    """The HTTP status."""
    code: ClassVar[str] = "internal_error"
    """OpenAI's `code`; with dashes the `type` of a problem (RFC 9457)."""
    openai_type: ClassVar[str] = "server_error"
    """OpenAI's `type`."""
    title: ClassVar[str] = "The gateway failed"
    """A problem's title."""

    def __init__(
        self, message: str, *, field: str | None = None, details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.details: Mapping[str, object] = dict(details or {})


class ConfigError(GatewayError):
    """The configuration cannot be used: unknown key, missing weights, unreachable store at start."""

    code = "misconfigured"
    title = "The gateway is misconfigured"


class ReloadRefusedError(GatewayError):
    """The changed configuration or weights cannot be applied while the gateway runs; nothing changes."""

    status = 409
    code = "reload_refused"
    openai_type = "conflict_error"
    title = "Nothing was reloaded"


class InvalidRequestError(GatewayError):
    """The request is malformed or breaks a named limit."""

    status = 400
    code = "invalid_request"
    openai_type = "invalid_request_error"
    title = "The request is not valid"


class UnreadableError(InvalidRequestError):
    """The text of a request cannot be read, so nobody can decide on it; details["reason"] says why.

    `routing.on_unreadable` says whether such a request is refused or passed on.
    """

    code = "unreadable_request"
    title = "The request cannot be read"
    is_avoidable: ClassVar[bool] = False
    """Whether the same request could be sent in a form that is read, so that it is refused for facts too."""


class TooLongToReadError(UnreadableError):
    """The request is longer than what is read."""

    status = 413
    code = "request_too_large"
    title = "The request is too long to be read"


class UnsupportedEncodingError(UnreadableError):
    """The body is in an encoding or a character set that is not read."""

    status = 415
    code = "unsupported_encoding"
    title = "The body's encoding is not read"


class UnsupportedCharacterSetError(UnsupportedEncodingError):
    """The body is JSON in another character set than UTF-8."""

    code = "unsupported_character_set"
    title = "The body's character set is not read"
    is_avoidable = True


class AuthenticationError(GatewayError):
    """The API key is missing or unknown."""

    status = 401
    code = "invalid_api_key"
    openai_type = "authentication_error"
    title = "An API key is needed"


class InvalidTokenError(AuthenticationError):
    """A bearer token is not accepted."""

    code = "invalid_token"
    title = "The token is not accepted"


class PermissionDeniedError(GatewayError):
    """The API key's role or namespace does not allow the call."""

    status = 403
    code = "permission_denied"
    openai_type = "permission_error"
    title = "The API key does not allow this"


class ForeignHostError(PermissionDeniedError):
    """The request is for a host name that is not this gateway's, as a rebound one."""

    code = "foreign_host"
    title = "The host is not this gateway"


class ForeignOriginError(PermissionDeniedError):
    """The request comes from a web page that may not call the gateway."""

    code = "foreign_origin"
    title = "The web page may not call this gateway"


class UnsupportedMediaTypeError(GatewayError):
    """The body's content type is not one that the call takes."""

    status = 415
    code = "unsupported_media_type"
    openai_type = "invalid_request_error"
    title = "The content type is not taken"


class RateLimitedError(GatewayError):
    """The API key's requests are spent for now; details["retry_after_s"] is the wait in seconds."""

    status = 429
    code = "rate_limit_exceeded"
    openai_type = "rate_limit_error"
    title = "The API key's requests are spent for now"


class ApiKeyNotFoundError(GatewayError):
    """No API key visible to the caller has that id."""

    status = 404
    code = "api_key_not_found"
    openai_type = "not_found_error"
    title = "There is no such API key"


class RequestNotFoundError(GatewayError):
    """None of the requests that this process remembers has that id."""

    status = 404
    code = "request_not_found"
    openai_type = "not_found_error"
    title = "The request is not remembered"


class WebhookNotFoundError(GatewayError):
    """The configuration has no webhook of that name."""

    status = 404
    code = "webhook_not_found"
    openai_type = "not_found_error"
    title = "There is no such webhook"


class EditNotFoundError(GatewayError):
    """The namespace has no edit of that id, or no such version of it."""

    status = 404
    code = "edit_not_found"
    openai_type = "not_found_error"
    title = "There is no such edit"


class EditPurgedError(EditNotFoundError):
    """The edit was purged: only its existence is still known, not its content."""

    status = 410
    code = "edit_purged"
    title = "The edit was purged"


class EditConflictError(GatewayError):
    """The edit contradicts stored state: its id exists."""

    status = 409
    code = "edit_conflict"
    openai_type = "conflict_error"
    title = "The edit contradicts what is stored"


class ContradictionError(EditConflictError):
    """The edit contradicts edits in force, and the namespace's policy refuses that."""

    code = "edit_contradicts"
    title = "The edit contradicts edits in force"


class IdempotencyKeyReusedError(EditConflictError):
    """The Idempotency-Key was used with another request body."""

    status = 422
    code = "idempotency_key_reused"
    openai_type = "invalid_request_error"
    title = "The idempotency key was used before"


class ProposalNotFoundError(GatewayError):
    """The namespace has no proposal of that id."""

    status = 404
    code = "proposal_not_found"
    openai_type = "not_found_error"
    title = "There is no such proposal"


class ProposalConflictError(GatewayError):
    """The proposal is closed or stale, so that this can no longer be done with it."""

    status = 409
    code = "proposal_conflict"
    openai_type = "conflict_error"
    title = "The proposal does not allow this any more"


class ApprovalNeededError(ProposalConflictError):
    """The namespace demands the agreement of others, and this call cannot wait for it."""

    code = "approval_needed"
    title = "Others must agree to this"


class DamagedRecordError(EditConflictError):
    """What is stored cannot be read, or says that it belongs elsewhere; `serac store repair` mends it."""

    code = "edit_damaged"
    title = "What is stored is damaged"


class PreconditionFailedError(GatewayError):
    """If-Match names a version that is no longer current."""

    status = 412
    code = "precondition_failed"
    openai_type = "conflict_error"
    title = "The edit has changed meanwhile"


class PreconditionRequiredError(GatewayError):
    """The call changes an edit and has no If-Match."""

    status = 428
    code = "precondition_required"
    openai_type = "invalid_request_error"
    title = "The header If-Match is needed"


class UpstreamError(GatewayError):
    """The base model's server could not be reached, or broke its response off."""

    status = 502
    code = "upstream_unreachable"
    title = "The upstream cannot be reached"


class UpstreamTimeoutError(UpstreamError):
    """The base model's server did not connect or answer in time."""

    status = 504
    code = "upstream_timeout"
    title = "The upstream took too long"


class ReplyWithheldError(GatewayError):
    """The base model's reply holds a value that a suppression keeps back, and has no form for a refusal."""

    status = 403
    code = "content_filter"
    openai_type = "invalid_request_error"
    title = "The reply is withheld"


class LoopDetectedError(GatewayError):
    """A request came back to a gateway that had forwarded it, or went through too many gateways."""

    status = 508
    code = "loop_detected"
    openai_type = "invalid_request_error"
    title = "The request goes round in a loop"


class WebSocketRefusedError(GatewayError):
    """The request opens a WebSocket, and only HTTP is served."""

    status = 426
    code = "websocket_not_served"
    openai_type = "invalid_request_error"
    title = "WebSockets are not served"


class StoreUnavailableError(GatewayError):
    """Redis or Valkey cannot be reached, or refuses writes."""

    status = 503
    code = "store_unavailable"
    title = "The edit store is unavailable"


class ModelUnavailableError(GatewayError):
    """A model is missing, still loading, or failed."""

    status = 503
    code = "model_unavailable"
    title = "A model is unavailable"


class AnswerDeclinedError(ModelUnavailableError):
    """The counterfactual model finds that the edit does not answer the query.

    Raised before the first piece of an answer. No failure: the base model answers then.
    """

    code = "answer_declined"
    title = "The edit does not answer this query"


class IdentityProviderError(GatewayError):
    """The identity provider does not answer as it should, so that a token or login cannot be checked."""

    status = 503
    code = "identity_provider_unavailable"
    title = "The identity provider does not answer"


class NamespaceQuarantinedError(GatewayError):
    """A suppression of the namespace may be unreadable, so that no request may pass to the base model."""

    status = 503
    code = "namespace_quarantined"
    title = "The namespace is quarantined"


class BodyMemoryError(GatewayError):
    """The bodies of all requests together take up too much memory."""

    status = 503
    code = "too_much_body_memory"
    title = "Too many large request bodies"


def error_headers(status: int, details: Mapping[str, object]) -> dict[str, str]:
    """The headers of an error response besides its content type, from its status and the error's details."""
    if status == HTTPStatus.UNAUTHORIZED:
        fault = ', error="invalid_token"' if details.get("reason") == "invalid token" else ""
        return {"www-authenticate": f'Bearer realm="serac"{fault}' if fault else "Bearer"}
    if status == HTTPStatus.UPGRADE_REQUIRED:
        return {"upgrade": "HTTP/1.1"}
    wait_s = cast("int | None", details.get("retry_after_s"))
    if status == HTTPStatus.TOO_MANY_REQUESTS and wait_s is not None:
        return {
            "retry-after": str(wait_s),
            "x-ratelimit-limit-requests": str(details["limit"]),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{wait_s}s",
        }
    if status == HTTPStatus.SERVICE_UNAVAILABLE and wait_s is None:
        wait_s = RETRY_AFTER_S
    return {} if wait_s is None else {"retry-after": str(wait_s)}
