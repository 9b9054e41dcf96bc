"""The next version of an edit, as each call of the API makes one.

Every version after the first is made from the current one, which the caller has read: the store commits it
only if that version is still current.
"""

from __future__ import annotations

from typing import Self

import msgspec

from serac_gateway.domain.edits import (
    NO_ATTRIBUTION,
    Attribution,
    Edit,
    EditDraft,
    EditPatch,
    EditState,
    copied,
    first_version,
    forms,
    patched,
    purged,
    restored,
    retired,
)
from serac_gateway.stores.records import Action, FormVectors


class NextVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is not committed yet."""

    action: Action
    edit: Edit
    current: Edit | None = None
    """The version that it follows; None for an added edit."""
    vectors: FormVectors | None = None
    """Of the edit's forms; None: not encoded yet, or those of `current` still hold."""

    @classmethod
    def added(cls, namespace: str, draft: EditDraft) -> Self:
        """The first version of a new edit.

        Raises:
            InvalidRequestError: The draft breaks a rule.
        """
        return cls(action=Action.ADD, edit=first_version(draft, namespace=namespace))

    @classmethod
    def changed(cls, current: Edit, patch: EditPatch) -> Self:
        """`current` with the fields of `patch`.

        Raises:
            InvalidRequestError: The patch is empty or breaks a rule.
            EditPurgedError: The edit was purged.
            EditConflictError: The patch sets the state of a retired edit.
        """
        return cls(action=Action.UPDATE, edit=patched(current, patch), current=current)

    @classmethod
    def retired(cls, current: Edit, attribution: Attribution = NO_ATTRIBUTION) -> Self:
        """`current` in state `retired`. Raises EditPurgedError."""
        return cls(action=Action.RETIRE, edit=retired(current, attribution), current=current)

    @classmethod
    def restored(cls, current: Edit, attribution: Attribution = NO_ATTRIBUTION) -> Self:
        """A retired edit, live again.

        Raises:
            EditPurgedError: The edit was purged.
            EditConflictError: It is not retired.
        """
        return cls(action=Action.RESTORE, edit=restored(current, attribution), current=current)

    @classmethod
    def rolled_back(cls, current: Edit, older: Edit, attribution: Attribution = NO_ATTRIBUTION) -> Self:
        """`current` with content and state of its version `older`. Raises EditPurgedError."""
        return cls(action=Action.ROLLBACK, edit=copied(current, older, attribution), current=current)

    @classmethod
    def purged(cls, current: Edit, attribution: Attribution = NO_ATTRIBUTION) -> Self:
        """The tombstone of the edit. Raises EditPurgedError if it has one already."""
        return cls(action=Action.PURGE, edit=purged(current, attribution), current=current)

    @property
    def has_new_forms(self) -> bool:
        """Whether its forms are not those of `current`, whose vectors are stored."""
        if self.edit.state is EditState.PURGED:
            return False
        return self.current is None or forms(self.edit) != forms(self.current)
