"""`serac mcp`: serves the tools for agents over stdin and stdout, or over HTTP."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer

from serac_gateway.cli.options import NamespaceOption, UrlOption, chosen_namespace, chosen_url
from serac_gateway.cli.terminal import EXIT_USAGE, fail, run, stderr
from serac_gateway.config.model import GatewayConfig, ServerConfig
from serac_gateway.errors import ConfigError

if TYPE_CHECKING:
    from serac_gateway.mcp_server.http import ProtectedResource

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
    resource: Annotated[
        str | None,
        typer.Option(
            help="The URL by which clients call it, for tokens of --authorization-server.",
            rich_help_panel=_HTTP,
        ),
    ] = None,
    authorization_server: Annotated[
        list[str] | None,
        typer.Option(
            help="An issuer whose tokens the gateway takes, published to clients; may be repeated.",
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
        if allowed_host or allowed_origin or resource or authorization_server:
            fail("--allowed-host and the like are of serac mcp --http; add --http", EXIT_USAGE)
        run(_serve_stdio(gateway_url, chosen))
        return
    address = ServerConfig(host=host, port=port)
    protected = _protected_resource(resource, authorization_server or [])
    _serve_http(gateway_url, chosen, address, allowed_host or [], allowed_origin or [], protected)


async def _serve_stdio(url: str, namespace: str) -> None:
    from serac_gateway.cli.client import key_of_environment
    from serac_gateway.client import AsyncGatewayClient
    from serac_gateway.mcp_server.tools import edit_server

    async with AsyncGatewayClient(url, namespace=namespace, api_key=key_of_environment()) as client:
        await edit_server(lambda context: client).run_stdio_async()


def _protected_resource(url: str | None, issuers: list[str]) -> ProtectedResource | None:
    """What the two options name; ends the command where one is missing or no URL."""
    from serac_gateway.mcp_server.http import ProtectedResource

    if url is None and not issuers:
        return None
    if url is None or not issuers:
        fail("--resource and --authorization-server go together; give both or neither", EXIT_USAGE)
    for text in (url, *issuers):
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            fail(f"{text!r} is no such URL; write it as https://mcp.example.org/mcp", EXIT_USAGE)
    return ProtectedResource(url=url, authorization_servers=tuple(issuers))


def _serve_http(
    url: str,
    namespace: str,
    address: ServerConfig,
    hosts: list[str],
    origins: list[str],
    resource: ProtectedResource | None,
) -> None:
    from serac_gateway.client import AsyncGatewayClient
    from serac_gateway.mcp_server.http import LOOPBACK_HOSTS, MCP_PATH, http_app
    from serac_gateway.server.listener import serve_until_stopped

    config = GatewayConfig(server=address)
    if config.is_loopback:
        hosts = [*LOOPBACK_HOSTS, *hosts]
    elif not hosts and resource is None:
        fail(
            f"--host {address.host!r} is reached from other machines; name those that clients call it by:"
            " --allowed-host mcp.example.org",
            EXIT_USAGE,
        )

    @asynccontextmanager
    async def opened() -> AsyncIterator[_Served]:
        async with AsyncGatewayClient(url, namespace=namespace, attempts=1) as client:
            yield _Served(http_app(client, hosts=hosts, origins=origins, resource=resource))

    async def ready(served: _Served) -> None:
        """It needs nothing but the port: a gateway that does not answer yet is named in each reply."""

    try:
        serve_until_stopped(
            opened,
            config.server,
            when_ready=ready,
            on_ready=lambda origin: stderr().print(
                f"serving MCP on {origin}{MCP_PATH} for the gateway at {url}; Ctrl-C ends it", soft_wrap=True
            ),
        )
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)
