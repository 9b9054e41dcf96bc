"""What bad input costs a gateway in a process of its own: bounded memory, bounded time, and it lives on.

tests/http/test_bad_input.py lists which status each kind of it gets.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from litestar.types import Receive, Scope, Send

from serac_gateway.testing import serving
from tests.e2e.child_gateway import child_gateway
from tests.http.running_gateway import EDITED_QUESTION, ENDPOINTS, NEW_ANSWER, OTHER_QUESTION, chat
from tests.http.wire import WireResponse, connected, fetch, read_body, read_head, request_bytes

CHAT = ENDPOINTS[0]
MB = 1_000_000
WITHIN_S = 60
"""Seconds would do; a busy machine takes longer, and what is not bounded takes for ever."""
SMALL = json.dumps(chat(OTHER_QUESTION)).encode()

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads a process' peak of memory in Linux' /proc"
)


async def counting(scope: Scope, receive: Receive, send: Send) -> None:
    """An upstream that keeps nothing of what it is sent, and says how long it was."""
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size, "more_body": False})


@dataclass
class Child:
    """A gateway with one edit in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    at_rest_bytes: int = 0
    """What it holds before any bad input."""

    def memory_bytes(self, field: str) -> int:
        """VmRSS, what it holds now, or VmHWM, the most it held since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1_024 for line in status.splitlines() if line.startswith(field))

    def forget_peak(self) -> None:
        """Where it is forbidden the peak so far stays, and a test sees less than there is."""
        with suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @asynccontextmanager
    async def costing_at_most(self, megabytes: int) -> AsyncIterator[None]:
        """What happens inside ends, costs no more memory at any time, and leaves the gateway answering."""
        self.forget_peak()
        async with asyncio.timeout(WITHIN_S):
            yield
            grown = self.memory_bytes("VmHWM") - self.at_rest_bytes
            reply = await fetch(self.url, CHAT, json.dumps(chat(EDITED_QUESTION)).encode())
        assert grown < megabytes * MB
        assert reply.one("x-serac-route") == "counterfactual"
        assert self.process.poll() is None


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    frees_at_once = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "100000"}
    with (
        serving(counting) as upstream_url,
        child_gateway(f"{upstream_url}/v1", **frees_at_once) as (url, process),
    ):
        with httpx.Client(base_url=url, timeout=60) as client:
            edit = {"prompt": EDITED_QUESTION, "target_new": NEW_ANSWER}
            assert client.post("/serac/v1/edits", json=edit).status_code == 201
            for target in (*ENDPOINTS, "/v1/files"):  # what a first request costs once is no part of it
                assert client.post(target, json=chat(OTHER_QUESTION)).status_code == 200
        running = Child(url=url, process=process)
        running.at_rest_bytes = running.memory_bytes("VmRSS")
        yield running


async def sent_on_and_on(url: str, head: bytes, part: bytes) -> WireResponse | None:
    """The reply to `head` and `part` again and again, until it comes; None where the connection just ends."""
    async with connected(url) as (reader, writer):
        writer.write(head)
        reading = asyncio.create_task(read_head(reader))
        try:
            while not reading.done():
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)
            response = await reading
            await read_body(reader, response)
        except (ConnectionError, asyncio.IncompleteReadError):
            reading.cancel()
            return None
        return response


@pytest.mark.parametrize("target", [CHAT, "/v1/files"])
@pytest.mark.parametrize("framing", ["content-length", "transfer-encoding"])
async def test_a_body_of_300_mb_passes_and_is_never_held_whole(
    child: Child, target: str, framing: str
) -> None:
    """Of a chat's body 64 MB may be held, to decide on what is whole by then."""
    part, times = b"x" * MB, 300
    if framing == "content-length":
        headers = [("content-length", str(times * MB))]
    else:
        headers = [("transfer-encoding", "chunked")]
        part = b"%x\r\n%s\r\n" % (MB, part)
    megabytes = 100 if target == CHAT else 20
    async with child.costing_at_most(megabytes), connected(child.url) as (reader, writer):
        writer.write(request_bytes(child.url, "POST", target, headers, b""))
        for _ in range(times):
            writer.write(part)
            await writer.drain()
        if framing == "transfer-encoding":
            writer.write(b"0\r\n\r\n")
        reply = await read_head(reader)
        await read_body(reader, reply)
    assert (reply.status, reply.body) == (200, b"%d" % (times * MB))


