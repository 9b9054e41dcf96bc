"""Ends the work on a request whose client has left: a preview may keep a thread busy for a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from litestar.types import Receive

from serac_gateway.errors import InvalidRequestError

_T = TypeVar("_T")


async def unless_client_leaves(receive: Receive, work: Coroutine[object, object, _T]) -> _T:
    """The result of `work`, which is cancelled when the client of the request leaves.

    The request's body must have been read: `receive` then waits for the disconnect.

    Raises:
        InvalidRequestError: The client has left; nobody reads the reply.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise InvalidRequestError("the client left before the reply")
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(watching, working, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
