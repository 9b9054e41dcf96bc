"""What goes into an edit store and comes out of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from serac_gateway.domain.edits import AwareDatetime, Edit
from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import InvalidRequestError

LOG_START = "0-0"
"""The log_id before the first entry."""

MAX_CHANGES = 10_000
"""Of one commit: some two seconds of the server's time, in which it answers nobody else."""

_LOG_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Action(StrEnum):
    """What a log entry records."""

    ADD = "add"
    UPDATE = "update"
    RETIRE = "retire"
    RESTORE = "restore"
    """A retired edit is live again."""
    ROLLBACK = "rollback"
    """A version was made that copies an older one, or of the whole namespace all that had changed since."""
    PURGE = "purge"
    """The content of all versions is gone; the new version is a tombstone."""


class FormVectors(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of an edit's forms, and which encoder made them."""

    fingerprint: str
    """`Encoder.fingerprint`."""
    vectors_FD: Vectors
    """In the order of `edits.forms`. *Shape:* (F, D)."""


NO_VECTORS = FormVectors(fingerprint="", vectors_FD=np.zeros((0, 0), dtype=np.float32))
"""Of what has no forms: a tombstone."""


class StoredEdit(msgspec.Struct, frozen=True, kw_only=True):
    """A current edit with the vectors of its forms."""

    edit: Edit
    vectors: FormVectors
    """`NO_VECTORS` for a purged edit."""
    log_id: str | None = None
    """Of the log entry that made this version; None: it was not read."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The next version of one edit."""

    action: Action
    edit: Edit
    """The new version. Its version is the expected current one + 1; an added edit's is 1."""
    vectors: FormVectors | None = None
    """None: the forms are the current version's, whose vectors stay. A purge has none."""


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """By what the repetition of a request is recognised."""

    key: str
    """The client's own text."""
    fingerprint: str
    """Hash of the request; the same key with another fingerprint is refused."""


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal that is closed by the commit of its changes: see proposals.py."""

    proposal_id: str
    revision: int
    """Of the closed head; the stored one is the revision before."""
    head: bytes
    """JSON of the closed head."""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One or several changes to one namespace, all or nothing.

    Each makes a version, moves its edit's head, sets vectors and appends a log entry, in the order given.
    """

    changes: tuple[Change, ...]
    """At least one, at most `MAX_CHANGES`; no edit twice."""
    idempotency: Idempotency | None = None
    """If given: a second commit with the same one changes nothing and returns the receipt of the first."""
    expected_log_id: str | None = None
    """If given: nothing is committed unless the log still ends with it."""
    approval: str | None = None
    """Who agreed, for the log entries: one line."""
    closes: Closing | None = None
    """If given: nothing is committed unless that proposal is still as the closing expects."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What one change of a commit left behind."""

    edit_id: str
    version: int
    log_id: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an acknowledged commit left behind. The commit is durable when the caller has this."""

    changes: tuple[Committed, ...]
    """In the order of the commit's changes."""
    replayed: bool = False
    """The idempotency key had been used by the same request before: this is that one's receipt."""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a namespace's append-only log, chained to the one before (see log_chain.py)."""

    log_id: str
    """Orders the log: compare with `log_id_order`."""
    action: Action
    edit_id: str
    version: int
    at: AwareDatetime
    author: str | None = None
    reason: str | None = None
    """None also where the version was purged, as are those that follow up to `legal_basis`."""
    ticket: str | None = None
    institution: str | None = None
    source: str | None = None
    source_url: str | None = None
    source_sha256: str | None = None
    legal_basis: str | None = None
    approval: str | None = None
    """Who agreed to it, or by what right it was made without, where the namespace demands agreement."""
    content_digest: str
    """Of the version's record; 64 hexadecimal digits, as the two that follow."""
    previous_digest: str
    """The entry before's digest; the first entry's is `log_chain.genesis`."""
    digest: str


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of current edits, by id."""

    edits: Sequence[Edit]
    next_cursor: str | None
    """Pass it to get the following page; None: this was the last."""


def log_id_order(log_id: str) -> tuple[int, int]:
    """The key that sorts log ids.

    Raises:
        InvalidRequestError: It is no log id.
    """
    match = _LOG_ID.fullmatch(log_id)
    if match is None:
        raise InvalidRequestError(
            f"log id {log_id[:80]!r} is not allowed; take one that the log gave out, or {LOG_START!r}",
            field="after",
            details={"value": log_id[:80]},
        )
    return int(match[1]), int(match[2])
