"""Takes the query out of a request: the text on which the scope decision is made.

Pure and total: any decoded JSON gives a `Query`, or a `Bypass` that says why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from serac_gateway.domain.followups import is_followup, is_small_talk

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


MALFORMED = Bypass(reason="malformed request")
_TOOL_RESULT = Bypass(reason="tool result turn")
_NOT_USER = Bypass(reason="last turn is not the user's")
_NO_TEXT = Bypass(reason="no text in the user turn")
_TURNS_UPSTREAM = Bypass(reason="leans on turns not shown")
_TOKEN_PROMPT = Bypass(reason="prompt of token ids")
_SEVERAL_PROMPTS = Bypass(reason="several prompts")

_OPEN_QUESTION = re.compile(
    r"(?:^|[.?!,;:\n]\s*|\b(?:and|also|plus)\s+)(?:(?:in|at|on|for|to|by|from|since)\s+)?"
    r"(?:who|whom|whose|what|when|where|why|how|which)\b",
    re.IGNORECASE,
)
_ANSWER_CUE = re.compile(r"\s*(?:a|answer|assistant|ai|bot|response|output)\s*:\s*", re.IGNORECASE)
_QUESTION_LABEL = re.compile(r"^(?:q|question|user|human|query|input|prompt)\s*:\s*", re.IGNORECASE)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation, in whichever API."""

    role: str
    """"user", "assistant", "tool" for what a tool said; anything else is nobody's turn."""
    content: object = None
    """Text, or a list of parts: see `text_of`."""


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as far as the request shows it, oldest turn first, without instructions."""

    turns: list[Turn]
    more_upstream: bool = False
    """Whether there are earlier turns that only the upstream knows."""


def extract_query(path: str, body: object) -> Query | Bypass:
    """The query of a decoded request body to `path`, one of `completions.base.Endpoint`."""
    if path == "/completions":
        return _query_of_prompt(body.get("prompt")) if isinstance(body, Mapping) else MALFORMED
    found = turns_of(path, body)
    return found if isinstance(found, Bypass) else _query_of_turns(found)


def turns_of(path: str, body: object) -> Turns | Bypass:
    """The turns of a decoded request body to any other path than that of text completions."""
    if not isinstance(body, Mapping):
        return MALFORMED
    if path != "/responses":
        return _turns_in(body.get("messages"))
    upstream_knows = body.get("previous_response_id") is not None or body.get("conversation") is not None
    asked = body.get("input")
    if isinstance(asked, str):
        return Turns(turns=[Turn(role="user", content=asked)], more_upstream=upstream_knows)
    return _turns_in(asked, more_upstream=upstream_knows)


def _turns_in(items: object, *, more_upstream: bool = False) -> Turns | Bypass:
    """The turns in the messages of a chat, or in the input items of a response."""
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        return MALFORMED
    turns: list[Turn] = []
    for item in items:
        if not isinstance(item, Mapping):
            return MALFORMED
        kind = item.get("type") or ("message" if "role" in item or "id" not in item else "item_reference")
        role = item.get("role") if kind == "message" else kind
        if not isinstance(role, str):
            return MALFORMED
        more_upstream = more_upstream or role in _REFERENCES
        if role not in _INSTRUCTIONS:  # wherever they stand, they are no turns
            turns.append(
                Turn(role="tool" if _is_tool_result(role, item) else role, content=item.get("content"))
            )
    return Turns(turns=turns, more_upstream=more_upstream)


_INSTRUCTIONS = frozenset({"system", "developer"})
_REFERENCES = frozenset({"item_reference", "compaction"})
"""Items that stand for turns which the request does not show."""
_TOOL_ROLES = frozenset({"tool", "function", "mcp_approval_response"})


def _is_tool_result(role: str, item: Mapping[str, Any]) -> bool:
    """Whether a tool speaks: a chat's role, a response's type of item, a block in Anthropic's user turn."""
    if role != "user":
        return role in _TOOL_ROLES or role.endswith("_output")
    content = item.get("content")
    return isinstance(content, list) and any(
        isinstance(block, Mapping) and str(block.get("type")).endswith("tool_result") for block in content
    )


def _query_of_turns(found: Turns) -> Query | Bypass:
    if not found.turns:
        return _NOT_USER
    *earlier, last = found.turns
    if last.role == "tool":
        return _TOOL_RESULT
    if last.role != "user":
        return _NOT_USER
    text = _capped(text_of(last.content))
    if not text:
        return _NO_TEXT
    context = _context(earlier) if is_followup(text, SHORT_QUERY_WORDS) else ()
    if found.more_upstream and not context and is_followup(text, 0):
        return _TURNS_UPSTREAM
    return Query(text=text, context=context)


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
    return Query(text=lines[-1], context=context if is_followup(lines[-1], SHORT_LINE_WORDS) else ())


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
        elif isinstance(part, Mapping) and part.get("type") in ("text", "input_text", "output_text"):
            text = part.get("text")
            if isinstance(text, str):
                yield text


def _context(turns: Sequence[Turn]) -> tuple[str, ...]:
    """The turns that can say what a pronoun stands for: the user's latest two and the latest short answer."""
    found: list[str] = []
    room = {"user": MAX_CONTEXT_USER_TURNS, "assistant": 1}
    for turn in reversed(turns):
        if room.get(turn.role, 0) == 0:
            continue
        text = _capped(text_of(turn.content))
        if not text or is_small_talk(text):
            continue
        if turn.role == "assistant" and len(text) > MAX_CONTEXT_CHARS:
            continue
        room[turn.role] -= 1
        found.append(text[:MAX_CONTEXT_CHARS])
    return tuple(reversed(found))


def _capped(text: str) -> str:
    if len(text) > MAX_QUERY_CHARS:
        text = f"{text[:LONG_TEXT_END_CHARS]}\n{text[-LONG_TEXT_END_CHARS:]}"
    return _sanitised(text).strip()


def _sanitised(text: str) -> str:
    """`text` without lone surrogates, which JSON can hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
