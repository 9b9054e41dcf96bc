"""Reads the edits of a running gateway, and says which of them weights can hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.consolidation import LeftOut
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, EditState, wordings
from training.evaluation.answers.metrics import normalised

_ALL = 1_000_000


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The edits of a namespace, apart by what becomes of them."""

    facts: tuple[Edit, ...]
    """To be consolidated, by id."""
    conflicts: dict[str, str]
    """Of `facts` those that contradict another: the other's id."""
    left_out: tuple[LeftOut, ...]
    beyond: int
    """Facts that the limit cut off."""


async def read_live_edits(url: str, namespace: str) -> list[Edit]:
    """All edits of the namespace that are live or on trial, by id.

    By the listing, since the export has no versions.

    Raises:
        UnreachableError: No gateway answers.
        ApiError: It refuses the namespace or the API key.
    """
    from serac_gateway.cli.calls import list_all

    rows: list[dict[str, Any]] = []
    for state in ACTIVE_STATES:
        rows += (await list_all(url, namespace, state, _ALL))[0]
    edits = [
        msgspec.convert({name: row[name] for name in Edit.__struct_fields__ if name in row}, Edit)
        for row in rows
    ]
    return sorted(edits, key=lambda edit: edit.id)


def choose(edits: Sequence[Edit], *, limit: int | None) -> Chosen:
    """Facts in force without window or audience, at most `limit` of them, the first by id."""
    reasons = {edit.id: why for edit in edits if (why := _why_left_out(edit))}
    facts = [edit for edit in edits if edit.id not in reasons]
    kept = facts if limit is None else facts[:limit]
    return Chosen(
        facts=tuple(kept),
        conflicts=_conflicts(kept, facts),
        left_out=tuple(
            LeftOut(id=edit.id, version=edit.version, kind=edit.kind, why=reasons[edit.id])
            for edit in edits
            if edit.id in reasons
        ),
        beyond=len(facts) - len(kept),
    )


def _why_left_out(edit: Edit) -> str | None:
    if edit.kind is EditKind.SUPPRESSION:
        return "a suppression holds at the gateway alone: a model that learnt it would learn the value"
    if edit.kind is EditKind.INSTRUCTION:
        return "an instruction says how to speak, and has no answer that could be checked"
    if edit.state is not EditState.LIVE:
        return f"it is on trial ({edit.state.value})"
    if edit.valid_from is not None or edit.valid_until is not None:
        return "it begins or ends at a time, which weights do not know"
    if edit.audience:
        return f"it holds for {audience_text(edit.audience)}, and weights answer all alike"
    return None


def _conflicts(kept: Sequence[Edit], facts: Sequence[Edit]) -> dict[str, str]:
    """Edits with a wording that another live fact has too, and another answer; letters and marks aside."""
    by_wording: dict[str, dict[str, Edit]] = defaultdict(dict)
    for edit in facts:
        for text in wordings(edit):
            by_wording[normalised(text)][edit.id] = edit
    return {
        edit.id: other.id
        for edit in kept
        for text in wordings(edit)
        for other in by_wording[normalised(text)].values()
        if normalised(other.target_new) != normalised(edit.target_new)
    }
