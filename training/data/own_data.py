"""A user's own edits and logged traffic as training pairs.

Edits: NDJSON as `serac edits export` writes it (prompt and target_new needed; id, paraphrases, … optional).
Traffic: NDJSON of ``{"query": "…", "edit_id": "…" or null}``: which edit, if any, the query was in scope of.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.data.files import read_rows
from training.data.hard_negatives import mined
from training.data.pairs import Pair
from training.data.public_sets import Embed

NEGATIVES_PER_QUERY = 4


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """One logged query."""

    query: str
    edit_id: str | None


def read_edits(path: Path) -> list[EditDraft]:
    """The edits of an export; each has an id.

    Raises:
        ConfigError: The file is missing or empty, or a line lacks a column.
    """
    drafts = []
    for number, row in enumerate(read_rows(path), 1):
        for column in ("prompt", "target_new"):
            if not isinstance(row.get(column), str) or not row[column].strip():
                raise ConfigError(
                    f"{path.name} line {number} has no {column!r}; an edit needs prompt and target_new"
                )
        paraphrases = tuple(p for p in row.get("paraphrases") or () if isinstance(p, str) and p.strip())
        drafts.append(
            EditDraft(
                id=str(row.get("id") or f"own-{number}"),
                prompt=row["prompt"],
                target_new=row["target_new"],
                paraphrases=paraphrases,
            )
        )
    return drafts


def read_traffic(path: Path, edits: Sequence[EditDraft]) -> list[Traffic]:
    """Logged queries with the edit each was in scope of.

    Raises:
        ConfigError: A line lacks a column or names an edit that is not among `edits`.
    """
    known = {edit.id for edit in edits}
    traffic = []
    for number, row in enumerate(read_rows(path), 1):
        if not isinstance(row.get("query"), str) or "edit_id" not in row:
            raise ConfigError(f"{path.name} line {number} lacks 'query' or 'edit_id'; edit_id may be null")
        edit_id = row["edit_id"]
        if edit_id is not None and edit_id not in known:
            raise ConfigError(
                f"{path.name} line {number} names edit {edit_id!r}, which the edits do not hold"
            )
        if row["query"].strip():
            traffic.append(Traffic(query=row["query"], edit_id=edit_id))
    return traffic


def own_pairs(
    edits: Sequence[EditDraft], traffic: Sequence[Traffic], embed: Embed, rng: random.Random
) -> list[Pair]:
    """A user's own pairs: logged queries and paraphrases with their edit and with the nearest others."""
    by_id = {edit.id: edit for edit in edits}
    queries = [(logged.query, logged.edit_id) for logged in traffic]
    queries += [(text, edit.id) for edit in edits for text in (edit.prompt, *edit.paraphrases)]
    near = mined(
        embed([e.prompt for e in edits]),
        embed([q for q, _ in queries]),
        top_k=NEGATIVES_PER_QUERY + 1,
        floor=0.1,
    )
    pairs = []
    for (query, edit_id), row in zip(queries, near, strict=True):
        if edit_id is not None:
            own = by_id[edit_id]
            pairs.append(_pair(own, query, in_scope=True))
        others = [edits[place] for place, _ in row if edits[place].id != edit_id]
        pairs += [_pair(other, query, in_scope=False) for other in others[:NEGATIVES_PER_QUERY]]
    rng.shuffle(pairs)
    return pairs


def _pair(edit: EditDraft, query: str, *, in_scope: bool) -> Pair:
    return Pair(prompt=edit.prompt, target=edit.target_new, text=query, in_scope=in_scope, kind="own")
