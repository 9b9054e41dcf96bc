"""An application that serves as `serac serve` does, opens slowly, and prints what SIGHUP makes it do.

``python -m tests.e2e.sighup_gateway HANDLING_S``
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

from litestar import Litestar

from serac_gateway.config.model import ServerConfig
from serac_gateway.server.listener import serve_until_stopped


def say(text: str) -> None:
    print(text, flush=True)


@asynccontextmanager
async def open_app() -> AsyncIterator[SimpleNamespace]:
    say("opening")
    await asyncio.sleep(0.5)
    yield SimpleNamespace(app=Litestar([]))
    say("closed")


async def at_once(gateway: SimpleNamespace) -> None:
    pass


async def handle(gateway: SimpleNamespace) -> None:
    say("SIGHUP")
    await asyncio.sleep(float(sys.argv[1]))
    say("handled")
    raise RuntimeError("the next signal is handled all the same")


if __name__ == "__main__":
    serve_until_stopped(open_app, ServerConfig(port=0), when_ready=at_once, on_ready=say, on_sighup=handle)
