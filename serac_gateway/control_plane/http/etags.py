"""ETag and If-Match: a change names the version that it builds on (RFC 9110 section 13.1.1)."""

from __future__ import annotations

import re

from serac_gateway.domain.edits import Edit, check_edit_id, check_not_purged
from serac_gateway.errors import InvalidRequestError, PreconditionFailedError, PreconditionRequiredError
from serac_gateway.stores.base import EditStore

_ENTITY_TAGS = re.compile(r'(W/)?"([^"]*)"\s*(?:,\s*|$)')


def entity_tag(edit: Edit) -> str:
    """The ETag of a version: its number in quotes."""
    return f'"{edit.version}"'


async def matched_edit(store: EditStore, namespace: str, edit_id: str, if_match: str | None) -> Edit:
    """The current version, which `if_match` names: what the change is made from.

    The store commits the change only if that version is then still current.

    Raises:
        PreconditionRequiredError: There is no If-Match.
        InvalidRequestError: It is not a list of entity tags.
        EditPurgedError: The edit was purged, so there is nothing to change.
        PreconditionFailedError: It names other versions.
    """
    if if_match is None:
        raise PreconditionRequiredError(
            f"a change of edit {edit_id[:80]!r} needs the header If-Match with the ETag it builds on, so that"
            " no other change is lost; GET the edit for its ETag",
            field="if-match",
        )
    tags = entity_tags(if_match)
    current = check_not_purged(await store.get(namespace, check_edit_id(edit_id)))
    if tags is not None and entity_tag(current) not in tags:
        raise PreconditionFailedError(
            f"edit {edit_id!r} is at version {current.version}, and If-Match is {if_match[:80]!r}; read it"
            " again and repeat the change with its new ETag",
            field="if-match",
            details={"value": if_match[:80], "current": entity_tag(current)},
        )
    return current


def entity_tags(if_match: str) -> list[str] | None:
    """The strong tags of an If-Match (RFC 9110 section 13.1.1), with their quotes; None for ``*``."""
    if if_match.strip() == "*":
        return None
    tags = [(weak, tag) for weak, tag in _ENTITY_TAGS.findall(if_match)]
    if not tags or _ENTITY_TAGS.sub("", if_match).strip():
        raise InvalidRequestError(
            f'if-match {if_match[:80]!r} is no entity tag; send the ETag as you got it, in quotes: "3"',
            field="if-match",
            details={"value": if_match[:80]},
        )
    return [f'"{tag}"' for weak, tag in tags if not weak]
