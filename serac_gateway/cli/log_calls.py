"""What `serac log verify` asks of the gateway, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import msgspec

from serac_gateway.cli.client import GatewayClient
from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.log_verification import BrokenLogError, Evidence, LogVerifier


class LogNotVerifiedError(Exception):
    """The evidence shows that the log is not what was written, or is none.

    Attributes:
        log_id: The entry at which it shows, if it is one.
    """

    def __init__(self, message: str, log_id: str | None = None) -> None:
        super().__init__(message)
        self.log_id = log_id


async def verified(url: str, namespace: str, expected: str | None) -> LogHead:
    """The head of the namespace's log, once all of its evidence has been checked here.

    Raises:
        LogNotVerifiedError: It is not what was written.
        GatewayUnreachableError, GatewayRefusedError: There is no evidence to be had.
    """
    ended = False
    async with (
        GatewayClient(url, namespace=namespace) as client,
        client.stream("GET", "/serac/v1/log:export", query={"evidence": "true"}) as response,
    ):
        verifier = LogVerifier(namespace or response.headers["x-serac-namespace"], expected=expected)
        async for line in _lines(response):
            try:
                evidence = msgspec.json.decode(line, type=Evidence)
                verifier.take(evidence)
            except BrokenLogError as error:
                raise LogNotVerifiedError(str(error), error.log_id) from error
            except msgspec.DecodeError as error:
                raise LogNotVerifiedError(f"the gateway sent what is no evidence ({error})") from error
            ended = isinstance(evidence, LogHead)
    if not ended:
        raise LogNotVerifiedError("the gateway's evidence ended before the head of the log")
    return verifier.head


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own iteration refuses long ones."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
