"""What a proposal would do, as far as previews show: conflicts, and requests that its edits would capture."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from serac_gateway.control_plane.preview import Previewer
from serac_gateway.domain.edits import ACTIVE_STATES, DecidedState, Edit, EditDraft
from serac_gateway.errors import GatewayError
from serac_gateway.stores.proposals import ForeseenConflict, ForeseenEffect

log = logging.getLogger(__name__)

_MAX_PREVIEWED = 8
"""Edits of one proposal; each takes the models some hundred milliseconds."""


class Foresight:
    """Sums previews up, without texts."""

    def __init__(self, previewer: Previewer) -> None:
        self._previewer = previewer

    async def effect(self, namespace: str, edits: Sequence[Edit]) -> ForeseenEffect | None:
        """Of the first edits that would be in force; None: there is none, or the models failed."""
        active = [edit for edit in edits if edit.state in ACTIVE_STATES]
        total = ForeseenEffect(previewed=0)
        for edit in active[:_MAX_PREVIEWED]:
            try:
                total = _sum(total, await self._effect(namespace, edit))
            except GatewayError as error:  # it can be proposed all the same
                log.warning("the preview of proposed edit %s failed: %s", edit.id, error.message)
                return None
        return total if total.previewed else None

    async def _effect(self, namespace: str, edit: Edit) -> ForeseenEffect:
        fields = {name: getattr(edit, name) for name in EditDraft.__struct_fields__}
        draft = EditDraft(**{**fields, "state": DecidedState(edit.state.value)})
        preview = await self._previewer.preview(namespace, draft)
        traffic = preview.traffic
        return ForeseenEffect(
            previewed=1,
            refused=int(preview.refused),
            conflicts=[
                ForeseenConflict(
                    edit_id=edit.id,
                    other_id=conflict.edit.id,
                    other_version=conflict.edit.version,
                    superseded=conflict.edit.id in preview.superseded,
                )
                for conflict in preview.conflicts
            ],
            paraphrases=len(preview.generated),
            paraphrases_captured=sum(query.captured for query in preview.generated),
            recorded=traffic.queries if traffic.recording else None,
            recorded_captured=traffic.captured,
        )


def _sum(total: ForeseenEffect, other: ForeseenEffect) -> ForeseenEffect:
    return ForeseenEffect(
        previewed=total.previewed + other.previewed,
        refused=total.refused + other.refused,
        conflicts=[*total.conflicts, *other.conflicts],
        paraphrases=total.paraphrases + other.paraphrases,
        paraphrases_captured=total.paraphrases_captured + other.paraphrases_captured,
        recorded=other.recorded,
        recorded_captured=total.recorded_captured + other.recorded_captured,
    )
