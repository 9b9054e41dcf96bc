"""The query: the text on which the scope decision is made, taken from the turns of a conversation.

Which member of a request holds the turns is known to its API (data_plane/protocols/). Pure and total: any
decoded JSON gives a `Query`, or a `Bypass` with the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from serac_gateway.domain.followups import is_followup, is_small_talk
from serac_gateway.domain.passages import questions_in

MAX_QUERY_CHARS = 2_000
"""The query is cut before anything tokenises it (a 108 KB text takes 49 ms)."""
LONG_TEXT_END_CHARS = 500
"""Of a text beyond MAX_QUERY_CHARS this much of head and of tail is kept: a question mostly stands at the
start or at the end, and both together still fit an encoder that reads 256 tokens. Questions in between are
kept apart, see `Query.questions`."""

MAX_INSTRUCTION_CHARS = 1_000
"""Of longer instructions half of it is kept of head and of tail."""
MAX_CONTEXT_USER_TURNS = 2
MAX_CONTEXT_TURNS = MAX_CONTEXT_USER_TURNS + 1
MAX_CONTEXT_CHARS = 300
"""A longer user turn is cut to this, a longer assistant turn is left out: it names too many subjects."""
SHORT_QUERY_WORDS = 20
"""A turn of no more words than this is read with the turns before it, also without a pronoun that refers to
them ("What does the plan cost?", "The leaflet says noon."). The classifier separates new topics from
follow-ups."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The user text a decision is made on."""

    text: str
    """The text parts of the last user turn, at most MAX_QUERY_CHARS characters."""
    context: tuple[str, ...] = ()
    """Earlier turns, oldest first, if the last one may be a follow-up; each cut to MAX_CONTEXT_CHARS."""
    instructions: str = ""
    """System and developer messages, joined: they say what is to be done with the text. At most
    MAX_INSTRUCTION_CHARS, their beginning and end."""
    questions: tuple[str, ...] = ()
    """The questions in a text longer than MAX_QUERY_CHARS: see `questions_in`."""
    language: str | None = None
    """The language in which its answer is wanted, as an ISO 639 code; None: nobody has read it."""

    @property
    def sizes(self) -> dict[str, int]:
        """How much was read, without its content; what there is none of is left out.

        Characters of the text and of the instructions, earlier turns, questions in the text.
        """
        sizes = {
            "chars": len(self.text),
            "turns": len(self.context),
            "instructions": len(self.instructions),
            "questions": len(self.questions),
        }
        return {name: size for name, size in sizes.items() if size}


