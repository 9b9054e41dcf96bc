"""Asks a probe by the request that a user's client would send, and times the reply.

What users send: a question, and today a text to be continued as well, as one user message to
/v1/chat/completions. /v1/completions takes texts to be continued too; `Form` can ask for that.
Greedy. What must be answered here is streamed, for the time to the first token. What must not change is
asked whole: servers cut a stream into chunks by chance, and a whole reply is compared byte for byte.
"""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from serac_gateway.cli.ask import CHAT_PATH
from serac_gateway.cli.client import CommandClient
from serac_gateway.cli.terminal import GatewayRefusedError
from training.benchmarks.base import Probe
from training.data.conversations import chat_messages

COMPLETIONS_PATH = "/v1/completions"
_PER_REPLY = re.compile(rb'"(?:id|created)"\s*:\s*(?:"[^"]*"|\d+)')
"""What a server makes anew for each reply to the same request."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request that are the same for all probes."""

    model: str
    max_tokens: int
    as_completion: bool = False
    """Send the text to /v1/completions; probes with earlier turns remain chats."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    text: str
    route: str
    """Of the header x-serac-route; "none" without it."""
    edit_id: str | None
    """The edit that fired."""
    tokens: int | None
    first_token_ms: float | None
    """None: not streamed, or no text came."""
    total_ms: float
    raw: bytes
    """Without id and time; empty if streamed."""


async def ask_streamed(client: CommandClient, probe: Probe, form: Form) -> Reply:
    """Ask, and read the stream.

    Raises:
        UnreachableError: Nobody answers, or the stream breaks off.
        ApiError: The status is not 2xx.
        GatewayRefusedError: The stream ends with an error.
    """
    path, body = _request(probe, form)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    text, tokens, first_token_ms = "", None, None
    begun = time.perf_counter()
    async with client.stream(
        "POST", path, content=msgspec.json.encode(body), headers={"x-serac-debug": "true"}
    ) as response:
        async for line in response.lines():
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            event = msgspec.json.decode(data)
            if "error" in event:
                raise GatewayRefusedError(f"the answer broke off: {event['error'].get('message')}")
            part = "".join(_text_of(choice, "delta") for choice in event.get("choices", ()))
            if part and first_token_ms is None:
                first_token_ms = (time.perf_counter() - begun) * 1_000
            text += part
            tokens = _tokens(event, tokens)
        headers = response.headers
    return Reply(
        text=text,
        route=headers.get("x-serac-route", "none"),
        edit_id=headers.get("x-serac-edit-id"),
        tokens=tokens,
        first_token_ms=first_token_ms,
        total_ms=(time.perf_counter() - begun) * 1_000,
        raw=b"",
    )


async def ask_whole(client: CommandClient, probe: Probe, form: Form) -> Reply:
    """Ask, and read the reply at once. Raises as `ask_streamed` does."""
    path, body = _request(probe, form)
    begun = time.perf_counter()
    reply = await client.call("POST", path, body=body, headers={"x-serac-debug": "true"})
    total_ms = (time.perf_counter() - begun) * 1_000
    decoded = reply.json()
    return Reply(
        text=_text_of(decoded["choices"][0], "message"),
        route=reply.headers.get("x-serac-route", "none"),
        edit_id=reply.headers.get("x-serac-edit-id"),
        tokens=_tokens(decoded, None),
        first_token_ms=None,
        total_ms=total_ms,
        raw=_PER_REPLY.sub(b"", reply.raw),
    )


def _request(probe: Probe, form: Form) -> tuple[str, dict[str, Any]]:
    limits = {"model": form.model, "max_tokens": form.max_tokens, "temperature": 0}
    if form.as_completion and not probe.context:
        return COMPLETIONS_PATH, {**limits, "prompt": probe.text}
    return CHAT_PATH, {**limits, "messages": chat_messages(probe.context, probe.text)}


def _text_of(choice: dict[str, Any], holder: str) -> str:
    return (choice[holder].get("content") if holder in choice else choice.get("text")) or ""


def _tokens(decoded: dict[str, Any], default: int | None) -> int | None:
    usage = decoded.get("usage") or {}
    return usage.get("completion_tokens", default)
