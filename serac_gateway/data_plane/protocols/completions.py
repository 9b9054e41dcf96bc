"""OpenAI's POST /v1/completions. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

import msgspec

from serac_gateway.data_plane.protocols.base import (
    MAX_CHOICES,
    AnswerHead,
    AnswerWriter,
    CompletionRequest,
    Members,
    raw,
)
from serac_gateway.data_plane.protocols.chat_templates import turns_in_prompt
from serac_gateway.data_plane.protocols.openai import (
    HONOURED,
    ChoicesWriter,
    OpenAIProtocol,
    parse_choices_request,
)
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.followups import is_followup
from serac_gateway.domain.passages import questions_in
from serac_gateway.domain.queries import (
    INSTRUCTIONS,
    MALFORMED,
    MAX_CONTEXT_CHARS,
    MAX_CONTEXT_TURNS,
    MAX_QUERY_CHARS,
    NO_TEXT,
    Bypass,
    Query,
    Turns,
    query_of_turns,
    without_surrogates,
)
from serac_gateway.models.language_models.base import TokenLogprob

MAX_PROMPTS = 64
SHORT_LINE_WORDS = 3
"""A last line of no more words than this is read with the lines before it. Fewer than SHORT_QUERY_WORDS: the
lines of a prompt are as often examples as a conversation."""

_TEMPLATE_CHARS = 16_384
"""The end of a prompt in which a chat template is looked for."""

_TOKEN_PROMPT = Bypass(reason="prompt of token ids", unreadable=True)
_SEVERAL_PROMPTS = Bypass(reason="several prompts")
_ANSWER_CUE = re.compile(r"(?:a|answer|assistant|ai|bot|response|output)\s*+:", re.IGNORECASE)
_QUESTION_LABEL = re.compile(r"^(?:q|question|user|human|query|input|prompt)\s*+:\s*+", re.IGNORECASE)


class CompletionsProtocol(OpenAIProtocol):
    """See `ApiProtocol`."""

    endpoint: ClassVar[Endpoint] = Endpoint.COMPLETIONS

    def query(self, body: object) -> Query | Bypass:
        """The last line of the prompt that is no cue to answer; the lines before it may be its context.

        In a prompt by a chat template, the user's latest turn.
        """
        return _query_of_prompt(body.get("prompt")) if isinstance(body, Mapping) else MALFORMED

    @property
    def honoured(self) -> Set[str]:
        """See `ApiProtocol.honoured`."""
        return HONOURED

    def _parse(self, body: Mapping[str, Any]) -> CompletionRequest | Bypass:
        if body.get("logprobs") is not None and body["logprobs"] is not False:  # 0: of the chosen tokens
            return Bypass(reason="log probabilities")
        if body.get("best_of") not in (None, body.get("n") or 1):
            return Bypass(reason="too many choices")
        return parse_choices_request(self.endpoint, body)

    def prompt_count(self, body: Mapping[str, Any]) -> int:
        """See `ApiProtocol.prompt_count`; at most MAX_CHOICES."""
        prompt = body.get("prompt")
        texts = [text for text in prompt if isinstance(text, str)] if isinstance(prompt, list) else []
        return min(max(1, len(texts)), MAX_CHOICES)

    def prompt_queries(self, body: Mapping[str, Any]) -> Sequence[Query | Bypass]:
        """See `ApiProtocol.prompt_queries`; () for more than MAX_PROMPTS: they are not decided one by one."""
        prompt = body.get("prompt")
        if not isinstance(prompt, list) or not 1 < len(prompt) <= MAX_PROMPTS:
            return ()
        return [_query_of_prompt(text) for text in prompt] if all(isinstance(t, str) for t in prompt) else ()

    def with_prompts(self, members: Members, places: Sequence[int]) -> bytes:
        """See `ApiProtocol.with_prompts`; all other members keep their bytes."""
        prompts = msgspec.json.decode(members["prompt"], type=list[msgspec.Raw])
        kept = {name: value for name, value in members.items() if name != "stream_options"}
        return msgspec.json.encode(
            {**kept, "prompt": raw([prompts[place] for place in places]), "stream": raw(False)}
        )

    def add_note(self, members: Members, note: str) -> None:
        """At the beginning of the prompt."""
        decoded = msgspec.json.decode(members["prompt"])
        prompt = decoded[0] if isinstance(decoded, list) else decoded
        members["prompt"] = raw(f"{note}\n\n{prompt}")

    def add_notes(self, members: Members, notes: Mapping[int, str]) -> None:
        """At the beginning of each prompt."""
        prompts = msgspec.json.decode(members["prompt"], type=list[str])
        for place, note in notes.items():
            prompts[place] = f"{note}\n\n{prompts[place]}"
        members["prompt"] = raw(prompts)

    def answer_writer(self, head: AnswerHead, request: CompletionRequest) -> AnswerWriter:
        """See `ApiProtocol.answer_writer`."""
        return TextWriter(head, request)


def _query_of_prompt(prompt: object) -> Query | Bypass:
    if isinstance(prompt, list):
        if len(prompt) == 1 and isinstance(prompt[0], str):
            prompt = prompt[0]
        elif prompt and all(isinstance(text, str) for text in prompt):
            return _SEVERAL_PROMPTS
        else:
            return _TOKEN_PROMPT if prompt else MALFORMED
    if not isinstance(prompt, str):
        return MALFORMED
    if turns := turns_in_prompt(prompt[-_TEMPLATE_CHARS:]):
        instructions = tuple(turn.content for turn in turns if turn.role in INSTRUCTIONS)
        spoken = [turn for turn in turns if turn.role not in INSTRUCTIONS]
        return query_of_turns(Turns(turns=spoken, instructions=instructions))
    end = without_surrogates(prompt[-MAX_QUERY_CHARS:])
    lines = [line for text in end.splitlines() if (line := text.strip()) and not _ANSWER_CUE.fullmatch(line)]
    lines = [unlabelled for line in lines if (unlabelled := _QUESTION_LABEL.sub("", line, count=1))]
    if not lines:
        return NO_TEXT
    context = tuple(line[:MAX_CONTEXT_CHARS] for line in lines[-1 - MAX_CONTEXT_TURNS : -1])
    questions = questions_in(prompt) if len(prompt) > MAX_QUERY_CHARS else ()
    return Query(
        text=lines[-1],
        context=context if is_followup(lines[-1], SHORT_LINE_WORDS) else (),
        questions=questions,
    )


class TextWriter(ChoicesWriter):
    """Writes text_completion, whole and in chunks."""

    object_name = chunk_name = "text_completion"
    id_prefix = "cmpl-"

    def content(self, text: str) -> dict[str, object]:
        """The text."""
        return {"text": text}

    def logprobs(self, tokens: Sequence[TokenLogprob], offset: int) -> dict[str, object]:
        """Four lists, with an entry for each token."""
        offsets = itertools.accumulate((len(token.text) for token in tokens), initial=offset)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{other.text: other.logprob for other in token.likeliest} for token in tokens],
            "text_offset": list(offsets)[:-1],
        }

    def delta(self, text: str | None) -> dict[str, object]:
        """The text."""
        return {"text": text or ""}
