"""A client that shows a response as it came over the wire."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class WireResponse:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    arrivals: list[tuple[float, bytes]] = field(default_factory=list)
    """Each chunk (or read) with the time at which it came."""
    complete: bool = False
    """Whether the body ended as HTTP says, rather than with the connection."""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def request_bytes(
    url: str, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None
) -> bytes:
    names = {name.lower() for name, _ in headers}
    head = [f"{method} {target} HTTP/1.1"]
    if "host" not in names:
        head.append(f"host: {urlsplit(url).netloc}")
    head += [f"{name}: {value}" for name, value in headers]
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (body or b"")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**26)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def fetch(
    url: str,
    target: str,
    body: bytes | None = None,
    *headers: tuple[str, str],
    method: str = "POST",
) -> WireResponse:
    """Send a request over a connection of its own and read the response to its end.

    A body for the control plane, which demands a type, is JSON if `headers` do not say otherwise.
    """
    if body and target.startswith("/serac/") and all(name.lower() != "content-type" for name, _ in headers):
        headers = (("content-type", "application/json"), *headers)
    async with connected(url) as (reader, writer):
        writer.write(request_bytes(url, method, target, list(headers), body))
        response = await read_head(reader)
        await read_body(reader, response, bodiless=method == "HEAD")
        return response


async def read_head(reader: asyncio.StreamReader) -> WireResponse:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:-2])]
    return WireResponse(status=int(lines[0].split(" ")[1]), headers=headers)


async def read_body(reader: asyncio.StreamReader, response: WireResponse, *, bodiless: bool = False) -> None:
    if bodiless or response.status in (204, 304):
        response.complete = True
        return
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        if response.all("transfer-encoding") == ["chunked"]:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                _arrived(response, (await reader.readexactly(size + 2))[:-2])
            await reader.readexactly(2)
        else:
            _arrived(response, await reader.readexactly(int(response.one("content-length"))))
        response.complete = True


def _arrived(response: WireResponse, data: bytes) -> None:
    response.arrivals.append((time.perf_counter(), data))
    response.body += data


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.perf_counter() + within_s
    while not condition():
        assert time.perf_counter() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)
