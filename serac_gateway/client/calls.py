"""The calls of the edit API, as values: what is sent, and how the reply is read."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from serac_gateway.client.records import (
    Decision,
    Decisions,
    Edits,
    KnownEdit,
    ProposalRecord,
    Proposals,
    Usage,
)
from serac_gateway.client.replies import Reply
from serac_gateway.domain.edits import EditDraft, EditPatch, EditState, check_edit_id, record_json

ResultT = TypeVar("ResultT")
_API = "/serac/v1"
_PROPOSED = 202


class Call(msgspec.Struct, Generic[ResultT], frozen=True, kw_only=True):
    """A request to the API."""

    method: str
    path: str
    read: Callable[[Reply], ResultT]
    """Raises msgspec.DecodeError where a reply is not what it should be."""
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    """JSON."""
    repeatable: bool = True
    """Whether sending it again after a reply was lost does no harm."""


def add_edit(
    draft: EditDraft, *, idempotency_key: str | None = None, propose: bool = False
) -> Call[KnownEdit | ProposalRecord]:
    """Add an edit; it is in force when the call returns, or a proposal where others must agree.

    With `propose` it is a proposal in any case, as with the calls below.

    With a key of your own, also a later process can repeat it; without, this value alone can.
    """
    return Call(
        method="POST",
        path=f"{_API}/edits",
        body=_given(draft),
        headers={"idempotency-key": idempotency_key or secrets.token_urlsafe(24), **_proposed(propose)},
        read=_written,
    )


def change_edit(
    edit_id: str, patch: EditPatch, *, version: int, propose: bool = False
) -> Call[KnownEdit | ProposalRecord]:
    """Change what `patch` gives, if `version` is still the current one."""
    return Call(
        method="PATCH",
        path=_edit_path(edit_id),
        body=msgspec.json.encode(patch),
        headers=_if_match(version) | _proposed(propose),
        read=_written,
        repeatable=False,
    )


def retire_edit(
    edit_id: str,
    *,
    version: int,
    reason: str | None = None,
    author: str | None = None,
    propose: bool = False,
) -> Call[KnownEdit | ProposalRecord]:
    """Retire it, if `version` is still the current one: it never fires again, its history stays."""
    return Call(
        method="DELETE",
        path=_edit_path(edit_id),
        query=_texts(reason=reason, author=author),
        headers=_if_match(version) | _proposed(propose),
        read=_written,
        repeatable=False,
    )


def get_edit(edit_id: str) -> Call[KnownEdit]:
    """The current version; a retired edit too."""
    return Call(method="GET", path=_edit_path(edit_id), read=_as(KnownEdit))


def list_edits(*, state: EditState | None = None, cursor: str | None = None, limit: int = 100) -> Call[Edits]:
    """One page of edits by id; `limit` up to 1,000."""
    query = _texts(state=state, cursor=cursor, limit=str(limit))
    return Call(method="GET", path=f"{_API}/edits", query=query, read=_as(Edits))


def search_edits(
    text: str,
    *,
    by_meaning: bool = False,
    state: EditState | None = None,
    cursor: str | None = None,
    limit: int = 20,
) -> Call[Edits]:
    """Edits in which `text` stands, or those in force that are nearest by meaning (with `limit` alone)."""
    mode = "meaning" if by_meaning else "text"
    query = _texts(q=text, mode=mode, state=state, cursor=cursor, limit=str(limit))
    return Call(method="GET", path=f"{_API}/edits", query=query, read=_as(Edits))


def decide(
    question: str, *, system: str | None = None, labels: Mapping[str, str] | None = None
) -> Call[Decision]:
    """What would become of a question, under a system prompt perhaps. No model answers it.

    `labels` are those of the imagined request, by which audiences are judged.
    """
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": question})
    return Call(
        method="POST",
        path=f"{_API}/scope",
        body=msgspec.json.encode(
            {"queries": [{"messages": messages}]} | ({"labels": labels} if labels else {})
        ),
        read=lambda reply: msgspec.json.decode(reply.raw, type=Decisions).decisions[0],
    )


def list_proposals(
    *,
    state: str | None = "open",
    edit_id: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Call[Proposals]:
    """One page of proposals; `state` open, accepted, rejected, withdrawn, expired, or None for all."""
    query = _texts(state=state, edit_id=edit_id, cursor=cursor, limit=str(limit))
    return Call(method="GET", path=f"{_API}/proposals", query=query, read=_as(Proposals))


def get_proposal(proposal_id: str) -> Call[ProposalRecord]:
    """A proposal with what it would change."""
    return Call(method="GET", path=_proposal_path(proposal_id), read=_as(ProposalRecord))


def withdraw_proposal(proposal_id: str, *, reason: str) -> Call[ProposalRecord]:
    """Close one's own proposal; nothing is changed."""
    return Call(
        method="POST",
        path=f"{_proposal_path(proposal_id)}:withdraw",
        body=msgspec.json.encode({"reason": reason}),
        read=_as(ProposalRecord),
    )


def usage() -> Call[Usage]:
    """How many edits there are, and what became of requests."""
    return Call(method="GET", path=f"{_API}/stats", read=_as(Usage))


def _as(record: type[ResultT]) -> Callable[[Reply], ResultT]:
    def read(reply: Reply) -> ResultT:
        return msgspec.json.decode(reply.raw, type=record)

    return read


def _written(reply: Reply) -> KnownEdit | ProposalRecord:
    if reply.status == _PROPOSED:
        return msgspec.json.decode(reply.raw, type=ProposalRecord)
    return msgspec.json.decode(reply.raw, type=KnownEdit)


def _given(draft: EditDraft) -> bytes:
    """What of the draft is not its default: the gateway has the same defaults."""
    whole: dict[str, Any] = msgspec.json.decode(record_json(draft))
    return msgspec.json.encode({name: value for name, value in whole.items() if value not in (None, [])})


def _edit_path(edit_id: str) -> str:
    return f"{_API}/edits/{check_edit_id(edit_id)}"


def _proposal_path(proposal_id: str) -> str:
    if not proposal_id.startswith("pr_") or not proposal_id.isascii() or not proposal_id[3:].isalnum():
        raise ValueError(f"{proposal_id[:80]!r} is no proposal's id; `list_proposals` gives them")
    return f"{_API}/proposals/{proposal_id}"


def _if_match(version: int) -> dict[str, str]:
    return {"if-match": f'"{version}"'}


def _proposed(propose: bool) -> dict[str, str]:
    return {"x-serac-propose": "true"} if propose else {}


def _texts(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}
