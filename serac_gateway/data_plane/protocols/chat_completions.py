"""OpenAI's POST /v1/chat/completions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

import msgspec

from serac_gateway.data_plane.protocols.base import (
    AnswerHead,
    AnswerWriter,
    CompletionRequest,
    Members,
    raw,
    with_note,
)
from serac_gateway.data_plane.protocols.openai import (
    HONOURED,
    ChoicesWriter,
    OpenAIProtocol,
    parse_choices_request,
)
from serac_gateway.data_plane.protocols.responses import turns_of_response_request
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass, Query, query_of_messages, query_of_turns
from serac_gateway.models.language_models.base import TokenLogprob

_NULL = raw(None)


class ChatCompletionsProtocol(OpenAIProtocol):
    """See `ApiProtocol`."""

    endpoint: ClassVar[Endpoint] = Endpoint.CHAT

    def query(self, body: object) -> Query | Bypass:
        """See `ApiProtocol.query`."""
        if not isinstance(body, Mapping):
            return MALFORMED
        if body.get("messages") is None and body.get("input") is not None:  # as Cursor sends it
            turns = turns_of_response_request(body)
            return turns if isinstance(turns, Bypass) else query_of_turns(turns)
        return query_of_messages(body.get("messages"))

    @property
    def honoured(self) -> Set[str]:
        """See `ApiProtocol.honoured`."""
        return HONOURED

    def _parse(self, body: Mapping[str, Any]) -> CompletionRequest | Bypass:
        return parse_choices_request(self.endpoint, body)

    def add_note(self, members: Members, note: str) -> None:
        """At the end of the system message that opens the conversation, or in a new one."""
        name = "messages" if members.get("messages", _NULL) != _NULL else "input"
        given = msgspec.json.decode(members[name], type=list[msgspec.Raw] | str)
        messages = [raw({"role": "user", "content": given})] if isinstance(given, str) else given
        first = msgspec.json.decode(messages[0], type=Members)
        if msgspec.json.decode(first.get("role", _NULL)) in ("system", "developer"):
            first["content"] = with_note(first.get("content"), note)
            messages[0] = raw(first)
        else:
            messages.insert(0, raw({"role": "system", "content": note}))
        members[name] = raw(messages)

    def answer_writer(self, head: AnswerHead, request: CompletionRequest) -> AnswerWriter:
        """See `ApiProtocol.answer_writer`."""
        return ChatWriter(head, request)


class ChatWriter(ChoicesWriter):
    """Writes chat.completion and chat.completion.chunk."""

    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def content(self, text: str) -> dict[str, object]:
        """The message."""
        refusal = text if self._request.marked_refusal else None
        return {"message": {"role": "assistant", "content": text, "refusal": refusal}}

    def logprobs(self, tokens: Sequence[TokenLogprob], offset: int) -> dict[str, object]:
        """Each token with the most probable ones in its place."""
        content = [
            {**_token(token), "top_logprobs": [_token(other) for other in token.likeliest]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def delta(self, text: str | None) -> dict[str, object]:
        """The delta."""
        if text is None:
            return {"delta": {}}
        return {"delta": {"content": text, **({"refusal": text} if self._request.marked_refusal else {})}}

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """The chunk that opens a choice with its role."""
        return self.chunk(choice, {"delta": {"role": "assistant", "content": "", "refusal": None}})


def _token(token: TokenLogprob) -> dict[str, object]:
    is_whole = "\N{REPLACEMENT CHARACTER}" not in token.text
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()) if is_whole else None,
    }
