"""The compared ways to the mock upstream: direct, through the gateway, through another proxy."""

from __future__ import annotations

import msgspec

from serac_gateway.cli.bench.processes import Watched
from serac_gateway.cli.bench.wire import BenchError, Target

MOCK, PEER = "mock", "peer"
BYPASSED, CLASSIFIED, SPECULATING = "gateway, no edits", "gateway, classifying", "gateway, speculating"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A way to the mock, and the process whose CPU time and memory count; None: it cannot be read."""

    name: str
    target: Target
    watched: Watched | None = None


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another proxy in front of the same mock."""

    url: str
    """Up to and with /v1."""
    pid: int | None = None
    """Its process on this machine, if its CPU time is to be counted."""
    api_key: str | None = None

    def contender(self) -> Contender:
        """The peer as a contender.

        Raises:
            BenchError: It is not an http:// URL, or there is no such process.
        """
        if not self.url.startswith("http://"):
            raise BenchError(f"the peer {self.url!r} cannot be asked; give a URL with http:// up to /v1")
        return Contender(
            name=PEER,
            target=Target(
                url=self.url.rstrip("/"),
                headers={} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"},
            ),
            watched=None if self.pid is None else Watched(self.pid),
        )
