"""Every error that the gateway raises on purpose.

    GatewayError
    ├── ConfigError                 exits at start, code 2
    ├── ReloadRefusedError          409
    ├── InvalidRequestError         400
    ├── AuthenticationError         401
    ├── PermissionDeniedError       403
    ├── RateLimitedError            429
    ├── ApiKeyNotFoundError         404
    ├── RequestNotFoundError        404
    ├── EditNotFoundError           404
    │   └── EditPurgedError         410
    ├── EditConflictError           409
    │   ├── ContradictionError      409
    │   └── IdempotencyKeyReusedError 422
    ├── PreconditionFailedError     412
    ├── PreconditionRequiredError   428
    ├── UpstreamError               502
    │   └── UpstreamTimeoutError    504
    ├── LoopDetectedError           508
    ├── StoreUnavailableError       503
    └── ModelUnavailableError       503

A message names the bad value, what is allowed and what to do. The HTTP shapes are made in one
place, http/error_responses.py. An upstream's own status is no error: it passes through.
"""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """Base of all errors that the gateway raises on purpose.

    Attributes:
        message: One sentence or two for the person who has to act on it.
        field: The name of the offending field, parameter or header, if there is one.
        details: Further JSON-ready facts, such as ``{"value": 300, "limit": 256}``.
    """

    def __init__(
        self, message: str, *, field: str | None = None, details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.details: Mapping[str, object] = dict(details or {})


class ConfigError(GatewayError):
    """The configuration cannot be used: unknown key, missing weights, unreachable store at start."""


class ReloadRefusedError(GatewayError):
    """The changed configuration or weights cannot be taken up while the gateway runs; all stays as it is."""


class InvalidRequestError(GatewayError):
    """The request is malformed or breaks a named limit."""


class AuthenticationError(GatewayError):
    """No API key, or one that is not known."""


class PermissionDeniedError(GatewayError):
    """The API key's role or namespace does not allow the call."""


class RateLimitedError(GatewayError):
    """The API key's requests are spent for now; details["retry_after_s"] tells until when."""


class ApiKeyNotFoundError(GatewayError):
    """No API key of that id among those that the caller may see."""


class RequestNotFoundError(GatewayError):
    """No request of that id among those that this process remembers."""


class EditNotFoundError(GatewayError):
    """No edit of that id (or no such version of it) in the namespace."""


class EditPurgedError(EditNotFoundError):
    """The edit was purged: that it existed is known, and nothing of what it said."""


class EditConflictError(GatewayError):
    """The edit contradicts stored state: its id exists."""


class ContradictionError(EditConflictError):
    """The edit answers a question otherwise than edits in force, and the namespace refuses that."""


class IdempotencyKeyReusedError(EditConflictError):
    """The Idempotency-Key was used with another request body."""


class PreconditionFailedError(GatewayError):
    """If-Match names a version that is no longer current."""


class PreconditionRequiredError(GatewayError):
    """The call changes an edit and carries no If-Match."""


class UpstreamError(GatewayError):
    """The base model's server could not be reached or broke off."""


class UpstreamTimeoutError(UpstreamError):
    """The base model's server did not connect or answer in time."""


class LoopDetectedError(GatewayError):
    """A request came back to a gateway that had passed it on, or went through too many."""


class StoreUnavailableError(GatewayError):
    """Redis or Valkey cannot be reached, or refuses writes."""


class ModelUnavailableError(GatewayError):
    """A model is missing, still loading, or failed."""
