"""Header values that are not UTF-8, which aiohttp cannot send as they are.

aiohttp takes header values as text and writes them as UTF-8. A client's value in another encoding, mostly
Latin-1, would reach the upstream in other bytes. So its place is held by a token, and the token is replaced
in the first write of the request, which has the whole head.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, cast

import aiohttp
from aiohttp.client_reqrep import ClientResponse
from aiohttp.connector import Connection
from multidict import CIMultiDict
from typing_extensions import override

_Chunk = bytes | bytearray | memoryview


def header_text(value: bytes) -> str:
    """`value` for the headers of an `ExactRequest`, which sends exactly these bytes."""
    return value.decode("utf-8", "surrogateescape")


class ExactRequest(aiohttp.ClientRequest):
    """A request of aiohttp whose header values may hold any bytes; for `ClientSession(request_class=…)`."""

    @override
    async def send(self, conn: Connection) -> ClientResponse:
        """See aiohttp."""
        if not all(map(str.isascii, self.headers.values())) and any(map(_is_escaped, self.headers.values())):
            replaced: dict[bytes, bytes] = {}
            headers: CIMultiDict[str] = CIMultiDict()
            for name, value in self.headers.items():
                if _is_escaped(value):
                    token = f"header-{secrets.token_hex(16)}"
                    replaced[token.encode()] = value.encode("utf-8", "surrogateescape")
                    value = token
                headers.add(name, value)
            self.headers = headers
            protocol = conn.protocol
            assert protocol is not None
            protocol.transport = cast("Any", _HeadTransport(protocol, replaced))
        return await super().send(conn)


class _HeadTransport:
    """Stands for a connection's transport until the head of a request has been written."""

    def __init__(self, protocol: Any, replaced: dict[bytes, bytes]) -> None:  # noqa: ANN401 - aiohttp's
        self._protocol = protocol
        self._transport = protocol.transport
        self._replaced = replaced

    def write(self, data: _Chunk) -> None:
        """Write the head, and what of the body comes with it."""
        self._protocol.transport = self._transport
        head, end, rest = bytes(data).partition(b"\r\n\r\n")
        for token, value in self._replaced.items():
            head = head.replace(token, value)
        self._transport.write(head + end + rest)

    def writelines(self, chunks: Iterable[_Chunk]) -> None:
        """As `write`."""
        self.write(b"".join(chunks))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - every other attribute is the transport's own
        return getattr(self._transport, name)


def _is_escaped(value: str) -> bool:
    return not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value)
