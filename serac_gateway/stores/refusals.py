"""Why a store refuses a call, in one wording for all stores."""

from __future__ import annotations

from serac_gateway.edits import check_edit_id, check_namespace
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    IdempotencyKeyReusedError,
    PreconditionFailedError,
)
from serac_gateway.stores.base import Action, Commit


def check_commit(namespace: str, commit: Commit) -> None:
    """Return if the commit is well formed.

    Raises:
        ValueError: It is not: the caller's mistake, not the user's.
        InvalidRequestError: The namespace or the id breaks the rules.
    """
    edit = commit.stored.edit
    check_namespace(namespace)
    check_edit_id(edit.id)
    if edit.namespace != namespace:
        raise ValueError(f"an edit of namespace {edit.namespace!r} cannot be committed to {namespace!r}")
    if (commit.action is Action.ADD) != (edit.version == 1) or edit.version < 1:
        raise ValueError(
            f"{commit.action.value!r} cannot make version {edit.version}; add makes 1, all else more"
        )


def no_such_edit(namespace: str, edit_id: str) -> EditNotFoundError:
    """There is nothing to read or change."""
    return EditNotFoundError(
        f"there is no edit {edit_id!r} in namespace {namespace!r}; list the edits to see their ids",
        field="id",
    )


def no_such_version(edit_id: str, version: int) -> EditNotFoundError:
    """The edit, if it exists, never had that version."""
    return EditNotFoundError(
        f"there is no version {version} of edit {edit_id!r}; list its versions", field="version"
    )


def id_taken(edit_id: str) -> EditConflictError:
    """An edit of that id exists, perhaps as a retired one."""
    return EditConflictError(
        f"edit {edit_id!r} exists already (perhaps retired); change that one, or leave out the id to get a"
        " new one",
        field="id",
        details={"value": edit_id},
    )


def key_reused(key: str) -> IdempotencyKeyReusedError:
    """The idempotency key stands for another request."""
    return IdempotencyKeyReusedError(
        f"the idempotency key {key[:80]!r} was used for another request; send a new key with a new request",
        field="idempotency-key",
        details={"value": key[:80]},
    )


def stale_version(edit_id: str, *, expected: int, current: int) -> PreconditionFailedError:
    """Somebody else changed the edit first."""
    return PreconditionFailedError(
        f"edit {edit_id!r} is at version {current}, not {expected}; read it again and repeat the change with"
        " its new ETag",
        field="if-match",
        details={"value": expected, "current": current},
    )
