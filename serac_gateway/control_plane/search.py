"""Search for edits, by what they have or by meaning."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from functools import partial

import msgspec

from serac_gateway.domain.audiences import Audience
from serac_gateway.domain.edits import Edit, EditKind, EditState
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import OnDamaged
from serac_gateway.stores.records import Page

_READ_AT_A_TIME = 500
_READ_AT_MOST = 20_000
"""Edits that one search looks through. What follows is for the next page."""
_LONGEST_S = 0.2
"""Or as many as it gets through in this time: on a busy machine 20,000 take 0.6 s."""


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """An edit near in meaning."""

    edit: Edit
    form: str
    """The form of it that lies nearest."""
    similarity: float
    """Cosine, -1..1."""


class EditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a listed edit must have besides its state."""

    text: str | None = None
    """Stands in prompt, answers, names or a paraphrase, in any case."""
    kind: EditKind | None = None
    author: str | None = None
    """Stands in the author of the current version, in any case."""
    audience: Audience = {}
    """Its labels and values are all named by the edit's audience."""

    def admits(self, edit: Edit) -> bool:
        """Whether `edit` has all of it."""
        if self.kind not in (None, edit.kind):
            return False
        if self.author is not None and self.author.casefold() not in (edit.author or "").casefold():
            return False
        if self.audience and not _is_for(edit, self.audience):
            return False
        return self.text is None or _mentions(edit, self.text.casefold())


NO_FILTER = EditFilter()


class EditSearch:
    """Searches the edits of a namespace."""

    def __init__(
        self, *, store: EditStore, active_edits: ActiveEdits, encoder: Encoder, pool: Executor
    ) -> None:
        self._store = store
        self._active_edits = active_edits
        self._encoder = encoder
        self._pool = pool

    async def matching(
        self,
        namespace: str,
        wanted: EditFilter,
        *,
        cursor: str | None = None,
        limit: int = 100,
        state: EditState | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> Page:
        """Stored edits that `wanted` admits.

        By id, as `EditStore.page`: a page may be short, or empty, and yet not the last. What others write
        meanwhile moves no cursor. `on_damaged` as there.
        """
        edits: list[Edit] = []
        looked_at, deadline_s = 0, time.monotonic() + _LONGEST_S
        while True:
            page = await self._store.page(
                namespace, cursor=cursor, limit=_READ_AT_A_TIME, state=state, on_damaged=on_damaged
            )
            for edit in page.edits:
                if wanted.admits(edit):
                    edits.append(edit)
                if len(edits) == limit:
                    more = edit is not page.edits[-1] or page.next_cursor is not None
                    return Page(edits=edits, next_cursor=edit.id if more else None)
            looked_at += _READ_AT_A_TIME
            cursor = page.next_cursor
            if cursor is None or looked_at >= _READ_AT_MOST or time.monotonic() >= deadline_s:
                return Page(edits=edits, next_cursor=cursor)

    async def by_meaning(self, namespace: str, text: str, *, limit: int = 10) -> list[SearchHit]:
        """The edits in force now, on trial or not, for whatever audience, whose forms are nearest to `text`.

        Best first.

        Raises:
            ModelUnavailableError: The encoder failed.
        """
        vectors_BD = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._encoder.encode, [text]
        )
        (row,) = await asyncio.to_thread(
            partial(self._active_edits.candidates, namespace, vectors_BD, limit, labels=None)
        )
        return [
            SearchHit(edit=neighbour.edit, form=neighbour.form, similarity=neighbour.similarity)
            for neighbour in row[:limit]
        ]


def _is_for(edit: Edit, audience: Audience) -> bool:
    return all(set(values) <= set(edit.audience.get(label, ())) for label, values in audience.items())


def _mentions(edit: Edit, wanted: str) -> bool:
    texts = (edit.prompt, edit.target_new, edit.target_true, edit.subject, *edit.paraphrases, *edit.aliases)
    return any(text is not None and wanted in text.casefold() for text in texts)
