"""States edits in the context of a request to the base model. All else of the request stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serac_gateway.domain.edits import Edit, EditKind, statement
from serac_gateway.domain.endpoints import Endpoint

_FACTS = "Take the following as true today, whatever you learnt before:"
_MUST_NOT = 'Do not tell what answers "{prompt}"; if asked, say: {target}'
_HOW = 'Whenever you speak of "{prompt}": {target}'


def with_edits(endpoint: Endpoint, body: bytes, edits: Sequence[Edit]) -> bytes:
    """`body` with `edits` stated before the client's own words.

    In the system message that opens the conversation, at its end; without one in a new one. A response has
    `instructions` for that and Anthropic's message `system`; a text completion is told at the head of its
    prompt. All other members keep their bytes and order; `body` has been parsed before.
    """
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    note = _note(edits)
    match endpoint:
        case Endpoint.CHAT:
            members["messages"] = msgspec.Raw(_messages(bytes(members["messages"]), note))
        case Endpoint.COMPLETIONS:
            prompt = msgspec.json.decode(members["prompt"])
            one = prompt[0] if isinstance(prompt, list) else prompt
            members["prompt"] = msgspec.Raw(msgspec.json.encode(f"{note}\n\n{one}"))
        case Endpoint.RESPONSES:
            members["instructions"] = _told(members.get("instructions"), note)
        case Endpoint.MESSAGES:
            members["system"] = _told(members.get("system"), note)
    return msgspec.json.encode(members)


def _messages(raw: bytes, note: str) -> bytes:
    messages = msgspec.json.decode(raw, type=list[msgspec.Raw])
    first = msgspec.json.decode(messages[0], type=dict[str, msgspec.Raw])
    if msgspec.json.decode(first["role"]) in ("system", "developer"):
        first["content"] = _told(first["content"], note)
        messages[0] = msgspec.Raw(msgspec.json.encode(first))
    else:
        messages.insert(0, msgspec.Raw(msgspec.json.encode({"role": "system", "content": note})))
    return msgspec.json.encode(messages)


def _told(content: msgspec.Raw | None, note: str) -> msgspec.Raw:
    """Instructions, as text or as text parts, with `note` at their end; null or none: the note alone."""
    told = None if content is None else msgspec.json.decode(content)
    if isinstance(told, list):
        return msgspec.Raw(msgspec.json.encode([*told, {"type": "text", "text": note}]))
    return msgspec.Raw(msgspec.json.encode(f"{told}\n\n{note}" if told else note))


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
