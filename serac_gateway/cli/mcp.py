"""`serac mcp`: serves the tools for agents over stdin and stdout, or over HTTP."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import typer

from serac_gateway.cli.options import NamespaceOption, UrlOption, chosen_namespace, chosen_url
from serac_gateway.cli.terminal import EXIT_USAGE, fail, run, stderr
from serac_gateway.errors import ConfigError

_HTTP = "HTTP"


class _Served(msgspec.Struct, frozen=True):
    """What a listener serves."""

    app: Any
    """An ASGI application."""


def mcp(
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    http: Annotated[
        bool, typer.Option("--http", help="Over HTTP at /mcp, for many callers.", rich_help_panel=_HTTP)
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_HTTP)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any.", rich_help_panel=_HTTP)] = 8090,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name in the header Host; may be repeated. Beyond loopback needed.", rich_help_panel=_HTTP
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="An origin of web pages or desktop apps that may call; may be repeated.",
            rich_help_panel=_HTTP,
        ),
    ] = None,
) -> None:
    """Let agents look up, explain and propose edits, by the Model Context Protocol over stdin and stdout.

    It acts under the API key of SERAC_API_KEY, with --http under that of each request instead. Give agents
    keys of role edit. None can approve or apply anything.
    """
    if importlib.util.find_spec("mcp") is None:
        fail("serac mcp needs the extra 'mcp'; run `pip install 'serac_gateway[mcp]'`", EXIT_USAGE)
    gateway_url, chosen = chosen_url(url), chosen_namespace(namespace)
    if not http:
        if allowed_host or allowed_origin:
            fail("--allowed-host and --allowed-origin are of serac mcp --http; add --http", EXIT_USAGE)
        run(_serve_stdio(gateway_url, chosen))
        return
    _serve_http(gateway_url, chosen, host, port, allowed_host or [], allowed_origin or [])


async def _serve_stdio(url: str, namespace: str) -> None:
    from serac_gateway.cli.client import key_of_environment
    from serac_gateway.client import AsyncGatewayClient
    from serac_gateway.mcp_server.tools import edit_server

    async with AsyncGatewayClient(url, namespace=namespace, api_key=key_of_environment()) as client:
        await edit_server(lambda context: client).run_stdio_async()


def _serve_http(url: str, namespace: str, host: str, port: int, hosts: list[str], origins: list[str]) -> None:
    from serac_gateway.client import AsyncGatewayClient
    from serac_gateway.config.model import GatewayConfig, ServerConfig
    from serac_gateway.mcp_server.http import LOOPBACK_HOSTS, MCP_PATH, http_app
    from serac_gateway.server.listener import serve_until_stopped

    config = GatewayConfig(server=ServerConfig(host=host, port=port))
    if config.is_loopback:
        hosts = [*LOOPBACK_HOSTS, *hosts]
    elif not hosts:
        fail(
            f"--host {host!r} is reached from other machines; name those that clients call it by:"
            " --allowed-host mcp.example.org",
            EXIT_USAGE,
        )

    @asynccontextmanager
    async def opened() -> AsyncIterator[_Served]:
        async with AsyncGatewayClient(url, namespace=namespace, attempts=1) as client:
            yield _Served(http_app(client, hosts=hosts, origins=origins))

    async def ready(served: _Served) -> None:
        """It needs nothing but the port: a gateway that does not answer yet is named in each reply."""

    try:
        serve_until_stopped(
            opened,
            config.server,
            when_ready=ready,
            on_ready=lambda address: stderr().print(
                f"serving MCP on {address}{MCP_PATH} for the gateway at {url}; Ctrl-C ends it", soft_wrap=True
            ),
        )
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)
