"""A chat that the console reads piece by piece: the data plane ends its work, unless the reader leaves."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from litestar.types import Receive, Scope, Send

from serac_gateway.auth.principals import ANYONE
from serac_gateway.config.model import GatewayConfig
from serac_gateway.console.planes import Planes, PlanesClient


def client(app: Any) -> PlanesClient:  # noqa: ANN401 - an ASGI application
    planes = Planes(control=app, data=app, upstream=cast("Any", None), config=GatewayConfig())
    scope = cast(
        "Scope", {"asgi": {}, "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    )
    return PlanesClient(planes, scope, cast("Receive", None), ANYONE, None)


async def start(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Kind", b"a")]})


async def test_what_follows_a_reply_that_was_read_is_not_cut_off() -> None:
    """The data plane counts and records a request once it is answered."""
    recorded = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await start(send)
        for number in range(40):  # more than wait for a slow reader
            await send({"type": "http.response.body", "body": b"%d " % number, "more_body": number < 39})
        await asyncio.sleep(0.05)
        recorded.append(scope["path"])

    async with client(app).chat({}, {}) as reply:
        whole = await reply.whole()
    assert whole.headers == {"x-kind": "a"}
    assert whole.body.split() == [b"%d" % number for number in range(40)]
    assert recorded == ["/v1/chat/completions"]


async def test_whoever_leaves_ends_what_is_computed() -> None:
    ends = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async with client(app).chat({}, {}) as reply:
        assert reply.status == 200
    assert ends == ["cancelled"]


async def test_a_failure_in_the_middle_reaches_the_reader() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        async with client(app).chat({}, {}) as reply:
            await reply.whole()