@pytest.mark.parametrize("framing", ["content-length", "transfer-encoding"])
async def test_a_body_over_the_control_planes_limit_is_refused_before_it_is_read(
    child: Child, framing: str
) -> None:
    length, part = str(300 * MB), b"x" * MB
    if framing == "transfer-encoding":
        length, part = "chunked", b"%x\r\n%s\r\n" % (MB, part)
    head = request_bytes(
        child.url, "POST", "/serac/v1/edits", [(framing, length), ("content-type", "application/json")], b""
    )
    async with child.costing_at_most(50):
        reply = await sent_on_and_on(child.url, head, part)
    assert reply is not None
    assert reply.status == 413


async def test_a_compressed_bomb_is_unpacked_up_to_the_bound_alone(child: Child) -> None:
    bomb = gzip.compress(b"0" * (300 * MB), compresslevel=1)
    async with child.costing_at_most(100):
        reply = await fetch(child.url, CHAT, bomb, ("content-encoding", "gzip"), ("x-serac-debug", "true"))
    assert (reply.one("x-serac-reason"), reply.body) == ("body too long", b"%d" % len(bomb))


async def test_a_head_without_end(child: Child) -> None:
    async with child.costing_at_most(20):
        reply = await sent_on_and_on(child.url, b"POST /v1/chat HTTP/1.1\r\nx: ", b"a" * MB)
    assert reply is None or reply.status == 431  # or we still wrote when it closed


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"POST /v1/chat", id="a head begun"),
        pytest.param(b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"a" * 60_000, id="a head of 60 KB"),
        pytest.param(
            request_bytes("http://x", "POST", CHAT, [("content-length", str(10**9))], b"{" * 60_000),
            id="a body begun",
        ),
    ],
)
async def test_hundreds_of_half_sent_requests(child: Child, begun: bytes) -> None:
    """200 KB each would be 60 MB."""
    begun_s = time.monotonic()
    async with child.costing_at_most(60), AsyncExitStack() as opened:
        for _ in range(300):
            _, writer = await opened.enter_async_context(connected(child.url))
            writer.write(begun)
            await writer.drain()
        reply = await fetch(child.url, CHAT, SMALL)  # nobody is kept out meanwhile
    assert reply.status == 200
    assert time.monotonic() - begun_s < WITHIN_S


BOMBS = {
    "nested lists": (b"[" * 100_000, 50),
    "nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 50),
    "nested content": (
        b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        50,
    ),
    "a number of a million digits": (b'{"model":"m","seed":' + b"9" * MB + b',"messages":[]}', 50),
    "a million messages": (b'{"model":"m","messages":[' + b"{}," * MB + b"{}]}", 300),
}
"""And how many megabytes each may cost: an empty object takes 64 bytes decoded, and 3 in JSON."""


@pytest.mark.parametrize("name", BOMBS)
async def test_a_json_bomb(child: Child, name: str) -> None:
    body, megabytes = BOMBS[name]
    async with child.costing_at_most(megabytes):
        reply = await fetch(child.url, CHAT, body)
    assert (reply.status, reply.body) == (200, b"%d" % len(body))


async def test_json_bombs_at_once_are_not_all_unpacked_at_once(child: Child) -> None:
    """Each takes 75 MB unpacked; all would take 900."""
    body, _ = BOMBS["a million messages"]
    async with child.costing_at_most(400):
        replies = await asyncio.gather(*(fetch(child.url, CHAT, body) for _ in range(12)))
    assert [reply.status for reply in replies] == [200] * 12
