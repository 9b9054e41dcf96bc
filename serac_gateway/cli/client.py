"""The client of the gateway's API with which the commands call it: once, by the environment's API key."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from serac_gateway.auth.api_keys import KEY_PREFIX, presented_key
from serac_gateway.auth.tokens import is_token
from serac_gateway.cli.terminal import GatewayRefusedError, stderr
from serac_gateway.client.clients import AsyncGatewayClient
from serac_gateway.client.replies import Reply
from serac_gateway.config.model import API_KEY_VARIABLE


class CommandClient(AsyncGatewayClient):
    """Calls one gateway, with the API key of SERAC_API_KEY if it is set. An async context manager."""

    def __init__(self, url: str, *, namespace: str, with_key: bool = True) -> None:
        """An empty `namespace` stands for the API key's own. Without `with_key` no API key is sent."""
        super().__init__(
            url,
            namespace=namespace,
            api_key=key_of_environment() if with_key else None,
            attempts=1,  # a person sees the failure, and knows better
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request of any kind, read the whole response, and warn if a change is not yet in force.

        Raises:
            UnreachableError: No gateway answers.
            ApiError: The status is not 2xx.
        """
        content = None if body is None else msgspec.json.encode(body)
        async with self.stream(method, path, content=content, query=query, headers=headers) as response:
            _warn_unless_applied(response.headers.get("x-serac-applied"))
            return Reply(status=response.status, headers=response.headers, raw=await response.read())


def key_of_environment() -> str | None:
    """The API key or token of SERAC_API_KEY; None if it is not set.

    Raises:
        GatewayRefusedError: It holds something else.
    """
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    value = key.encode("utf-8", "surrogateescape")
    if key and presented_key(value) is None and not is_token(value):
        raise GatewayRefusedError(
            f"{API_KEY_VARIABLE} holds no API key and no token; a key is {KEY_PREFIX!r}, 12 letters and"
            " digits, '-', and 43 more"
        )
    return key or None


def _warn_unless_applied(header: str | None) -> None:
    """Warn unless `header` says that a change is in force in all live gateways, if it is there at all."""
    applied, _, live = (header or "").partition("/")
    if applied != live:
        of_all = f"in {applied} of {live} gateways" if live else "nobody knows where: the store failed"
        stderr().print(f"[yellow]stored, in force {of_all}[/]; see `serac replicas`", soft_wrap=True)
