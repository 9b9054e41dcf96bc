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

from litestar import Litestar

from serac_gateway.auth.principals import Role
from serac_gateway.config.loading import load_config
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ReloadRefusedError
from serac_gateway.server.app import open_over, wait_until_ready
from serac_gateway.server.listener import serve_until_stopped
from serac_gateway.server.workers.host import fronted_by_workers
from tests.http.reloadable_gateway import lasting_parts
from tests.made_keys import stored_key


def say(text: str) -> None:
    print(text, flush=True)


def read_config() -> GatewayConfig:
    return load_config(Path(sys.argv[1]), environment={})


async def reload(app: Litestar) -> None:
    with contextlib.suppress(ReloadRefusedError):  # which is in the log
        await app.state.reloader.reload()


@asynccontextmanager
async def open_app() -> AsyncIterator[Litestar]:
    config = read_config()
    lasting = lasting_parts(config)
    say(await stored_key(lasting.store.api_keys(), role=Role.ADMIN, namespaces=("*",)))
    say(await stored_key(lasting.store.api_keys(), namespaces=("default",), requests_per_minute=5))
    async with open_over(lasting, config, read_config=read_config) as app:
        yield app
    await lasting.follower.close()
    await lasting.announcer.close()
    await lasting.authenticator.close()


if __name__ == "__main__":
    serve_until_stopped(
        open_app,
        read_config().server,
        when_ready=wait_until_ready,
        on_ready=say,
        on_hangup=reload,
        fronting=partial(fronted_by_workers, count=read_config().server.workers),
    )
    say("ended")
