"""A whole gateway that really listens, in this process, on a store that is gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import uvicorn

from serac_gateway.config.loading import load_config
from serac_gateway.config.model import GatewayConfig
from serac_gateway.models.progress import OnProgress
from serac_gateway.server.app import open_gateway


def started_with(config: Path | None, *, threshold: float | None = None) -> GatewayConfig:
    """The configuration of a gateway to measure: embedded defaults, the file, the scope threshold.

    Raises:
        ConfigError: The file cannot be read, or holds what is not allowed.
    """
    return load_config(config, overrides={"routing": {"scope_threshold": threshold}})


class _Server(uvicorn.Server):
    """Leaves the signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def gateway_in_process(
    config: GatewayConfig, *, on_progress: OnProgress = lambda part, step: None
) -> AsyncIterator[str]:
    """Serve on a free port of loopback, ready when its URL is given; converted models are kept and shared.

    Raises:
        ConfigError: A part cannot be had.
    """
    models = config.data_path / "models"
    models.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="serac-") as folder,
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        (Path(folder) / "models").symlink_to(models.absolute())
        async with open_gateway(
            msgspec.structs.replace(config, data_dir=folder), on_progress=on_progress
        ) as gateway:
            await gateway.wait_until_ready()
            server = _Server(uvicorn.Config(gateway.app, log_level="warning", access_log=False, ws="none"))
            serving = asyncio.ensure_future(server.serve(sockets=[listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving
