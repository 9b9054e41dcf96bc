"""`serac mcp`: serves the tools for agents over stdin and stdout."""

from __future__ import annotations

import importlib.util

from serac_gateway.cli.options import NamespaceOption, UrlOption, chosen_namespace, chosen_url
from serac_gateway.cli.terminal import EXIT_USAGE, fail, run


def mcp(url: UrlOption = None, namespace: NamespaceOption = None) -> None:
    """Let an agent look up, explain and propose edits, by the Model Context Protocol over stdin and stdout.

    It acts under the API key of SERAC_API_KEY: give it one of role edit. It cannot approve or apply anything.
    """
    if importlib.util.find_spec("mcp") is None:
        fail("serac mcp needs the extra 'mcp'; run `pip install 'serac_gateway[mcp]'`", EXIT_USAGE)
    run(_serve(chosen_url(url), chosen_namespace(namespace)))


async def _serve(url: str, namespace: str) -> None:
    from serac_gateway.cli.client import key_of_environment
    from serac_gateway.client import AsyncGatewayClient
    from serac_gateway.mcp_server.tools import edit_server

    async with AsyncGatewayClient(url, namespace=namespace, api_key=key_of_environment()) as client:
        await edit_server(client).run_stdio_async()
