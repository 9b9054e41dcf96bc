"""The seam to the edit store: the truth about edits. The index and all else is derived from it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum

import msgspec

from serac_gateway.edits import AwareDatetime, Edit, EditState
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.api_keys import ApiKeyStore
from serac_gateway.vectors import Vectors

IDEMPOTENCY_TTL_S = 86_400
"""How long a store remembers the receipt behind an idempotency key, unless told otherwise."""

LOG_START = "0-0"
"""The log_id before the first entry."""

_LOG_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Action(StrEnum):
    """What a log entry records."""

    ADD = "add"
    UPDATE = "update"
    RETIRE = "retire"


class FormVectors(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of an edit's forms, and which encoder made them."""

    fingerprint: str
    """`Encoder.fingerprint`."""
    vectors_FD: Vectors
    """In the order of `edits.forms`. *Shape:* (F, D)."""


class StoredEdit(msgspec.Struct, frozen=True, kw_only=True):
    """A current edit with the vectors of its forms."""

    edit: Edit
    vectors: FormVectors


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One change to one edit, all or nothing: new version, head, vectors, log entry, remembered result."""

    action: Action
    stored: StoredEdit
    """The new version. Its version is the expected one + 1; an added edit's is 1."""
    idempotency_key: str | None = None
    """A second commit of the same key and fingerprint changes nothing and gives the first's receipt."""
    request_fingerprint: str = ""
    """Hash of the request body behind the key."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an acknowledged commit left behind. The commit is durable when the caller has this."""

    edit_id: str
    version: int
    log_id: str
    replayed: bool = False
    """The idempotency key had been used by the same request before: this is that one's receipt."""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a namespace's append-only log."""

    log_id: str
    """Orders the log: compare with `log_id_order`."""
    action: Action
    edit_id: str
    version: int
    at: AwareDatetime
    author: str | None = None
    reason: str | None = None


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


class EditStore(ABC):
    """Current edits, all their versions, their vectors and a log, by namespace.

    Async and task-safe: one store serves all tasks of a process. Every method raises StoreUnavailableError
    when the server cannot be reached or refuses; a commit that raised it may or may not have happened (retry
    it with an idempotency key). A commit is never cut in half, whatever happens to its caller: a cancelled
    one runs to its end unseen. Every method raises InvalidRequestError for a namespace, edit id, cursor or
    log id that breaks the rules of edits.py; nothing of it reaches the server.
    """

    @abstractmethod
    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        """Make one change durable and append it to the log.

        Raises:
            ValueError: The commit is not well formed: another namespace's edit, or an added one whose version
                is not 1.
            EditConflictError: An added edit's id exists (also as a retired one).
            IdempotencyKeyReusedError: The idempotency key was used with another fingerprint.
            EditNotFoundError: There is no edit of that id to update or retire.
            PreconditionFailedError: The current version is not the new one - 1.
        """

    @abstractmethod
    async def get(self, namespace: str, edit_id: str, *, version: int | None = None) -> Edit:
        """The current version, or the one asked for. A retired edit is found, in state `retired`.

        Raises:
            EditNotFoundError: No such edit, or no such version of it.
        """

    @abstractmethod
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        """All versions, oldest first.

        Raises:
            EditNotFoundError: No such edit.
        """

    @abstractmethod
    async def page(
        self, namespace: str, *, cursor: str | None = None, limit: int = 100, state: EditState | None = None
    ) -> Page:
        """At most `limit` (1 or more) current edits by their ids: for generated ones, in order of creation.

        With `state`, only those in it; a page may then be short, or empty, and yet not the last.
        An edit that exists for the whole walk is listed once, whatever others write meanwhile.
        """

    @abstractmethod
    def snapshot(self, namespace: str) -> AsyncIterator[StoredEdit]:
        """Every current edit in state `live`, with its vectors, in no order. For the rebuild of an index.

        Not a point in time: read `log_end` before, then follow the log from there.
        """

    @abstractmethod
    async def stored(self, namespace: str, edit_id: str) -> StoredEdit:
        """The current version with its vectors.

        Raises:
            EditNotFoundError: No such edit.
        """

    @abstractmethod
    async def log_end(self, namespace: str) -> str:
        """The log_id of the last entry; `LOG_START` for an empty log."""

    @abstractmethod
    async def log(self, namespace: str, *, after: str = LOG_START, limit: int = 100) -> list[LogEntry]:
        """Entries after `after`, oldest first."""

    @abstractmethod
    async def namespaces(self) -> list[str]:
        """All namespaces that ever got a commit, sorted."""

    @abstractmethod
    def api_keys(self) -> ApiKeyStore:
        """The API keys, which lie beside the edits. Usable for as long as this store is."""

    @abstractmethod
    async def ping(self) -> None:
        """Return if the store answers."""

    @abstractmethod
    async def close(self) -> None:
        """Release connections (and stop an embedded server that this store started). Idempotent."""
