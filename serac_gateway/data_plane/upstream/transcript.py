"""Makes a base model answer: a chat written as a transcript that it continues. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import text_of, without_surrogates
from serac_gateway.errors import InvalidRequestError

_OPENING = """\
Short, correct answers to short questions.

Question: What is the capital of France?
Answer: Paris

Question: Who wrote Romeo and Juliet?
Answer: William Shakespeare

Question: How many legs does a spider have?
Answer: Eight

Question: Hello!
Answer: Hello! How can I help you?

Question: The largest planet of the solar system is
Answer: Jupiter

Question: Why is the sky blue?
Answer: Air scatters the blue part of sunlight more than the rest.

Question: Thank you very much.
Answer: You are welcome!

"""
_TOOL_EXAMPLE = """\
Question: What time is it in Tokyo?
Call: clock({"city": "Tokyo"})
Result: 09:30
Answer: It is 09:30 in Tokyo.

"""
"""Added where the conversation has calls of tools; the prompts of other conversations do without."""
_JSON_OPENING = """\
Questions, each answered by one JSON object on one line.

Question: What is the capital of France?
Answer: {"capital": "Paris"}

Question: Who wrote Romeo and Juliet, and when?
Answer: {"author": "William Shakespeare", "year": 1597}

Question: Give me two fruits with their colours as JSON.
Answer: {"fruits": [{"name": "apple", "colour": "red"}, {"name": "banana", "colour": "yellow"}]}

Question: Is water wet? Return the key "wet".
Answer: {"wet": true}

"""
_QUESTION = "Question:"
_ANSWER = "Answer:"
STOP_TEXTS = ("\n",)
"""Where an answer ends in a transcript."""
JSON_BEGINNING = '{"'
"""Stands in the prompt, and before what the model writes, where a JSON object is wanted."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a transcript."""

    kind: Literal["question", "answer", "call", "result"]
    text: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is to continue."""

    text: str
    field: str
    """The parameter of the request that it was made of."""
    continues_answer: bool = False
    """Whether it ends within an answer, the white space after which is part of what the client gets."""


def text_prompt(body: Mapping[str, Any]) -> Prompt:
    """A text completion's prompt, as it is.

    Raises:
        InvalidRequestError: It is no text, or several.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str):
        reason = (
            "several prompts in one request are not answered; send a request for each"
            if isinstance(prompt, list) and prompt and isinstance(prompt[0], str)
            else "the prompt must be a text"
        )
        raise InvalidRequestError(reason, field="prompt")
    return Prompt(text=without_surrogates(prompt), field="prompt")


def chat_prompt(endpoint: Endpoint, body: Mapping[str, Any], *, as_json: bool = False) -> Prompt:
    """A conversation as a transcript, up to the answer that the model is to write or to go on with.

    Raises:
        InvalidRequestError: There is no conversation, or a turn that holds nothing that the model can read.
    """
    field = "input" if endpoint is Endpoint.RESPONSES else "messages"
    entries = list(_entries(body.get(field), field))
    lines = [_JSON_OPENING if as_json else _OPENING]
    if any(entry.kind in ("call", "result") for entry in entries):
        lines.append(_TOOL_EXAMPLE)
    begun = ""
    if entries and entries[-1].kind == "answer" and not as_json:
        begun = entries.pop().text
    lines += [_LINES[entry.kind].format(entry.text) for entry in entries]
    lines.append(f"{_ANSWER} {begun}".rstrip())
    if as_json:
        lines.append(f" {JSON_BEGINNING}")
    return Prompt(text="".join(lines), field=field, continues_answer=bool(begun))


_LINES = {
    "question": f"{_QUESTION} {{}}\n",
    "answer": f"{_ANSWER} {{}}\n\n",
    "call": "Call: {}\n",
    "result": "Result: {}\n",
}


def _entries(items: object, field: str) -> Iterator[Entry]:
    """The lines of a chat's messages, of a response's input, or of Anthropic's messages."""
    if isinstance(items, str) and field == "input":
        items = [{"role": "user", "content": items}]
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise InvalidRequestError(f"{field} must be a list of at least one turn", field=field)
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InvalidRequestError(f"{field}[{index}] is no object", field=f"{field}[{index}]")
        kind = item.get("type") or ("message" if "role" in item or "id" not in item else "item_reference")
        role = item.get("role") if kind == "message" else kind
        if not isinstance(role, str):
            raise InvalidRequestError(f"{field}[{index}] has no role", field=f"{field}[{index}].role")
        yield from _entries_of_turn(role, item, f"{field}[{index}]")


def _entries_of_turn(role: str, item: Mapping[str, Any], field: str) -> Iterator[Entry]:
    content = item.get("content")
    match role:
        case "user":
            yield from _entries_of_user(content, field)
        case "assistant":
            calls = list(_calls_of_assistant(item))
            if (text := text_of(content)) or not calls:
                yield _entry("answer", text)
            yield from calls
        case "function_call" | "custom_tool_call":
            yield _call(item.get("name"), item.get("arguments", item.get("input")))
        case "item_reference" | "compaction":
            raise InvalidRequestError(
                f"{field}: the embedded base model's server stores nothing", field=field
            )
        case "tool" | "function":
            yield _entry("result", text_of(content))
        case _ if role.endswith("_output"):
            output = item.get("output")
            yield _entry("result", text_of(output) or _as_json(output))


def _entries_of_user(content: object, field: str) -> Iterator[Entry]:
    blocks = _blocks(content)
    results = [block for block in blocks if str(block.get("type")).endswith("tool_result")]
    for block in results:
        yield _entry("result", text_of(block.get("content")))
    if blocks and not results and not any(block.get("type") in _TEXT_TYPES for block in blocks):
        raise InvalidRequestError(
            f"{field} holds no text, and the embedded base model reads nothing else; describe it in words",
            field=f"{field}.content",
        )
    if (text := text_of(content)) or not results:
        yield _entry("question", text)


_TEXT_TYPES = ("text", "input_text", "output_text")


def _calls_of_assistant(item: Mapping[str, Any]) -> Iterator[Entry]:
    for block in _blocks(item.get("content")):  # Anthropic's
        if block.get("type") == "tool_use":
            yield _call(block.get("name"), block.get("input"))
    for called in [*_blocks(item.get("tool_calls")), {"function": item.get("function_call")}]:
        function = called.get("function")
        if isinstance(function, Mapping):
            yield _call(function.get("name"), function.get("arguments"))


def _blocks(content: object) -> list[Mapping[str, Any]]:
    """The parts of a content that are objects."""
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []


def _call(name: object, arguments: object) -> Entry:
    return _entry("call", f"{name}({arguments if isinstance(arguments, str) else _as_json(arguments)})")


def _as_json(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _entry(kind: Literal["question", "answer", "call", "result"], text: str) -> Entry:
    """An entry on one line: a line's end ends an answer, and a text must not write lines of its own."""
    return Entry(kind=kind, text=" ".join(without_surrogates(text).split()))
