"""Why a store refuses a call, in one wording for all stores."""

from __future__ import annotations

from collections.abc import Sequence

from serac_gateway.domain.edits import EditState, check_edit_id, check_namespace
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    IdempotencyKeyReusedError,
    PreconditionFailedError,
    ProposalConflictError,
    ProposalNotFoundError,
    StoreUnavailableError,
)
from serac_gateway.stores.records import MAX_CHANGES, Action, Change, Commit, Idempotency, StoredEdit


def check_commit(namespace: str, commit: Commit) -> None:
    """Return if the commit is well formed.

    Raises:
        ValueError: It is not: the caller's mistake, not the user's.
        InvalidRequestError: The namespace or an id breaks the rules.
    """
    check_namespace(namespace)
    if not 1 <= len(commit.changes) <= MAX_CHANGES:
        raise ValueError(f"a commit of {len(commit.changes):,} changes; 1 to {MAX_CHANGES:,} are allowed")
    ids = {check_edit_id(change.edit.id) for change in commit.changes}
    if len(ids) < len(commit.changes):
        raise ValueError("a commit cannot change an edit twice; commit one version after the other")
    if commit.approval is not None and not 0 < len(commit.approval.splitlines()) < 2:
        raise ValueError(f"approval {commit.approval!r} must be one line")
    for change in commit.changes:
        _check_change(namespace, change)


def _check_change(namespace: str, change: Change) -> None:
    action, edit = change.action, change.edit
    if edit.namespace != namespace:
        raise ValueError(f"an edit of namespace {edit.namespace!r} cannot be committed to {namespace!r}")
    if (action is Action.ADD) != (edit.version == 1) or edit.version < 1:
        raise ValueError(f"{action.value!r} cannot make version {edit.version}; add makes 1, all else more")
    if (action is Action.PURGE) != (edit.state is EditState.PURGED):
        raise ValueError(f"{action.value!r} cannot make an edit in state {edit.state.value!r}")
    if (action is Action.ADD and change.vectors is None) or (action is Action.PURGE and change.vectors):
        raise ValueError("an added edit needs vectors, and a purged one has none")


def check_replacements(namespace: str, replacements: Sequence[StoredEdit]) -> None:
    """Return if the edits can have vectors.

    Raises:
        ValueError: One cannot: the caller's mistake.
        InvalidRequestError: The namespace or an id breaks the rules.
    """
    check_namespace(namespace)
    for replacement in replacements:
        edit = replacement.edit
        check_edit_id(edit.id)
        if edit.namespace != namespace or edit.state is EditState.PURGED:
            raise ValueError(f"edit {edit.id!r} was purged, or is not of namespace {namespace!r}")


def no_such_edit(namespace: str, edit_id: str) -> EditNotFoundError:
    """The namespace has no edit of that id."""
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


def id_purged(edit_id: str) -> EditConflictError:
    """An edit of that id was purged; its id stays taken, so that no other edit is mistaken for it."""
    return EditConflictError(
        f"edit {edit_id!r} was purged, and its id is not given out again; leave out the id to get a new one,"
        " if the content may be stored at all",
        field="id",
        details={"value": edit_id},
    )


def damaged_log(namespace: str, what: str) -> StoreUnavailableError:
    """Log and head do not belong together, so nothing may be appended."""
    return StoreUnavailableError(
        f"the log of namespace {namespace!r} is damaged ({what}), so nothing can be written to it;"
        " `serac log verify` says what happened to it; restore it from a backup"
    )


def key_reused(idempotency: Idempotency | None) -> IdempotencyKeyReusedError:
    """The idempotency key stands for another request."""
    key = "" if idempotency is None else idempotency.key
    return IdempotencyKeyReusedError(
        f"the idempotency key {key[:80]!r} was used for another request; send a new key with a new request",
        field="idempotency-key",
        details={"value": key[:80]},
    )


def stale_version(edit_id: str, *, expected: int, current: int) -> PreconditionFailedError:
    """The edit was changed since its version was read."""
    return PreconditionFailedError(
        f"edit {edit_id!r} is at version {current}, not {expected}; read it again and repeat the change with"
        " its new ETag",
        field="if-match",
        details={"value": expected, "current": current},
    )


def log_went_on(*, expected: str, current: str) -> PreconditionFailedError:
    """Others have committed since the caller looked."""
    return PreconditionFailedError(
        f"the log goes on to {current!r} and was expected to end with {expected!r}; read it again and repeat"
        " the change",
        field="log_id",
        details={"value": expected, "current": current},
    )


def not_empty(namespace: str) -> EditConflictError:
    """A backup cannot be mixed with what is there."""
    return EditConflictError(
        f"namespace {namespace!r} has edits, or had some; a backup is restored into a store where the"
        " namespace was never used",
        field="namespace",
        details={"value": namespace},
    )


def no_such_proposal(namespace: str, proposal_id: str) -> ProposalNotFoundError:
    """The namespace has no proposal of that id."""
    return ProposalNotFoundError(
        f"there is no proposal {proposal_id!r} in namespace {namespace!r}; list the proposals to see their"
        " ids",
        field="proposal_id",
    )


def proposal_went_on(proposal_id: str, *, expected: int, current: int) -> PreconditionFailedError:
    """Somebody else said something of it, or closed it."""
    return PreconditionFailedError(
        f"proposal {proposal_id!r} is at revision {current}, not {expected}; read it again",
        field="if-match",
        details={"value": expected, "current": current},
    )


def too_many_open(namespace: str, limit: int) -> ProposalConflictError:
    """Nobody can read that many."""
    return ProposalConflictError(
        f"namespace {namespace!r} has {limit:,} open proposals, and no more are kept; decide on some, or"
        " withdraw them",
        field="namespace",
        details={"limit": limit},
    )
