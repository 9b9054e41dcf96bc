"""The last verification of each edit, beside the edits. It is about a version and is none itself.

What is kept says nothing of an edit's content and repeats no answer, so a purge has nothing to delete here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import AwareDatetime, check_edit_id, check_namespace
from serac_gateway.stores.redis_connection import RedisConnection


class ProbeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one query that an edit should answer."""

    probe: str
    """Whose text was asked: "prompt" or "paraphrases[2]"."""
    passed: bool
    failure: str | None = None
    """Why it did not pass, in a few words: "another edit governs", "below threshold", …"""
    route: str
    governed_by: str | None = None
    """Id of the edit that governed."""
    scope_probability: float | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an edit did what it says when its own questions were asked."""

    edit_id: str
    edit_version: int
    """The version that was verified; the current one may be newer."""
    at: AwareDatetime
    passed: bool
    """Whether all probes did."""
    probes: list[ProbeOutcome]


class VerificationStore(ABC):
    """Keeps one verification an edit, the last.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached, and
    InvalidRequestError for a namespace or an id that breaks the rules.
    """

    @abstractmethod
    async def put(self, namespace: str, verification: Verification) -> None:
        """Remember it in place of the one before."""

    @abstractmethod
    async def get(self, namespace: str, edit_id: str) -> Verification | None:
        """The last one; None: the edit was never verified."""


class InMemoryVerificationStore(VerificationStore):
    """Keeps them until it is garbage collected."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Verification] = {}

    @override
    async def put(self, namespace: str, verification: Verification) -> None:
        self._last[check_namespace(namespace), check_edit_id(verification.edit_id)] = verification

    @override
    async def get(self, namespace: str, edit_id: str) -> Verification | None:
        return self._last.get((check_namespace(namespace), check_edit_id(edit_id)))


class RedisVerificationStore(VerificationStore):
    """A hash for each namespace: edit id to the JSON of its last verification."""

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: whoever opened it closes it."""
        self._connection = connection

    @override
    async def put(self, namespace: str, verification: Verification) -> None:
        edit_id = check_edit_id(verification.edit_id)
        # Harmless when it is sent twice.
        await self._connection.read("HSET", _key(namespace), edit_id, msgspec.json.encode(verification))

    @override
    async def get(self, namespace: str, edit_id: str) -> Verification | None:
        record = await self._connection.read("HGET", _key(namespace), check_edit_id(edit_id))
        return None if record is None else msgspec.json.decode(record, type=Verification)


def _key(namespace: str) -> str:
    return f"serac:{{{check_namespace(namespace)}}}:verifications"
