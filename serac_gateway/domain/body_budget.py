"""A bound on the memory that the bodies of requests take up together, over all connections of a process.

Each body has a limit of its own; many clients that each send a large one slowly would fill the memory all the
same. So every reader that keeps a body counts its bytes here. Where they become too many, the largest body
that is still arriving is given up: it loses least for its bytes, and small requests keep being served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from serac_gateway.errors import BodyMemoryError

FREE_BYTES = 65_536
"""A body up to this size is not counted: the server buffers as much for every connection in any case."""
EXTENSION = "serac.body"
"""The ASGI extension under which the server hands a request's `HeldBody` to the application."""


class BodyBudget:
    """The bytes held, and the most that are allowed. Belongs to one event loop."""

    def __init__(self, limit_bytes: int | None, on_given_up: Callable[[], None] = lambda: None) -> None:
        """None: any number. `on_given_up` is called for each body that has to make room, or finds none."""
        self.limit_bytes = limit_bytes
        self.total_bytes = 0
        """Those of all bodies larger than FREE_BYTES."""
        self._on_given_up = on_given_up
        self._large: set[HeldBody] = set()

    def open(self, give_up: Callable[[], None] = lambda: None) -> HeldBody:
        """The account of a new request; `give_up` refuses it while its body arrives and must not raise."""
        return HeldBody(self, give_up)

    def _changed(self, body: HeldBody, before: int) -> None:
        for size, sign in ((before, -1), (body.size, 1)):
            if size > FREE_BYTES:
                self.total_bytes += sign * size
        if body.size > FREE_BYTES:
            self._large.add(body)
        else:
            self._large.discard(body)

    def _make_room(self, newest: HeldBody) -> None:
        limit = self.limit_bytes
        while limit is not None and self.total_bytes > limit:
            arriving = [body for body in self._large if body.is_arriving]
            largest = max(arriving, key=lambda body: body.size, default=newest)
            if largest is newest and newest.size <= FREE_BYTES:
                return
            self._on_given_up()
            largest.release()
            if largest is newest:
                raise _too_much(limit)
            largest.is_given_up = True
            largest.give_up()


class HeldBody:
    """The bytes that one request's body takes up."""

    __slots__ = ("_budget", "give_up", "is_arriving", "is_given_up", "size")

    def __init__(self, budget: BodyBudget, give_up: Callable[[], None]) -> None:
        self._budget = budget
        self.give_up = give_up
        self.size = 0
        self.is_arriving = True
        """Whether the client has not sent all of it."""
        self.is_given_up = False

    def add(self, count: int) -> None:
        """Count further bytes that are kept.

        Raises:
            BodyMemoryError: They are too many, and no larger body could make room; or this one had to.
        """
        if self.is_given_up:
            raise _too_much(self._budget.limit_bytes or 0)
        before, self.size = self.size, self.size + count
        if self.size > FREE_BYTES:
            self._budget._changed(self, before)
            self._budget._make_room(self)

    def remove(self, count: int) -> None:
        """Count bytes no more that have gone on; at most all of them."""
        before, self.size = self.size, max(0, self.size - count)
        if before > FREE_BYTES:
            self._budget._changed(self, before)

    def release(self) -> None:
        """Count none of it any more. Idempotent."""
        self.remove(self.size)


def held_body(scope: Mapping[str, Any]) -> HeldBody:
    """The account of the request with this ASGI scope; of a server without a budget one without bounds."""
    held = (scope.get("extensions") or {}).get(EXTENSION)
    return held if isinstance(held, HeldBody) else _UNBOUNDED.open()


def _too_much(limit: int) -> BodyMemoryError:
    return BodyMemoryError(
        f"the bodies of all requests together take up more than {limit:,} bytes of memory, so the largest"
        " that are still arriving are refused; send it again later, or have the operator raise"
        " server.max_body_memory_bytes",
        details={"limit": limit, "reason": "body memory"},
    )


_UNBOUNDED = BodyBudget(None)
