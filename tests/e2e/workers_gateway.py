"""A gateway that serves with real worker processes as `serac serve` does, on fakes where models would be.

``python -m tests.e2e.workers_gateway CONFIG_FILE`` prints an API key of role admin, one of role chat that
allows five requests a minute, and its URL when it serves.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from serac_gateway.auth.principals import Role
from serac_gateway.config.loading import load_config
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ReloadRefusedError
from serac_gateway.server.app import start_gateway
from serac_gateway.server.gateway import Gateway
from serac_gateway.server.listener import serve_until_stopped
from serac_gateway.server.workers.host import workers_frontend
from tests.http.reloadable_gateway import fake_process
from tests.made_keys import stored_key


def say(text: str) -> None:
    print(text, flush=True)


def read_config() -> GatewayConfig:
    return load_config(Path(sys.argv[1]), environment={})


async def reload(gateway: Gateway) -> None:
    with contextlib.suppress(ReloadRefusedError):  # it is in the log
        await gateway.reloader.reload()


@asynccontextmanager
async def open_app() -> AsyncIterator[Gateway]:
    config = read_config()
    process = fake_process(config)
    say(await stored_key(process.store.api_keys(), role=Role.ADMIN, namespaces=("*",)))
    say(await stored_key(process.store.api_keys(), namespaces=("default",), requests_per_minute=5))
    async with start_gateway(process, config, read_config=read_config) as gateway:
        yield gateway
    await process.follower.close()
    await process.heartbeat.close()
    await process.authenticator.close()


if __name__ == "__main__":
    serve_until_stopped(
        open_app,
        read_config().server,
        when_ready=Gateway.wait_until_ready,
        on_ready=say,
        on_sighup=reload,
        open_frontend=partial(workers_frontend, count=read_config().server.workers),
    )
    say("ended")
