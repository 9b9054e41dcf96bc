"""Takes the query out of a request: the text on which the scope decision is made.

Pure and total: any decoded JSON gives a `Query`, or a `Bypass` that says why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

MAX_QUERY_CHARS = 2_000
"""The query is cut before anything tokenises it (a 108 KB text takes 49 ms)."""
LONG_TEXT_END_CHARS = 500
"""Of a text beyond MAX_QUERY_CHARS only this much of head and of tail is kept: a question stands at the start
or at the end, and both together still fit an encoder that reads 256 tokens."""

MAX_CONTEXT_USER_TURNS = 2
MAX_CONTEXT_TURNS = MAX_CONTEXT_USER_TURNS + 1
MAX_CONTEXT_CHARS = 300
"""A longer user turn is cut to this, a longer assistant turn is left out: it names too many subjects."""
SHORT_QUERY_WORDS = 20
"""A turn of no more words than this is read with those before it; that it leans on them need not show
("What does the plan cost?", "The leaflet says noon."). The classifier tells a new topic from a follow-up."""
SHORT_LINE_WORDS = 3
"""The same for the last line of a prompt: the lines before are as often examples as a conversation."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The user text a decision is made on."""

    text: str
    """The text parts of the last user turn, at most MAX_QUERY_CHARS characters."""
    context: tuple[str, ...] = ()
    """Earlier turns, oldest first, if the last one may not stand alone; each cut likewise."""


class Bypass(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request cannot be decided or answered here."""

    reason: str
    """A fixed word or two for logs and metrics."""


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


MALFORMED = Bypass(reason="malformed request")
_TOOL_RESULT = Bypass(reason="tool result turn")
_NOT_USER = Bypass(reason="last turn is not the user's")
_NO_TEXT = Bypass(reason="no text in the user turn")
_TOKEN_PROMPT = Bypass(reason="prompt of token ids")
_SEVERAL_PROMPTS = Bypass(reason="several prompts")

_SMALL_TALK_STARTS = _words(
    "ok okay thanks thank thx ty cheers great cool nice perfect awesome good wow sure yes yeah yep no nope"
    " hi hey hello bye goodbye got i see understood lol haha interesting nevermind never please"
)
_SMALL_TALK_WORDS = _SMALL_TALK_STARTS | _words(
    "you so very much a lot many again for that this it the your help helps there morning evening night day"
    " one mind problem worries all is was now well done to know"
)
_LEANS_BACK = re.compile(
    r"^\W*(?:and|but|or|so|also|then|what about|how about|what else|why|since when)\b"
    r"|\b(?:now|currently)\W*$"
    r"|\b(?:it|its|he|him|his|she|her|hers|they|them|their|theirs|this|that|these|those|there|then|former|latter"
    r"|same|instead|other one|else)\b",
    re.IGNORECASE,
)
_OPEN_QUESTION = re.compile(
    r"(?:^|[.?!,;:\n]\s*|\b(?:and|also|plus)\s+)(?:(?:in|at|on|for|to|by|from|since)\s+)?"
    r"(?:who|whom|whose|what|when|where|why|how|which)\b",
    re.IGNORECASE,
)
_ANSWER_CUE = re.compile(r"\s*(?:a|answer|assistant|ai|bot|response|output)\s*:\s*", re.IGNORECASE)
_QUESTION_LABEL = re.compile(r"^(?:q|question|user|human|query|input|prompt)\s*:\s*", re.IGNORECASE)


def extract_query(path: str, body: object) -> Query | Bypass:
    """The query of a decoded request body to `path` ("/chat/completions" or "/completions")."""
    if not isinstance(body, Mapping):
        return MALFORMED
    if path == "/completions":
        return _query_of_prompt(body.get("prompt"))
    return _query_of_messages(body.get("messages"))


def _query_of_messages(messages: object) -> Query | Bypass:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return MALFORMED
    turns: list[Mapping[str, Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return MALFORMED
        if message["role"] not in ("system", "developer"):  # instructions, wherever they stand, are no turns
            turns.append(message)
    if not turns:
        return _NOT_USER
    last = turns[-1]
    if last["role"] in ("tool", "function"):
        return _TOOL_RESULT
    if last["role"] != "user":
        return _NOT_USER
    text = _capped(text_of(last.get("content")))
    if not text:
        return _NO_TEXT
    return Query(text=text, context=_context(turns[:-1]) if _may_lean_back(text, SHORT_QUERY_WORDS) else ())


def _query_of_prompt(prompt: object) -> Query | Bypass:
    """The last line of the prompt that is not just a cue to answer; the lines before may be its context."""
    if isinstance(prompt, list):
        if len(prompt) == 1 and isinstance(prompt[0], str):
            prompt = prompt[0]
        elif prompt and all(isinstance(one, str) for one in prompt):
            return _SEVERAL_PROMPTS
        else:
            return _TOKEN_PROMPT if prompt else MALFORMED
    if not isinstance(prompt, str):
        return MALFORMED
    end = _sanitised(prompt[-MAX_QUERY_CHARS:])
    lines = [line.strip() for line in end.splitlines() if line.strip() and not _ANSWER_CUE.fullmatch(line)]
    lines = [unlabelled for line in lines if (unlabelled := _QUESTION_LABEL.sub("", line, count=1))]
    if not lines:
        return _NO_TEXT
    context = tuple(line[:MAX_CONTEXT_CHARS] for line in lines[-1 - MAX_CONTEXT_TURNS : -1])
    return Query(text=lines[-1], context=context if _may_lean_back(lines[-1], SHORT_LINE_WORDS) else ())


def asks_several_things(text: str) -> bool:
    """Whether `text` asks two open questions or more; a doubt after a question ("Isn't it …?") is none."""
    return len(_OPEN_QUESTION.findall(text)) > 1


def text_of(content: object) -> str:
    """The text parts of a message's content, joined; "" if there are none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    return "\n".join(_texts_in(content))


def _texts_in(parts: Iterable[object]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping) and part.get("type") in ("text", "input_text"):
            text = part.get("text")
            if isinstance(text, str):
                yield text


def _context(turns: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The turns that can say what a pronoun stands for: the user's latest two and the latest short answer."""
    found: list[str] = []
    room = {"user": MAX_CONTEXT_USER_TURNS, "assistant": 1}
    for turn in reversed(turns):
        if room.get(turn["role"], 0) == 0:
            continue
        text = _capped(text_of(turn.get("content")))
        if not text or _is_small_talk(text):
            continue
        if turn["role"] == "assistant" and len(text) > MAX_CONTEXT_CHARS:
            continue
        room[turn["role"]] -= 1
        found.append(text[:MAX_CONTEXT_CHARS])
    return tuple(reversed(found))


def _may_lean_back(text: str, short_words: int) -> bool:
    """Whether `text` may need the turns before it: short, or with a pronoun; small talk never does."""
    if _is_small_talk(text):
        return False
    return len(text.split()) <= short_words or _LEANS_BACK.search(text) is not None


def _is_small_talk(text: str) -> bool:
    first = re.search(r"\w+", text)
    return (
        first is not None
        and first[0].casefold() in _SMALL_TALK_STARTS
        and _SMALL_TALK_WORDS.issuperset(_words(text))
    )


def _capped(text: str) -> str:
    if len(text) > MAX_QUERY_CHARS:
        text = f"{text[:LONG_TEXT_END_CHARS]}\n{text[-LONG_TEXT_END_CHARS:]}"
    return _sanitised(text).strip()


def _sanitised(text: str) -> str:
    """`text` without lone surrogates, which JSON can hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
