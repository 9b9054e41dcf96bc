"""All the text of a request, for suppressions: whatever stands in it, the base model may read. Pure.

Facts are decided on the user's latest words alone. A suppression must see its question in a system message,
in an earlier turn that the user now confirms, in a tool's description, in a member that another server reads.
Two things do not count, unless the latest words ask for what stands before them: a question that was refused
when it was put, or one refusal would end the conversation; and an instruction not to tell something, which
often stands beside a suppression.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from serac_gateway.data_plane.protocols.chat_templates import turns_in_prompt
from serac_gateway.domain.followups import is_followup, is_small_talk
from serac_gateway.domain.passages import SpokenText
from serac_gateway.domain.queries import INSTRUCTIONS, Turn, role_of, without_surrogates
from serac_gateway.errors import TooLongToReadError

MAX_CHARS = 4_000_000
"""Of all texts together: more than any context window."""

_CONVERSATIONS = frozenset({"messages", "input", "prompt"})
_INSTRUCTION_MEMBERS = frozenset({"system", "instructions"})
NOT_FOR_THE_MODEL = frozenset({
    "model", "user", "metadata", "safety_identifier", "prompt_cache_key", "previous_response_id",
    "conversation", "service_tier",
})  # fmt: skip
"""Members of a body."""
_NO_TEXT = frozenset({
    "type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "image_url", "url", "data", "file_data",
    "b64_json", "encrypted_content", "signature", "cache_control",
})  # fmt: skip
"""Members, at any depth, that hold names or encoded data."""
_MIN_KEY_WORDS = 3
_LEANING_CHARS = 300
"""Of the latest words, in which one that leans back is looked for."""
_ASKS_AGAIN = re.compile(
    r"\b(?:again|earlier|above|before|previous(?:ly)?|first|last|original(?:ly)?|question|answer|asked|anyway"
    r"|ignore|instead|repeat|continue|go on|go ahead|rules?|instructions?|prompt|secret|reveal|forbidden"
    r"|allowed)\b",
    re.IGNORECASE,
)
_THANKS = re.compile(r"\b(?:thanks?|thx|ty|bye|goodbye)\b", re.IGNORECASE)
_CONFIRMS = re.compile(r"\b(?:please|yes|yeah|yep|sure)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?…。？！])\s+|\n+")
_PROHIBITION = re.compile(
    r"\W*+(?:please |under no circumstances )?"
    r"(?:you (?:must|may|should|can|shall|will) (?:not|never)|you (?:cannot|(?:mustn|can|shouldn)['’]t)"
    r"|you are not (?:allowed|permitted) to|never|do not|don['’]?t|refuse to)"
    r" (?:\w+ly |ever )?"
    r"(?:reveal|disclose|divulge|share|tell|give|mention|discuss|talk|say|answer|provide|expose|leak|output|print"
    r"|repeat|speak|state|name|show)\b",
    re.IGNORECASE,
)
_MORE_THAN_A_PROHIBITION = re.compile(
    r"[?:;]|\b(?:but|except|unless|until|before|after|without|instead|rather|only|then|what|who|which|how)\b",
    re.IGNORECASE,
)


def all_text(body: Mapping[str, object], overridden: Iterable[object] = ()) -> list[SpokenText]:
    """The texts of a decoded body, the user's latest words first.

    `overridden` are values of members that the body has twice.

    Raises:
        TooLongToReadError: They have more than MAX_CHARS characters.
    """
    conversations: list[Turn] = []
    instructions: list[str] = []
    others: list[str] = []
    for name, value in body.items():
        if name.lower() in _CONVERSATIONS:
            conversations += _turns(value)
        elif name.lower() in _INSTRUCTION_MEMBERS:
            instructions += _strings(value)
        elif name.lower() not in NOT_FOR_THE_MODEL:
            others += _strings(value)
    others += _strings(tuple(overridden))
    said = [Turn(role="system", content=text) for text in instructions] + conversations
    texts = [
        *sorted(_spoken(said), key=lambda spoken: not spoken.is_latest),
        *(SpokenText(text=without_surrogates(text)) for text in others),
    ]
    count = sum(len(spoken.text) for spoken in texts)
    if count > MAX_CHARS:
        raise TooLongToReadError(
            f"the request has {count:,} characters of text, and at most {MAX_CHARS:,} are read; send less",
            details={"reason": "body too long", "value": count, "limit": MAX_CHARS},
        )
    return texts


def _turns(value: object) -> Iterator[Turn]:
    """The turns of a conversation, in whatever form it comes; their contents are texts."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence):
        yield Turn(role="user", content="\n".join(_strings(value)))
        return
    for item in value:
        if isinstance(item, str):
            yield from turns_in_prompt(item) or [Turn(role="user", content=item)]
        elif isinstance(item, Mapping):
            yield Turn(role=role_of(item) or "user", content="\n".join(_strings(item)))


def _spoken(turns: Sequence[Turn]) -> Iterator[SpokenText]:
    """The texts of `turns` that count; the assistant's own only where the latest words lean on them."""
    said = [(turn.role, text) for turn in turns if (text := without_surrogates(str(turn.content))).strip()]
    begin = len(said)
    while begin and said[begin - 1][0] == "assistant":
        begin -= 1  # the beginning of the answer
    while begin and said[begin - 1][0] != "assistant":
        begin -= 1
    words = " ".join(text for role, text in said[begin:] if role not in INSTRUCTIONS)[:_LEANING_CHARS]
    asks_again, leans_back = _asks_again(words), is_followup(words, 0)
    for place, (role, text) in enumerate(said):
        if role in INSTRUCTIONS:
            yield SpokenText(text=text if asks_again or leans_back else _without_prohibitions(text))
            continue
        if place >= begin:
            yield SpokenText(text=text, is_latest=True)
            continue
        if role != "assistant" or asks_again:
            yield SpokenText(text=text, reply=None if asks_again else _reply_after(said[:begin], place))


def _asks_again(words: str) -> bool:
    if is_small_talk(words):
        return _CONFIRMS.search(words) is not None or _THANKS.search(words) is None
    return _ASKS_AGAIN.search(words) is not None


def _reply_after(said: Sequence[tuple[str, str]], place: int) -> str | None:
    """What the assistant said next, before the user's next turn."""
    for role, text in said[place + 1 :]:
        if role in ("assistant", "user"):
            return text if role == "assistant" else None
    return None


def _without_prohibitions(text: str) -> str:
    """`text` without the sentences that only forbid to tell something."""
    return "\n".join(
        sentence
        for sentence in _SENTENCE_END.split(text)
        if not _PROHIBITION.match(sentence) or _MORE_THAN_A_PROHIBITION.search(sentence)
    )


def _strings(value: object) -> Iterator[str]:
    """Every text within `value`, in order; names of members that look like a text are some too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            if name in _NO_TEXT:
                continue
            if len(name.split()) >= _MIN_KEY_WORDS:
                yield name
            yield from _strings(member)
    elif isinstance(value, Sequence):
        for member in value:
            yield from _strings(member)