class Bypass(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request cannot be decided or answered by the gateway."""

    reason: str
    """One of a fixed set of short texts, for logs and metrics."""
    unreadable: bool = False
    """Whether there may be a question that cannot be read."""


MALFORMED = Bypass(reason="malformed request", unreadable=True)
NO_TEXT = Bypass(reason="no text in the user turn")
_TOOL_RESULT = Bypass(reason="tool result turn")
_NOT_USER = Bypass(reason="last turn is not the user's")
_TURNS_UPSTREAM = Bypass(reason="leans on turns not shown", unreadable=True)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation, the same for all APIs."""

    role: str
    """"user", "assistant", or "tool" for a tool's result; any other role belongs to neither side."""
    content: object = None
    """Text, or a list of content parts: see `text_of`."""


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of a conversation that a request contains, oldest first, without instructions."""

    turns: list[Turn]
    more_upstream: bool = False
    """Whether there are earlier turns that only the upstream has."""
    instructions: tuple[object, ...] = ()
    """The contents of system and developer messages."""


def query_of_messages(messages: object) -> Query | Bypass:
    """The query of decoded chat messages, oldest first."""
    turns = read_turns(messages)
    return turns if isinstance(turns, Bypass) else query_of_turns(turns)


def read_turns(items: object, *, more_upstream: bool = False) -> Turns | Bypass:
    """The turns in a list of messages.

    The items of a response and the content blocks of Anthropic's messages are read in every API, because
    clients and converters mix them.
    """
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        return MALFORMED
    turns: list[Turn] = []
    instructions: list[object] = []
    for item in items:
        if not isinstance(item, Mapping):
            return MALFORMED
        role = role_of(item)
        if role is None:
            return MALFORMED
        if role in _TEXT_TYPES:  # a content part where a message should be
            turns.append(Turn(role="user", content=[item]))
            continue
        if role == "assistant" and (item.get("tool_calls") or item.get("function_call")):
            role = "tool_calls"
        more_upstream = more_upstream or role in _REFERENCES
        if role in INSTRUCTIONS:  # instructions are no turns, at any position
            instructions.append(item.get("content"))
        else:
            turns.append(
                Turn(role="tool" if _is_tool_result(role, item) else role, content=item.get("content"))
            )
    return Turns(turns=turns, more_upstream=more_upstream, instructions=tuple(instructions))


def with_instructions(conversation: Turns, given: object) -> Turns:
    """The conversation with the instructions that its request has beside the turns, before all others."""
    if not text_of(given).strip():
        return conversation
    return msgspec.structs.replace(conversation, instructions=(given, *conversation.instructions))


def role_of(item: Mapping[str, Any]) -> str | None:
    """The role of a message, or the type of another item of a response; None: it has neither.

    Roles are read in any case and by their other names. Who speaks in an unknown role is taken for a user:
    servers that allow one put its text into the prompt like a user's.
    """
    kind = item.get("type") or ("message" if "role" in item or "id" not in item else "item_reference")
    if kind != "message":
        return kind if isinstance(kind, str) else None
    role = item.get("role")
    if not isinstance(role, str):
        return None
    role = role.strip().lower()
    return _ROLES.get(role, "user")


INSTRUCTIONS = frozenset({"system", "developer"})
_ROLES = {
    **{role: role for role in ("user", "assistant", "system", "developer", "tool", "function")},
    **dict.fromkeys(("model", "bot", "ai", "gpt"), "assistant"),
}
_REFERENCES = frozenset({"item_reference", "compaction"})
"""Items that stand for turns which the request does not contain."""
_TOOL_ROLES = frozenset({"tool", "function", "mcp_approval_response"})


def _is_tool_result(role: str, item: Mapping[str, Any]) -> bool:
    """Whether the turn is a tool's result: a chat's role, a response's item type, or an Anthropic block."""
    if role != "user":
        return role in _TOOL_ROLES or role.endswith("_output")
    content = item.get("content")
    return isinstance(content, list) and any(
        isinstance(block, Mapping) and str(block.get("type")).endswith("tool_result") for block in content
    )


def query_of_turns(conversation: Turns) -> Query | Bypass:
    """The text of the user's latest turn, with earlier turns if it may be a follow-up.

    Empty turns at the end do not count, nor does the beginning of an answer in words; one in another form (a
    brace, a tag) demands an answer in that form. Without any turn the latest instruction is the user's text.
    """
    turns = list(conversation.turns)
    while len(turns) > 1 and _is_empty(turns[-1]):
        turns.pop()
    if not turns and conversation.instructions:
        turns = [Turn(role="user", content=conversation.instructions[-1])]
    while len(turns) > 1 and turns[-1].role == "assistant" and _is_in_words(text_of(turns[-1].content)):
        turns.pop()
    if not turns:
        return _NOT_USER
    *earlier, last = turns
    if last.role == "tool":
        return _TOOL_RESULT
    if last.role != "user":
        return _NOT_USER
    whole = text_of(last.content)
    while is_small_talk(whole[:MAX_CONTEXT_CHARS]) and earlier and earlier[-1].role == "user":
        whole = text_of(earlier.pop().content)  # "please", in a turn of its own
    text = _capped(whole)
    if not text:
        return NO_TEXT
    context = _context(earlier) if is_followup(text, SHORT_QUERY_WORDS) else ()
    if conversation.more_upstream and not context and is_followup(text, 0):
        return _TURNS_UPSTREAM
    questions = questions_in(whole) if len(whole) > MAX_QUERY_CHARS else ()
    instructions = _instructions(conversation, last)
    return Query(text=text, context=context, instructions=instructions, questions=questions)


def _instructions(conversation: Turns, last: Turn) -> str:
    """The text of system and developer messages, but for one that serves as the user's text."""
    contents = [content for content in conversation.instructions if content is not last.content]
    text = "\n".join(filter(None, map(text_of, contents))).strip()
    if len(text) > MAX_INSTRUCTION_CHARS:
        half = MAX_INSTRUCTION_CHARS // 2
        text = f"{text[:half]}\n{text[-half:]}"
    return without_surrogates(text)


def _is_empty(turn: Turn) -> bool:
    """Whether a turn of user or assistant says nothing: no text, and no part that is no text."""
    if turn.role not in ("user", "assistant"):
        return False
    if isinstance(turn.content, list):
        return not any(_is_other_part(part) for part in turn.content) and not text_of(turn.content).strip()
    return turn.content is None or (isinstance(turn.content, str) and not turn.content.strip())


def _is_other_part(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") not in (None, *_TEXT_TYPES)


def _is_in_words(text: str) -> bool:
    return text.strip()[:1].isalnum()


def text_of(content: object) -> str:
    """The text parts of a message's content, joined; "" if there are none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    return "\n".join(_texts_in(content))


_TEXT_TYPES = ("text", "input_text", "output_text", "refusal")


def _texts_in(blocks: Iterable[object]) -> Iterable[str]:
    for block in blocks:
        if isinstance(block, str):
            yield block
        elif isinstance(block, Mapping) and block.get("type") in (None, *_TEXT_TYPES):
            text = block.get("refusal") if block.get("type") == "refusal" else block.get("text")
            if isinstance(text, str):
                yield text


def _context(turns: Sequence[Turn]) -> tuple[str, ...]:
    """The turns a pronoun may refer to: the user's latest two and the latest short answer, oldest first."""
    texts: list[str] = []
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
        texts.append(text[:MAX_CONTEXT_CHARS])
    return tuple(reversed(texts))


def _capped(text: str) -> str:
    if len(text) > MAX_QUERY_CHARS:
        text = f"{text[:LONG_TEXT_END_CHARS]}\n{text[-LONG_TEXT_END_CHARS:]}"
    return without_surrogates(text).strip()


def without_surrogates(text: str) -> str:
    """`text` with "?" for lone surrogates, which JSON can hold and no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")
