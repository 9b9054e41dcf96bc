"""States edits in the context of a request to the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from serac_gateway.data_plane.protocols.base import ApiProtocol, Members
from serac_gateway.domain.edits import Edit, EditKind, statement

_FACTS = "Take the following as true today, whatever you learnt before:"
_MUST_NOT = 'Do not tell what answers "{prompt}"; if asked, say: {target}'
_HOW = 'Whenever you speak of "{prompt}": {target}'


def with_edits(protocol: ApiProtocol, members: Members, edits: Sequence[Edit]) -> bytes:
    """A request body with `edits` stated before the client's own words: see `ApiProtocol.add_note`.

    All other `members` keep their bytes and order. The request must have been accepted by
    `ApiProtocol.query` and `ApiProtocol.parse_request`.
    """
    noted = dict(members)
    protocol.add_note(noted, _note(edits))
    return msgspec.json.encode(noted)


def with_edits_in_prompts(
    protocol: ApiProtocol, members: Members, edits: Mapping[int, Sequence[Edit]]
) -> bytes:
    """As `with_edits`, for a request of several prompts: before each the edits of its place."""
    noted = dict(members)
    protocol.add_notes(noted, {place: _note(stated) for place, stated in edits.items()})
    return msgspec.json.encode(noted)


def _note(edits: Sequence[Edit]) -> str:
    facts = [f"- {statement(edit)}" for edit in edits if edit.kind is EditKind.FACT]
    rules = [
        (_MUST_NOT if edit.kind is EditKind.SUPPRESSION else _HOW).format(
            prompt=edit.prompt, target=edit.target_new
        )
        for edit in edits
        if edit.kind is not EditKind.FACT
    ]
    return "\n".join((*((_FACTS, *facts) if facts else ()), *rules))
