"""The seam to the upstream: the service that hosts the base model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from serac_gateway.auth.principals import Principal
from serac_gateway.domain.body_budget import HeldBody
from serac_gateway.domain.headers import Headers


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request on its way to the upstream, unchanged but for its headers of one connection."""

    method: str
    target: bytes
    """Raw path below the base URL, still percent-encoded, with its query string: b"/models?limit=1"."""
    headers: Headers
    """The client's that pass from end to end (see `headers.end_to_end`), and the gateway's own."""
    body: bytes | AsyncIterator[bytes]
    """Whole, or still arriving from the client."""
    client: str | None = None
    """The client's address, if it is known."""
    scheme: str = "http"
    """With which the client asked."""
    sender: Principal | None = None
    """On whose behalf it is sent; None: the gateway's own."""
    held: HeldBody | None = None
    """The account of what is kept of a body that is still arriving."""


class UpstreamResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's reply: status and headers are there, the body is still arriving."""

    status: int
    headers: Headers
    """Without hop-by-hop headers; content-length and content-encoding as the upstream sent them."""
    body: AsyncIterator[bytes]
    """As it arrives, undecoded. Raises UpstreamError when the upstream breaks off."""
    has_ended: Callable[[], bool] = lambda: False
    """Whether it is known by now that no chunk of `body` follows; never too early."""


class Upstream(ABC):
    """An OpenAI-compatible service."""

    @abstractmethod
    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send, and wait for the response's headers.

        Leaving the context closes the connection if the body was not read to its end. One task may enter it
        and another leave it: no `asyncio.timeout` may span both.

        Raises:
            UpstreamError: It could not be reached.
            UpstreamTimeoutError: It did not connect or answer in time.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections. Idempotent."""
