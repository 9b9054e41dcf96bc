"""The JSON of what edits do: an edit as calls answer with it, and its conflicts."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from serac_gateway.conflicts import Conflict
from serac_gateway.editing import Written
from serac_gateway.edits import Edit, EditState


class ConflictTold(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that answers the same question differently."""

    edit_id: str
    edit_version: int
    state: EditState
    prompt: str
    target_new: str
    answers_prompt: float
    """P(that edit answers this one's prompt)."""
    prompt_answered: float
    """P(this edit answers that one's prompt)."""
    superseded: bool = False
    """It was retired in the same commit."""


class EditReply(Edit, frozen=True, kw_only=True):
    """An edit, and what is known of its effect."""

    in_force: bool
    """Whether requests are decided with it now, by its state and its window; edits on trial are, too."""
    conflicts: list[ConflictTold] | msgspec.UnsetType | None = msgspec.UNSET
    """After a write: the edits that it contradicts; null: they could not be looked for."""


def edit_reply(edit: Edit, written: Written | None = None) -> EditReply:
    """`edit` as the API tells it, after a write with its conflicts."""
    conflicts: list[ConflictTold] | msgspec.UnsetType | None = msgspec.UNSET
    if written is not None:
        superseded = {one.id for one in written.superseded}
        conflicts = None if written.conflicts is None else conflicts_told(written.conflicts, superseded)
    return EditReply(
        **msgspec.structs.asdict(edit), in_force=edit.is_in_force(datetime.now(UTC)), conflicts=conflicts
    )


def conflicts_told(
    conflicts: tuple[Conflict, ...] | list[Conflict], superseded: set[str] | frozenset[str] = frozenset()
) -> list[ConflictTold]:
    """`conflicts` as the API tells them."""
    return [
        ConflictTold(
            edit_id=one.edit.id,
            edit_version=one.edit.version,
            state=one.edit.state,
            prompt=one.edit.prompt,
            target_new=one.edit.target_new,
            answers_prompt=one.answers_prompt,
            prompt_answered=one.prompt_answered,
            superseded=one.edit.id in superseded,
        )
        for one in conflicts
    ]
