"""x-serac-wait: a writing call that answers when every live gateway has applied what it wrote."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import Annotated, TypeVar

from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, SkipValidation

from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.parameters import Namespace
from serac_gateway.errors import InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import log_id_order

_T = TypeVar("_T")

_HEADER = "x-serac-applied"
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1

APPLIED = ResponseHeader(
    name=_HEADER,
    description="With `x-serac-wait: all`, by how many of the live gateways the change was applied when the"
    " reply was sent: `4/4`, or after `store.wait_timeout_s` perhaps `3/4`. The change is made in any case."
    " `unknown`: the store failed meanwhile.",
    documentation_only=True,
    required=False,
)


class WaitFor(StrEnum):
    """Where a change is in force when its reply is sent."""

    LOCAL = "local"
    """In this process; in the others within a second."""
    ALL = "all"
    """In every live gateway of the store."""


class Waiting:
    """Waits, if the request asks for it, until the namespace's log is applied everywhere."""

    def __init__(self, store: EditStore, namespace: str, wait_for: WaitFor, *, timeout_s: float) -> None:
        self._store = store
        self._namespace = namespace
        self._wait_for = wait_for
        self._timeout_s = timeout_s

    async def replied(self, response: Response[_T]) -> Response[_T]:
        """`response`, when the time for it has come, with the header `APPLIED`."""
        if self._wait_for is WaitFor.ALL:
            response.headers[_HEADER] = await self.applied()
        return response

    async def applied(self) -> str:
        """Wait; return how many gateways of how many have applied the log, as "3/4"; "" for `local`."""
        if self._wait_for is WaitFor.LOCAL:
            return ""
        try:
            return await self._all_applied()
        except StoreUnavailableError:
            return "unknown"

    async def _all_applied(self) -> str:
        until_s, pause_s = time.monotonic() + self._timeout_s, _FIRST_PAUSE_S
        # The end of the log is at or after what the call wrote, and one read more than its log id would cost.
        target = log_id_order(await self._store.log_end(self._namespace))
        registry = self._store.replicas()
        while True:
            replicas = await registry.applied(self._namespace)
            applied = sum(log_id_order(position.log_id) >= target for position in replicas.values())
            if applied == len(replicas) or time.monotonic() + pause_s > until_s:
                return f"{applied}/{len(replicas)}"
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def provide_waiting(
    context: Context,
    namespace: Namespace,
    wait_for: Annotated[
        str,
        HeaderParameter(
            name="x-serac-wait",
            description="`local`: the reply comes when the change is durable and in force in this process."
            " `all`: when it is in force in every live gateway of the store, or after `store.wait_timeout_s`;"
            f" `{_HEADER}` says. A gateway is live while the store heard from it within 3 s",
            # Documented only: the refusal below explains more than a converter does.
            schema_extra={"enum": list(WaitFor)},
        ),
    ] = WaitFor.LOCAL,
) -> Waiting:
    """What a writing handler passes its reply through.

    Raises:
        InvalidRequestError: The header holds another word; nothing has been written.
    """
    if wait_for not in set(WaitFor):
        raise InvalidRequestError(
            f"x-serac-wait {wait_for[:80]!r} is not allowed; send"
            f" {' or '.join(map(repr, map(str, WaitFor)))}, or leave it out",
            field="x-serac-wait",
            details={"value": wait_for[:80]},
        )
    return Waiting(context.store, namespace, WaitFor(wait_for), timeout_s=context.wait_timeout_s)


Wait = NamedDependency[SkipValidation[Waiting]]
"""Annotates the handlers' parameter `waiting`."""
