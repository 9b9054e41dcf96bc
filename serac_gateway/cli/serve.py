"""Runs the gateway in this process, showing what it loads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.markup import escape

from serac_gateway.cli.terminal import EXIT_USAGE, fail, stderr
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ConfigError, GatewayError


def serve_gateway(
    *,
    config_file: Path | None,
    overrides: Mapping[str, object],
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. What cannot be used ends with one line and exit code 2.

    SIGHUP has file and environment read again, under the same `overrides`.

    `on_ready` is told the URL, on the event loop: it must not block.
    """
    from serac_gateway.config.loading import load_config

    def read_config() -> GatewayConfig:
        return load_config(config_file, overrides=overrides)

    try:
        config = read_config()
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)

    # One that comes while models are loaded is answered when they are; until then it must not end us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from serac_gateway.observability.logging import configure_logging
    from serac_gateway.server.app import serve  # seconds: a bad config is told without them

    configure_logging(config.logging)
    console = stderr()
    status = console.status("starting")
    doing: dict[str, str] = {}

    def show_progress(part: str, text: str) -> None:
        doing[part] = text
        if console.is_terminal:
            status.update(escape("; ".join(f"{part}: {text}" for part, text in doing.items())))
        else:
            console.print(f"{part}: {text}", markup=False)

    def show_ready(url: str) -> None:
        status.stop()
        on_ready(url)

    try:
        status.start()
        serve(
            config,
            read_config=read_config,
            on_progress=show_progress,
            on_ready=show_ready,
            on_reloaded=lambda runtime: configure_logging(runtime.config.logging),
        )
    except GatewayError as error:  # also a store that fails while its edits are loaded
        status.stop()
        fail(error.message, EXIT_USAGE)
    finally:
        status.stop()
