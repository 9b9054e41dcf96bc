"""Whether two replies of a server are the same, but for what it says differently each time.

Ids made at random and times of creation are masked; status, headers, their order and every byte are left.
"""

from __future__ import annotations

import asyncio
import json
import re

from tests.http.wire import WireResponse, fetch

JSON = ("content-type", "application/json")
REQUEST_ID = ("x-request-id", "6f1c9a52-3a55-4f0e-9a77-0d5d3c1f2b11")
"""Some servers make their ids of it; one refuses what is no UUID."""
VARYING_HEADERS = {"date", "openai-processing-ms"}
OTHER_HEADERS = {"connection", "transfer-encoding", "content-length", REQUEST_ID[0]}
"""Of one connection only; compared in another way; added where the server has none."""


async def ask(
    url: str, method: str, target: str, body: bytes | None, *headers: tuple[str, str]
) -> WireResponse:
    return await asyncio.wait_for(fetch(url, target, body, JSON, REQUEST_ID, *headers, method=method), 60)


def compared(response: WireResponse, *, joined: bool) -> tuple[int, list[tuple[str, str]], object]:
    """What must be the same each time."""
    headers = [
        (name, "*" if name in VARYING_HEADERS else value)
        for name, value in ((name.lower(), value) for name, value in response.headers)
        if name not in OTHER_HEADERS and not name.startswith("x-serac-")
    ]
    if lengths := response.all("content-length"):  # a time of creation may have more or fewer digits
        assert lengths == [str(len(response.body))]
    body = masked(response.body)
    if joined and response.one("content-type").startswith("text/event-stream"):
        return response.status, headers, with_text_joined(body)
    return response.status, headers, body


def masked(body: bytes) -> bytes:
    """Without ids made at random and times of creation."""
    body = re.sub(rb'("(?:id|item_id)":\s?"[a-z]*[-_]?)[0-9a-f-]{8,}"', rb'\1*"', body)
    return re.sub(rb'("created(?:_at)?":\s?)[0-9.]+', rb"\g<1>0", body)


def with_text_joined(body: bytes) -> tuple[str, list[str]]:
    """The text that an event stream carries, and its events without that; like ones in a row are one."""
    text, events = "", []
    for block in body.decode().strip().split("\n\n"):
        name, _, data = block.rpartition("data: ")
        if data.startswith("{"):
            event = json.loads(data)
            event.pop("sequence_number", None)
            text += taken_text(event)
            data = json.dumps(event)
        if events[-1:] != [name + data]:
            events.append(name + data)
    return text, events


def taken_text(event: dict) -> str:
    """The text of an event, which has none afterwards; what says the whole text again is left."""
    if event.get("type") == "response.output_text.delta":
        return event.pop("delta")
    if event.get("type") == "content_block_delta":
        return event["delta"].pop("text")
    for choice in event.get("choices", ()):
        return choice.pop("text", "") or choice.get("delta", {}).pop("content", "")
    return ""
