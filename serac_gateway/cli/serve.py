"""Runs the gateway in this process, and shows the progress of its start."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from serac_gateway.cli.start_progress import StartProgress
from serac_gateway.cli.terminal import EXIT_USAGE, fail, stderr
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ConfigError, GatewayError


def serve_gateway(
    *,
    config_file: Path | None,
    overrides: Mapping[str, object],
    on_ready: Callable[[str], None],
    is_engine: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM. An unusable configuration ends it with one line and exit code 2.

    As an engine it also serves other gateways; as none, with `engine.url`, it is a gateway without models.

    SIGHUP reads file and environment again, under the same `overrides`. `on_ready` is called with the URL on
    the event loop, so it must not block.
    """
    from serac_gateway.config.loading import load_config

    def read_config() -> GatewayConfig:
        return load_config(config_file, overrides=overrides)

    try:
        config = read_config()
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)

    # Until the server handles SIGHUP, it must not end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StartProgress(stderr()) as progress:
            # Takes seconds, so a bad configuration is reported before.
            from serac_gateway.observability.logging import configure_logging
            from serac_gateway.server.app import serve, serve_engine, serve_without_models

            configure_logging(config.logging)

            def show_ready(url: str) -> None:
                progress.stop()
                on_ready(url)

            if not is_engine and config.engine.url is not None:
                serve_without_models(config, on_ready=show_ready)
                return
            if not is_engine and config.engine.listen is not None:
                raise ConfigError(
                    f"engine.listen is {config.engine.listen!r}: start the engine with `serac engine serve`,"
                    " or set engine.url for a gateway in front of it"
                )
            (serve_engine if is_engine else serve)(
                config,
                read_config=read_config,
                on_progress=progress.show,
                on_ready=show_ready,
                on_reloaded=lambda runtime: configure_logging(runtime.config.logging),
            )
    except GatewayError as error:  # also a store that fails while its edits are loaded
        fail(error.message, EXIT_USAGE)
