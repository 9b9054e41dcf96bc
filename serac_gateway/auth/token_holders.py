"""What the holder of a token may do here: the roles of their groups, by the configuration of the moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role, TokenHolder, holder_id
from serac_gateway.auth.tokens import claim, invalid_token
from serac_gateway.config.model import OidcConfig, OidcRole
from serac_gateway.domain.edits import DEFAULT_NAMESPACE
from serac_gateway.domain.folding import folded_text
from serac_gateway.errors import PermissionDeniedError

_MAX_NAME_CHARS = 100
_SPACE_SEPARATED = ("scope", "scp")
"""Claims whose text is a list, as OAuth writes one."""


def principal_of(
    claims: Mapping[str, Any],
    config: OidcConfig,
    *,
    label_claims: Mapping[str, str],
    namespace: str | None,
) -> Principal:
    """The principal of verified claims, for a request to `namespace` (None: it names none).

    In a namespace somebody has the highest role that one of their groups has there. `label_claims` names the
    claim of each label.

    Raises:
        InvalidTokenError: A claim that is used is of the wrong type.
        PermissionDeniedError: None of the groups has a role.
    """
    issuer, subject = claims["iss"], claims["sub"]
    groups = [group for group in _texts(claims, config.roles_claim) if group in config.roles]
    if not groups:
        raise PermissionDeniedError(
            f"the token is valid, and gives no access: {_why_no_group(claims, config)}; ask an admin to be"
            " put into a group that oidc.roles names",
            details={"value": subject[:80]},
        )
    names = [_name(claims, path) for path in (config.name_claim, *config.person_claims)]
    given = [name for name in names if name is not None]
    name = _printable(given[0]) if given else ""
    labels = {label: _label(claims, path) for label, path in label_claims.items()}
    role, namespaces = granted([config.roles[group] for group in groups], namespace)
    return Principal(
        key_id=holder_id(issuer, subject),
        name=name or subject,
        role=role,
        namespaces=namespaces,
        labels={label: value for label, value in labels.items() if value is not None},
        holder=TokenHolder(
            issuer=issuer,
            subject=subject,
            other_names=tuple(sorted({folded_text(name) for name in (*given, subject)} - {""})),
            groups=tuple(sorted(set(groups))),
        ),
    )


def granted(roles: list[OidcRole], namespace: str | None) -> tuple[Role, tuple[str, ...]]:
    """The role that `roles` give together in `namespace`, and the namespaces where they give that one.

    With None the highest role of all: who may change one namespace and read another names the other one.
    """
    here = [
        role for role in roles if namespace is None or {namespace, EVERY_NAMESPACE} & {*namespaces_of(role)}
    ]
    considered = here or roles  # without any there, the request is refused for its namespace
    highest = max((Role(role.role) for role in considered), key=list(Role).index)
    return highest, reachable([role for role in considered if role.role == highest])


def reachable(roles: list[OidcRole]) -> tuple[str, ...]:
    """All namespaces in which one of `roles` counts."""
    namespaces = {name for role in roles for name in namespaces_of(role)}
    return (EVERY_NAMESPACE,) if EVERY_NAMESPACE in namespaces else tuple(sorted(namespaces))


def namespaces_of(role: OidcRole) -> tuple[str, ...]:
    """Where it counts."""
    if role.namespaces is not None:
        return role.namespaces
    return (EVERY_NAMESPACE,) if role.role == "admin" else (DEFAULT_NAMESPACE,)


def _texts(claims: Mapping[str, Any], path: str) -> list[str]:
    value = claim(claims, path)
    if value is None:
        return []
    if isinstance(value, str):
        return value.split() if path in _SPACE_SEPARATED else [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid_token(f"its claim {path!r} (oidc.roles_claim) is neither a text nor a list of texts")
    return value


def _name(claims: Mapping[str, Any], path: str) -> str | None:
    value = claim(claims, path)
    if value is not None and not isinstance(value, str):
        raise invalid_token(f"its claim {path!r}, which should name a person, is no text")
    return value


def _label(claims: Mapping[str, Any], path: str) -> str | None:
    value = claim(claims, path)
    values = value if isinstance(value, list) else [value]
    if value is None or not values:
        return None
    if not isinstance(values[0], str) or any(other != values[0] for other in values):
        raise invalid_token(
            f"its claim {path!r} (routing.audience_from) is neither a text nor a list of one text"
        )
    return values[0]


def _printable(name: str) -> str:
    """On one line and without brackets, so that nobody writes another's key or subject into their name."""
    kept = "".join(char if char.isprintable() and char not in "()" else " " for char in name)
    return " ".join(kept.split())[:_MAX_NAME_CHARS].strip()


def _why_no_group(claims: Mapping[str, Any], config: OidcConfig) -> str:
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, Mapping) and config.roles_claim in elsewhere:
        return (
            f"it has too many {config.roles_claim} to list them; have the provider send only those that count"
        )
    count = len(_texts(claims, config.roles_claim))
    if not count:
        return f"it has no claim {config.roles_claim!r} (oidc.roles_claim)"
    return f"none of its {count} {config.roles_claim} is named by oidc.roles"
