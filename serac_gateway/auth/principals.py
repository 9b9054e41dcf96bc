"""Principals: what a key or token may do, and how often. Pure: no I/O, no clock but the one passed in."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import DEFAULT_NAMESPACE, check_namespace
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import InvalidRequestError, PermissionDeniedError

EVERY_NAMESPACE = "*"
NAMESPACE_HEADER = b"x-serac-namespace"


class Role(StrEnum):
    """What a key may do. Each role may do all that those before it may."""

    CHAT = "chat"
    """Ask the chat model: /v1."""
    EDIT = "edit"
    """Read and change edits, ask for decisions, read log and counts."""
    APPROVE = "approve"
    """Agree to what others propose, or refuse it, where a namespace demands that."""
    ADMIN = "admin"
    """Keys, and what cannot be undone."""

    def allows(self, needed: Role) -> bool:
        """Whether a key of this role may do what needs `needed`."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS = {role: rank for rank, role in enumerate(Role)}


class TokenHolder(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the identity provider says that a token is about."""

    issuer: str
    subject: str
    """Unique and lasting at the issuer; nobody chooses their own."""
    other_names: tuple[str, ...] = ()
    """What else the token calls them by, folded: an API key with such a name counts as theirs."""
    groups: tuple[str, ...] = ()
    """Those that have a role here."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request."""

    key_id: str | None
    """Of the API key; `holder_id` of a token's holder; None: neither was demanded and none was given."""
    name: str | None
    role: Role
    namespaces: tuple[str, ...]
    labels: dict[str, str] = {}
    """That its key was made with, or its token's claims give; see `routing.audience_from`."""
    holder: TokenHolder | None = None
    """None: it is an API key's, or nobody's."""

    @property
    def author(self) -> str | None:
        """How edits name their author; None without a key or token."""
        if self.holder is not None:
            return f"{self.name} (subject {self.holder.subject} of {self.holder.issuer})"
        return None if self.key_id is None else f"{self.name} (key {self.key_id})"

    def may_use(self, *namespaces: str) -> bool:
        """Whether all of `namespaces` (``"*"``: every one) are within this one's."""
        return EVERY_NAMESPACE in self.namespaces or set(namespaces) <= set(self.namespaces)

    def require(self, role: Role) -> None:
        """Return if `role` is allowed.

        Raises:
            PermissionDeniedError: It is not.
        """
        if not self.role.allows(role):
            raise PermissionDeniedError(
                f"this needs an API key of role {role.value!r}, and this one's role is {self.role.value!r};"
                " ask an admin for another key"
                if self.holder is None
                else f"this needs role {role.value!r}, and the token's groups give {self.role.value!r} here;"
                " ask an admin for another group at the identity provider",
                details={"value": self.role.value, "needed": role.value},
            )

    def namespace(self, requested: str | None) -> str:
        """The namespace that a request for `requested` uses; None: the request names none.

        Raises:
            InvalidRequestError: It is no name, or it is None and the key has several.
            PermissionDeniedError: It is not the key's, whether it exists or not.
        """
        field = NAMESPACE_HEADER.decode()
        if requested is None:
            if EVERY_NAMESPACE in self.namespaces:
                return DEFAULT_NAMESPACE
            if len(self.namespaces) == 1:
                return self.namespaces[0]
            raise InvalidRequestError(
                f"the API key has several namespaces; name one of {', '.join(self.namespaces)} in the header"
                f" {field}",
                field=field,
            )
        try:
            check_namespace(requested)
        except InvalidRequestError as error:
            raise InvalidRequestError(error.message, field=field, details=error.details) from error
        if not self.may_use(requested):
            raise PermissionDeniedError(
                f"the API key does not allow namespace {requested!r}; it allows {', '.join(self.namespaces)}",
                field=field,
                details={"value": requested},
            )
        return requested


def holder_id(issuer: str, subject: str) -> str:
    """A short name for the holder of tokens, for logs and metrics: equal for all tokens about one person."""
    return f"oidc-{hashlib.sha256(f'{issuer} {subject}'.encode()).hexdigest()[:16]}"


def requested_namespace(headers: Headers) -> str | None:
    """The namespace that a request names in its header; None if it names none.

    Raises:
        InvalidRequestError: It names one in several headers.
    """
    values = [value for name, value in headers if name == NAMESPACE_HEADER]
    if len(values) > 1:
        field = NAMESPACE_HEADER.decode()
        raise InvalidRequestError(f"{len(values)} headers {field} were sent; send one", field=field)
    return values[0].decode("latin-1") if values else None


ANYONE = Principal(key_id=None, name=None, role=Role.ADMIN, namespaces=(EVERY_NAMESPACE,))
"""The sender of a request without a key where none is demanded."""


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """A token bucket after a request: as many tokens as requests a minute, refilled evenly."""

    tokens: float
    at_s: float
    """On any clock that does not go back."""
    wait_s: float
    """How long until the request would be allowed; 0: it is."""


def allowance(before: Allowance | None, *, requests_per_minute: int, now_s: float) -> Allowance:
    """The bucket after one more request at `now_s`. A request that is refused takes nothing."""
    tokens_per_s = requests_per_minute / 60
    tokens = float(requests_per_minute)
    if before is not None:
        tokens = min(tokens, before.tokens + max(0.0, now_s - before.at_s) * tokens_per_s)
    if tokens >= 1:
        return Allowance(tokens=tokens - 1, at_s=now_s, wait_s=0.0)
    return Allowance(tokens=tokens, at_s=now_s, wait_s=(1 - tokens) / tokens_per_s)
