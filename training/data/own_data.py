"""A user's own edits and logged traffic: read, split, and made into training pairs.

Edits: NDJSON as `serac edits export` writes it (prompt and target_new needed; id, paraphrases, … optional).
Traffic: NDJSON of ``{"query": "…", "edit_id": "…" or null}``: which edit, if any, the query was in scope of;
with ``"context": ["…"]``, the turns before it, and ``"instructions": "…"``, the system prompt, if it had any.

One edit in `HELD_OUT_ONE_IN` is held out with all its rows, and so is one row in so many that is in no edit's
scope: they are never trained, and the report on a run counts what is right on them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serac_gateway.domain.aliases import alias_forms
from serac_gateway.domain.edits import MAX_PROMPT_CHARS, EditDraft
from serac_gateway.errors import ConfigError
from training.data.files import read_rows
from training.data.hard_negatives import mined
from training.data.pairs import Pair
from training.data.public_sets import Embed

NEGATIVES_PER_QUERY = 3
HELD_OUT_ONE_IN = 4


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """One logged query."""

    query: str
    edit_id: str | None
    context: tuple[str, ...] = ()
    instructions: str = ""

    @property
    def key(self) -> str:
        """The same for rows that are read alike, letter case and spaces aside."""
        return _plain("\0".join((self.instructions, *self.context, self.query)))


class OwnData(msgspec.Struct, frozen=True, kw_only=True):
    """A user's edits and traffic, in two parts that share no edit and no query."""

    edits: tuple[EditDraft, ...]
    """All of them: the gateway has all of them in force."""
    trained: tuple[Traffic, ...]
    held_out: tuple[Traffic, ...]
    digest: str
    """Names the files: equal ones have equal digests."""

    @property
    def trained_edits(self) -> tuple[EditDraft, ...]:
        """The edits that are not held out."""
        return tuple(edit for edit in self.edits if not is_held_out(edit.prompt))


def read_own(edits: Path, traffic: Path) -> OwnData:
    """Both files, each query of an edit once, split.

    Raises:
        ConfigError: See `read_edits` and `read_traffic`.
    """
    drafts = read_edits(edits)
    prompts = {draft.id: draft.prompt for draft in drafts}
    trained: dict[str, Traffic] = {}
    held_out: dict[str, Traffic] = {}
    for logged in read_traffic(traffic, drafts):
        by = logged.query if logged.edit_id is None else prompts[logged.edit_id]
        (held_out if is_held_out(by) else trained).setdefault(logged.key, logged)
    return OwnData(
        edits=tuple(drafts),
        trained=tuple(trained.values()),
        held_out=tuple(logged for key, logged in held_out.items() if key not in trained),
        digest=hashlib.sha256(edits.read_bytes() + b"\0" + traffic.read_bytes()).hexdigest()[:16],
    )


def is_held_out(text: str) -> bool:
    """Whether an edit with this prompt, or a query in no edit's scope, is kept from training.

    By the text alone, letter case and spaces aside: a later export gives the same split, whatever the ids
    are, and two edits of one question are on the same side.
    """
    return int(hashlib.sha256(_plain(text).encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


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
                subject=row.get("subject") if isinstance(row.get("subject"), str) else None,
                aliases=tuple(a for a in row.get("aliases") or () if isinstance(a, str) and a.strip()),
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
                f"{path.name} line {number} names edit {edit_id!r}, which the edits do not hold; export edits"
                " and traffic together"
            )
        context, instructions = row.get("context") or (), row.get("instructions") or ""
        if not isinstance(context, list | tuple) or not all(isinstance(turn, str) for turn in context):
            raise ConfigError(f"{path.name} line {number}: 'context' is no list of texts, the earlier turns")
        if not isinstance(instructions, str):
            raise ConfigError(f"{path.name} line {number}: 'instructions' is no text, the system prompt")
        if row["query"].strip():
            traffic.append(
                Traffic(
                    query=row["query"], edit_id=edit_id, context=tuple(context), instructions=instructions
                )
            )
    return traffic


def own_pairs(
    edits: Sequence[EditDraft], traffic: Sequence[Traffic], embed: Embed, rng: random.Random
) -> list[Pair]:
    """A user's own pairs: logged queries and an edit's texts with their edit and with the nearest others.

    `traffic` names edits of `edits` only. An edit with the same prompt as a query's own is no negative of it.
    """
    by_id = {edit.id: edit for edit in edits}
    queries = [*traffic, *(Traffic(query=text, edit_id=edit.id) for edit in edits for text in _texts(edit))]
    if not edits or not queries:
        return []
    near = mined(
        embed([e.prompt for e in edits]),
        embed([logged.query for logged in queries]),
        top_k=NEGATIVES_PER_QUERY + 1,
        floor=0.1,
    )
    pairs = []
    for logged, row in zip(queries, near, strict=True):
        own_prompt = None
        if logged.edit_id is not None:
            own = by_id[logged.edit_id]
            own_prompt = _plain(own.prompt)
            pairs.append(_pair(own, logged, in_scope=True))
        others = [edits[place] for place, _ in row if _plain(edits[place].prompt) != own_prompt]
        pairs += [_pair(other, logged, in_scope=False) for other in others[:NEGATIVES_PER_QUERY]]
    rng.shuffle(pairs)
    return pairs


def _texts(edit: EditDraft) -> tuple[str, ...]:
    """The prompt and the paraphrases, also by the other names of the subject."""
    own = (edit.prompt, *edit.paraphrases)
    if edit.subject is None or not edit.aliases:
        return own
    named = alias_forms(edit.prompt, edit.paraphrases, edit.subject, edit.aliases, max_chars=MAX_PROMPT_CHARS)
    return (*own, *named.texts)


def _pair(edit: EditDraft, logged: Traffic, *, in_scope: bool) -> Pair:
    return Pair(
        prompt=edit.prompt, target=edit.target_new, text=logged.query, context=logged.context,
        instructions=logged.instructions, in_scope=in_scope, kind="own",
    )  # fmt: skip


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
