"""What tools give back: JSON of a bounded length, in which texts of others are values and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from serac_gateway.client import (
    Decision,
    DecisionCandidate,
    Edits,
    KnownEdit,
    ProposalRecord,
    Proposals,
    Usage,
)

MAX_ITEMS = 20
_MAX_TEXT_CHARS = 400
_MAX_LISTED_CHARS = 100
"""Of each paraphrase and alias."""
_MAX_CHARS = 24_000
"""Of one answer: a model must be able to read it among other things."""


def edits_json(page: Edits) -> str:
    """The edits of a page, with similarities if it has them."""
    near: Sequence[float | None] = page.similarities or [None] * len(page.edits)
    rows = [
        _edit(edit) | ({} if similarity is None else {"similarity": round(similarity, 3)})
        for edit, similarity in zip(page.edits, near, strict=False)
    ]
    return _encoded({"edits": rows, "more": page.next_cursor is not None}, "edits")


def edit_json(edit: KnownEdit) -> str:
    """One edit."""
    return _encoded(_edit(edit))


def decision_json(decision: Decision) -> str:
    """What would become of a question, with the edits that were weighed."""
    decided = {
        "answered_by_edit": decision.edit_id,
        "in_scope": decision.in_scope,
        "route": decision.route,
        "reason": decision.reason,
        "scope_probability": decision.scope_probability,
        "scope_threshold": decision.scope_threshold,
        "candidates": [_candidate(candidate) for candidate in decision.candidates[:MAX_ITEMS]],
        "for_other_audiences": [_candidate(candidate) for candidate in decision.other_audiences[:MAX_ITEMS]],
    }
    return _encoded(decided, "candidates")


def proposals_json(page: Proposals) -> str:
    """The proposals of a page."""
    rows = [_proposal(proposal) for proposal in page.proposals]
    return _encoded({"proposals": rows, "more": page.next_cursor is not None}, "proposals")


def proposal_json(proposal: ProposalRecord) -> str:
    """A proposal that was just made, and what it takes until it is in force."""
    then = "nothing is changed until others agree; this server can neither approve nor apply it"
    return _encoded(_proposal(proposal) | {"note": then})


def usage_json(counts: Usage) -> str:
    """Counts of edits and requests; of edits by use the most used."""
    governed = counts.governed[:MAX_ITEMS] if isinstance(counts.governed, list) else []
    return _encoded({"edits": counts.edits, "requests": counts.routes, "by_edit": governed}, "by_edit")


def _edit(edit: KnownEdit) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": edit.id,
        "version": edit.version,
        "state": edit.state,
        "kind": edit.kind,
        "prompt": _short(edit.prompt),
        "target_new": _short(edit.target_new),
        "audience": edit.audience or None,
        "target_true": None if edit.target_true is None else _short(edit.target_true),
        "subject": None if edit.subject is None else _short(edit.subject),
        "paraphrases": [text[:_MAX_LISTED_CHARS] for text in edit.paraphrases[:MAX_ITEMS]],
        "aliases": [text[:_MAX_LISTED_CHARS] for text in edit.aliases[:MAX_ITEMS]],
        "author": None if edit.author is None else _short(edit.author),
        "reason": None if edit.reason is None else _short(edit.reason),
        "source": None if edit.source is None else _short(edit.source),
        "valid_from": edit.valid_from,
        "valid_until": edit.valid_until,
        "in_force": edit.in_force,
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _candidate(candidate: DecisionCandidate) -> dict[str, Any]:
    fields = {
        "edit_id": candidate.edit_id,
        "prompt": _short(candidate.prompt),
        "target_new": _short(candidate.target_new),
        "scope_probability": round(candidate.scope_probability, 3),
        "scope_threshold": round(candidate.scope_threshold, 3),
    }
    return fields | ({"audience": candidate.audience} if candidate.audience else {})


def _proposal(proposal: ProposalRecord) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "state": proposal.state,
        "action": proposal.action,
        "edit_ids": proposal.edit_ids[:MAX_ITEMS],
        "author": _short(proposal.author),
        "reason": None if proposal.reason is None else _short(proposal.reason),
        "expires_at": proposal.expires_at,
        "needed": proposal.needed,
        "agreed": proposal.agreed,
        "verdicts": [
            {"accepts": verdict.accepts, "reason": _short(verdict.reason)}
            for verdict in proposal.verdicts[:MAX_ITEMS]
        ],
    }


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_CHARS else f"{text[:_MAX_TEXT_CHARS]}… ({len(text):,} characters)"


def _encoded(value: dict[str, Any], listed: str | None = None) -> str:
    """JSON of at most `_MAX_CHARS`: items of the list `listed` are left out from its end until it fits."""
    text = msgspec.json.encode(value).decode()
    while len(text) > _MAX_CHARS and listed is not None and value[listed]:
        value = value | {listed: value[listed][:-1], "more": True}
        text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}… (cut)"
