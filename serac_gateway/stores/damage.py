"""What of a namespace is damaged in the store, and what mends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import Edit


class Remedy(StrEnum):
    """What `serac store repair --apply` does about a damage."""

    REWRITE_HEAD = "rewrite_head"
    """The head of the log is written as the log, whose chain is sound, ends."""
    REWRITE_RECORD = "rewrite_record"
    """The current record is written as its newest version has it."""
    REWRITE_VERSION = "rewrite_version"
    """The newest version is written as the current record has it; its log entry proves it the same."""
    REWRITE_LISTS = "rewrite_lists"
    """The edit is listed in the state that its record has, and in no other."""
    REMOVE = "remove"
    """What cannot be an edit, or has neither record nor versions, is taken out of the lists."""
    DELETE_KEY = "delete_key"
    """A key of the wrong type is deleted; a second repair then fills it from the versions."""
    ENCODE = "encode"
    """The vectors are made anew from the record."""
    REPLACE = "replace"
    """The newest version is lost: the edit is purged, and added anew under another id as an older one was."""
    PURGE = "purge"
    """Nothing of the edit can be read that was in force: it is purged, so that its id stays taken."""
    NONE = "none"
    """It stays as it is; what is in force does not depend on it, or only a backup can mend it."""


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is damaged."""

    fault: str
    """What is wrong, in a few words without content."""
    remedy: Remedy
    edit_id: str | None = None
    """None: it is the log, its head, or a whole key."""
    versions: int = 0
    """How many versions of the edit are stored."""
    readable: Edit | None = None
    """The version that the remedy uses: the newest one that can be read."""
    mended: bytes = b""
    """The bytes that the remedy writes, where it rewrites something."""
    stored: Mapping[str, bytes]
    """What is stored, by its place, to be kept before it is changed."""


class NamespaceRepairer(ABC):
    """Finds what is damaged in one namespace, and mends what the store can mend by itself.

    Every method raises StoreUnavailableError when the server cannot be reached or refuses. Others may write
    meanwhile: what has changed since it was read is left alone.
    """

    @abstractmethod
    def damages(self) -> AsyncIterator[Damage]:
        """All that is damaged; changes nothing."""

    @abstractmethod
    async def mend(self, damage: Damage) -> bool:
        """Apply the remedy, and return whether that was done; not of ENCODE, REPLACE, PURGE and NONE."""
