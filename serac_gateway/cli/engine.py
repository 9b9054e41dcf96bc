"""`serac engine`: one process with store, edits and models for several gateways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serac_gateway.cli.terminal import stderr

engine_app = typer.Typer(no_args_is_help=True, help="One process with the models for several gateways.")


@engine_app.callback()
def _group() -> None:
    """Keeps `serve` a subcommand, though it is the only one."""


@engine_app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file; see configs/gateway/.")] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Where gateways connect: tls://host:port or unix:///path.", show_default="engine.listen"
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of its own gateway, with /health.", show_default="8080")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the embedded store and of converted models.", show_default="XDG data folder"
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="Edit store: redis://…, rediss://… or unix://….", show_default="embedded"),
    ] = None,
) -> None:
    """Start a gateway that decides and answers for others too: those with its address as engine.url."""
    from serac_gateway.cli.serve import serve_gateway

    serve_gateway(
        config_file=config,
        overrides={
            "data_dir": None if data_dir is None else str(data_dir),
            "server": {"port": port},
            "store": {"url": redis},
            "engine": {"listen": listen},
        },
        is_engine=True,
        on_ready=lambda url: stderr().print(
            f"the engine is ready, with a gateway of its own at [bold]{url}/v1[/]; Ctrl-C ends it",
            soft_wrap=True,
        ),
    )
