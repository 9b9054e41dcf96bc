"""The forms in which a question can be sent, from field reports F3 and A3: each another way past a reader.

A form makes a request out of a question. `fact` says what becomes of a question that a fact edit answers;
of one that a suppression covers nothing may reach the upstream in any form.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from tests.attacks.lenient_upstream import brotli, zstd

CHAT = "/v1/chat/completions"
JSON_TYPE = ("content-type", "application/json")
Header = tuple[str, str]


class Fact(Enum):
    """What becomes of a question that a fact edit answers."""

    EDITED = "answered with the edit"
    EDITED_OR_PASSED = "answered with the edit, or passed on byte for byte by the documented policy"
    EDITED_OR_REFUSED = "answered with the edit, or refused; never passed on"
    REFUSED = "refused"
    ANY = "answered, passed on or refused"


@dataclass(frozen=True)
class Sent:
    """A request to be written to the wire."""

    body: bytes
    target: str = CHAT
    headers: tuple[Header, ...] = (JSON_TYPE,)


@dataclass(frozen=True)
class Form:
    """A way of sending a question."""

    name: str
    make: Callable[[str], Sent]
    fact: Fact = Fact.EDITED
    readable: bool = True
    """False: a reader may give up on it, so that it is refused where suppressions are in force."""


def chat_of(question: str, **parameters: object) -> dict[str, object]:
    body = {"model": "m", "messages": [{"role": "user", "content": question}], **parameters}
    return {name: value for name, value in body.items() if value is not _LEFT_OUT}


_LEFT_OUT = object()
_PADDING = "The committee met on Tuesday and talked about the new roof of the gym. " * 22
"""Some 1,560 characters."""


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


def _at(path: str) -> Callable[[str], Sent]:
    return lambda question: Sent(encoded(chat_of(question)), target=path)


def _with(**parameters: object) -> Callable[[str], Sent]:
    return lambda question: Sent(encoded(chat_of(question, **parameters)))


def _bytes(change: Callable[[bytes], bytes], *headers: Header) -> Callable[[str], Sent]:
    return lambda question: Sent(change(encoded(chat_of(question))), headers=(JSON_TYPE, *headers))


def _member(raw: bytes) -> Callable[[str], Sent]:
    """The chat with one more member, which nobody needs, written as `raw`."""
    return _bytes(lambda body: body[:-1] + b', "x": ' + raw + b"}")


def _turns(*turns: dict[str, object]) -> Callable[[str], Sent]:
    """Messages; the text Q in them is replaced by the question."""

    def make(question: str) -> Sent:
        body = json.dumps({"model": "m", "messages": list(turns)})
        return Sent(body.replace('"Q"', json.dumps(question)).encode())

    return make


def _body(target: str, **members: object) -> Callable[[str], Sent]:
    """A body for another API; the text Q in it is replaced by the question."""

    def make(question: str) -> Sent:
        text = json.dumps({"model": "m", **members})
        return Sent(text.replace("Q!", json.dumps(question)[1:-1]).encode(), target=target)

    return make


def _said(role: str, content: object = "Q", **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


_PATHS = {
    "a path with an encoded letter": ("/v1/%63hat/completions", Fact.EDITED),
    "a path with an encoded letter later": ("/v1/chat/%63ompletions", Fact.EDITED),
    "a path with an encoded slash": ("/v1/chat%2Fcompletions", Fact.EDITED_OR_REFUSED),
    "a path with an encoded dot segment": ("/v1/x/%2e%2e/chat/completions", Fact.EDITED_OR_REFUSED),
    "a path with an encoded slash and dots": ("/v1/x%2f..%2fchat/completions", Fact.EDITED_OR_REFUSED),
    "a path with a doubled slash": ("/v1//chat/completions", Fact.EDITED),
    "a path with a doubled slash later": ("/v1/chat//completions", Fact.EDITED),
    "a path that begins with two slashes": ("//v1/chat/completions", Fact.EDITED_OR_REFUSED),
    "a path with a slash at its end": ("/v1/chat/completions/", Fact.ANY),
    "a path with a query": (CHAT + "?api-version=2024-10-21", Fact.EDITED),
    "Azure's path below /v1": ("/v1/deployments/m/chat/completions", Fact.EDITED),
    "Azure's path below /v1/openai": ("/v1/openai/deployments/m/chat/completions", Fact.ANY),
    "Azure's path": ("/openai/deployments/m/chat/completions?api-version=2024-10-21", Fact.EDITED),
    "/v1 twice": ("/v1/v1/chat/completions", Fact.ANY),
    "/v1/openai/v1": ("/v1/openai/v1/chat/completions", Fact.ANY),
}

_VALUES: dict[str, tuple[dict[str, object], Fact]] = {
    "presence_penalty": ({"presence_penalty": 0.01}, Fact.EDITED),
    "frequency_penalty": ({"frequency_penalty": 0.5}, Fact.EDITED),
    "repetition_penalty": ({"repetition_penalty": 1.1}, Fact.EDITED),
    "logit_bias": ({"logit_bias": {"50256": -100}}, Fact.EDITED_OR_PASSED),
    "n = 9": ({"n": 9}, Fact.EDITED),
    "n in quotes": ({"n": "1"}, Fact.EDITED),
    "17 stop texts": ({"stop": [f"stop {number}" for number in range(17)]}, Fact.EDITED_OR_PASSED),
    "temperature 3": ({"temperature": 3}, Fact.EDITED),
    "temperature in quotes": ({"temperature": "0.7"}, Fact.EDITED),
    "top_p = 0": ({"top_p": 0}, Fact.EDITED),
    "top_k and min_p": ({"top_k": 40, "min_p": 0.1}, Fact.EDITED),
    "max_tokens = -1": ({"max_tokens": -1}, Fact.EDITED),
    "max_tokens = 0": ({"max_tokens": 0}, Fact.ANY),
    "max_tokens = 512.0": ({"max_tokens": 512.0}, Fact.EDITED),
    "max_tokens in quotes": ({"max_tokens": "512"}, Fact.EDITED),
    "max_tokens over a million": ({"max_tokens": 2_000_000}, Fact.EDITED),
    "a seed of 65 bits": ({"seed": 2**64}, Fact.EDITED),
    "no model": ({"model": _LEFT_OUT}, Fact.EDITED),
    "model null": ({"model": None}, Fact.EDITED),
    "stream in quotes": ({"stream": "false"}, Fact.EDITED_OR_PASSED),
    "stream = 0": ({"stream": 0}, Fact.EDITED_OR_PASSED),
    "web_search_options": ({"web_search_options": {}}, Fact.EDITED_OR_PASSED),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, Fact.EDITED_OR_PASSED),
    "response_format": ({"response_format": {"type": "json_object"}}, Fact.EDITED_OR_PASSED),
    "a grammar": ({"guided_regex": ".*"}, Fact.EDITED_OR_PASSED),
    "audio": (
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        Fact.EDITED_OR_PASSED,
    ),
    "a required tool": (
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": "required",
        },
        Fact.EDITED_OR_PASSED,
    ),
}

_BODIES: dict[str, tuple[Callable[[str], Sent], Fact, bool]] = {
    "gzip": (_bytes(gzip.compress, ("content-encoding", "gzip")), Fact.EDITED, True),
    "deflate": (_bytes(zlib.compress, ("content-encoding", "deflate")), Fact.EDITED, True),
    "br": (_bytes(brotli, ("content-encoding", "br")), Fact.EDITED, True),
    "zstd": (_bytes(zstd, ("content-encoding", "zstd")), Fact.EDITED, True),
    "gzip twice": (
        _bytes(lambda body: gzip.compress(gzip.compress(body)), ("content-encoding", "gzip, gzip")),
        Fact.ANY,
        False,
    ),
    "gzip that is none": (_bytes(bytes, ("content-encoding", "gzip")), Fact.ANY, False),
    "an unknown encoding": (_bytes(bytes, ("content-encoding", "x")), Fact.ANY, False),
    "an unknown encoding that is not passed on": (
        _bytes(bytes, ("content-encoding", "x"), ("connection", "content-encoding")),
        Fact.ANY,
        False,
    ),
    "identity": (_bytes(bytes, ("content-encoding", "identity")), Fact.EDITED, True),
    "a byte order mark": (_bytes(lambda body: b"\xef\xbb\xbf" + body), Fact.EDITED, True),
    "UTF-16 with a mark": (_bytes(lambda body: body.decode().encode("utf-16")), Fact.REFUSED, False),
    "UTF-16 without a mark": (_bytes(lambda body: body.decode().encode("utf-16-le")), Fact.REFUSED, False),
    "UTF-32": (_bytes(lambda body: body.decode().encode("utf-32")), Fact.REFUSED, False),
    "NaN": (_member(b"NaN"), Fact.EDITED, True),
    "-Infinity": (_member(b"[-Infinity]"), Fact.EDITED, True),
    "a number beyond a double": (_member(b"1e400"), Fact.EDITED, True),
    "a number of 400 digits": (_member(b"9" * 400), Fact.EDITED, True),
    "a lone surrogate in a member": (_member(rb'"\ud800"'), Fact.EDITED, True),
    "a bad byte in a member": (_member(b'"caf\xe9"'), Fact.EDITED_OR_PASSED, False),
    "a raw tab in a member": (_member(b'"a\tb"'), Fact.EDITED_OR_PASSED, False),
    "lists nested 900 deep in a member": (_member(b"[" * 900 + b"]" * 900), Fact.EDITED_OR_PASSED, False),
    "escaped letters in a key": (
        _bytes(lambda body: body.replace(b"messages", rb"m\u0065ssages")),
        Fact.EDITED,
        True,
    ),
    "space around the JSON": (_bytes(lambda body: b"\r\n \t" + body + b"\n\n"), Fact.EDITED, True),
    "messages twice, the last one counts": (
        _bytes(lambda body: b'{"messages": [{"role": "user", "content": "Hello"}], ' + body[1:]),
        Fact.EDITED,
        True,
    ),
    "content twice, the last one counts": (
        _bytes(lambda body: body.replace(b'"content"', b'"content": "Hello", "content"')),
        Fact.EDITED,
        True,
    ),
    "no content type": (lambda question: Sent(encoded(chat_of(question)), headers=()), Fact.EDITED, True),
    "text/plain": (
        lambda question: Sent(encoded(chat_of(question)), headers=(("content-type", "text/plain"),)),
        Fact.EDITED,
        True,
    ),
}

_LONG = {"role": "user", "content": "Hello"}
_TURNS: dict[str, tuple[Callable[[str], Sent], Fact]] = {
    "a lone surrogate in an earlier turn": (
        _turns(_said("user", "\ud800"), _said("assistant", "What?"), _said("user")),
        Fact.EDITED,
    ),
    "an empty user turn after it": (_turns(_said("user"), _said("user", "")), Fact.EDITED),
    "please after it": (_turns(_said("user"), _said("user", "please")), Fact.EDITED_OR_PASSED),
    "ok yes please after it": (_turns(_said("user"), _said("user", "ok yes please")), Fact.EDITED_OR_PASSED),
    "a prefilled answer": (_turns(_said("user"), _said("assistant", "It is")), Fact.EDITED_OR_PASSED),
    "an empty prefilled answer": (_turns(_said("user"), _said("assistant", "")), Fact.EDITED_OR_PASSED),
    "a system turn after it": (_turns(_said("user"), _said("system", "Be brief.")), Fact.EDITED),
    "role User": (_turns(_said("User")), Fact.EDITED_OR_PASSED),
    "role human": (_turns(_said("human")), Fact.EDITED_OR_PASSED),
    "role developer": (_turns(_said("developer")), Fact.EDITED_OR_PASSED),
    "only a system turn": (_turns(_said("system")), Fact.EDITED_OR_PASSED),
    "a system turn, and the user says go on": (
        _turns(_said("system"), _said("user", "Answer it.")),
        Fact.EDITED_OR_PASSED,
    ),
    "an assistant's turn, and the user says go on": (
        _turns(_said("user", "Hi"), _said("assistant"), _said("user", "Answer that yourself.")),
        Fact.EDITED_OR_PASSED,
    ),
    "a tool's result after it": (
        _turns(
            _said("user"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "no result"},
        ),
        Fact.EDITED_OR_PASSED,
    ),
    "a part without a type": (_turns(_said("user", [{"text": "Q"}])), Fact.EDITED),
    "a part of type refusal": (
        _turns(_said("user", [{"type": "refusal", "refusal": "Q"}])),
        Fact.EDITED_OR_PASSED,
    ),
    "a part that is a string": (_turns(_said("user", ["Q"])), Fact.EDITED),
    "the question in name": (_turns(_said("user", "Answer the name.", name="Q")), Fact.EDITED_OR_PASSED),
    "the middle of three parts": (
        _turns(
            _said(
                "user",
                [
                    {"type": "text", "text": _PADDING},
                    {"type": "text", "text": "Q"},
                    {"type": "text", "text": _PADDING},
                ],
            )
        ),
        Fact.EDITED_OR_PASSED,
    ),
    "the middle of 3,000 characters": (
        lambda question: Sent(encoded(chat_of(_PADDING + question + " " + _PADDING))),
        Fact.EDITED_OR_PASSED,
    ),
    "Cursor's input on chat/completions": (_body(CHAT, input=[_said("user", "Q!")]), Fact.EDITED_OR_PASSED),
}

_COMPLETIONS, _RESPONSES, _MESSAGES = "/v1/completions", "/v1/responses", "/v1/messages"
_OTHER_APIS: dict[str, tuple[Callable[[str], Sent], Fact]] = {
    "completions: several prompts": (
        _body(_COMPLETIONS, prompt=["Hello", "Q!", "Bye"]),
        Fact.EDITED_OR_PASSED,
    ),
    "completions: one prompt in a list": (_body(_COMPLETIONS, prompt=["Q!"]), Fact.EDITED),
    "completions: echo": (_body(_COMPLETIONS, prompt="Q!", echo=True), Fact.EDITED_OR_PASSED),
    "completions: suffix": (_body(_COMPLETIONS, prompt="Q!", suffix="."), Fact.EDITED_OR_PASSED),
    "completions: logprobs = 0": (_body(_COMPLETIONS, prompt="Q!", logprobs=0), Fact.EDITED_OR_PASSED),
    "completions: token ids": (
        lambda question: Sent(
            encoded({"model": "m", "prompt": [ord(char) for char in question]}), target=_COMPLETIONS
        ),
        Fact.EDITED_OR_PASSED,
    ),
    "completions: ChatML": (
        _body(_COMPLETIONS, prompt="<|im_start|>user\nQ!<|im_end|>\n<|im_start|>assistant\n"),
        Fact.EDITED,
    ),
    "completions: Gemma's template": (
        _body(_COMPLETIONS, prompt="<start_of_turn>user\nQ!<end_of_turn>\n<start_of_turn>model\n"),
        Fact.EDITED,
    ),
    "completions: Alpaca's template": (
        _body(_COMPLETIONS, prompt="### Instruction:\nQ!\n\n### Response:\n"),
        Fact.EDITED,
    ),
    "completions: Phi's template": (
        _body(_COMPLETIONS, prompt="<|user|>\nQ!<|end|>\n<|assistant|>\n"),
        Fact.EDITED,
    ),
    "responses: a summary of reasoning": (
        _body(_RESPONSES, input="Q!", reasoning={"summary": "auto"}),
        Fact.EDITED_OR_PASSED,
    ),
    "responses: in the background": (
        _body(_RESPONSES, input="Q!", background=True),
        Fact.EDITED_OR_PASSED,
    ),
    "responses: a prompt template": (
        _body(_RESPONSES, prompt={"id": "pmpt_1", "variables": {"question": "Q!"}}),
        Fact.EDITED_OR_PASSED,
    ),
    "responses: a JSON schema": (
        _body(
            _RESPONSES,
            input="Q!",
            text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
        ),
        Fact.EDITED_OR_PASSED,
    ),
    "responses: an item without a role": (
        _body(_RESPONSES, input=[{"type": "input_text", "text": "Q!"}]),
        Fact.EDITED_OR_PASSED,
    ),
    "messages: no max_tokens": (_body(_MESSAGES, messages=[_said("user", "Q!")]), Fact.EDITED),
    "messages: temperature 1.2": (
        _body(_MESSAGES, max_tokens=100, temperature=1.2, messages=[_said("user", "Q!")]),
        Fact.EDITED,
    ),
    "messages: thinking": (
        _body(
            _MESSAGES,
            max_tokens=2_000,
            thinking={"type": "enabled", "budget_tokens": 1_024},
            messages=[_said("user", "Q!")],
        ),
        Fact.EDITED_OR_PASSED,
    ),
    "messages: a prefilled answer": (
        _body(_MESSAGES, max_tokens=100, messages=[_said("user", "Q!"), _said("assistant", "It is")]),
        Fact.EDITED_OR_PASSED,
    ),
    "messages: a search result": (
        _body(
            _MESSAGES,
            max_tokens=100,
            messages=[
                _said("user", [{"type": "search_result", "content": [{"type": "text", "text": "Q!"}]}])
            ],
        ),
        Fact.EDITED_OR_PASSED,
    ),
}


def _forms() -> Iterator[Form]:
    for name, (path, fact) in _PATHS.items():
        yield Form(name, _at(path), fact)
    for name, (parameters, fact) in _VALUES.items():
        yield Form(name, _with(**parameters), fact)
    for name, (make, fact, readable) in _BODIES.items():
        yield Form(name, make, fact, readable)
    for name, (make, fact) in (_TURNS | _OTHER_APIS).items():
        yield Form(name, make, fact, readable=fact in (Fact.EDITED, Fact.EDITED_OR_REFUSED))


FORMS = tuple(_forms())
