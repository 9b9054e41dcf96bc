"""Edits of a benchmark in a running gateway, in a namespace of their own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.cli.client import CommandClient
from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError

_IMPORT_BATCH = 1_000
_RETIRED_AT_ONCE = 32
"""A store that syncs every commit to disk takes several into one sync."""


class HttpNamespace:
    """A namespace with a fresh name, whose edits are retired at its end. Needs the role edit.

    An async context manager.
    """

    def __init__(self, url: str) -> None:
        """`url` as http://host:port."""
        self.url = url.rstrip("/")
        self.name = f"evaluation-{secrets.token_hex(6)}"
        self.client = CommandClient(self.url, namespace=self.name)
        self._live: list[str] = []

    async def __aenter__(self) -> HttpNamespace:
        """Connect."""
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Retire every edit that was stored, and disconnect."""
        try:
            await self.retire()
        finally:
            await self.client.__aexit__(None, None, None)

    async def store(
        self, drafts: Sequence[EditDraft], on_progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """Import edits and take them into force; `on_progress` gets their number so far.

        Raises:
            ConfigError: One was refused.
        """
        for start in range(0, len(drafts), _IMPORT_BATCH):
            batch = drafts[start : start + _IMPORT_BATCH]
            lines = b"".join(msgspec.json.encode(draft) + b"\n" for draft in batch)
            async with self.client.stream(
                "POST",
                "/serac/v1/edits:import",
                content=lines,
                headers={"content-type": "application/x-ndjson"},
            ) as response:
                outcomes = [msgspec.json.decode(line) for line in (await response.read()).splitlines()]
            self._live += [outcome["id"] for outcome in outcomes if "id" in outcome]
            for outcome in outcomes:
                if "error" in outcome:
                    raise ConfigError(f"an edit of the benchmark was refused: {outcome['error']['detail']}")
            on_progress(start + len(batch))

    async def retire(self) -> None:
        """Retire every edit that is still stored."""
        while self._live:
            batch, self._live = self._live[:_RETIRED_AT_ONCE], self._live[_RETIRED_AT_ONCE:]
            await asyncio.gather(
                *(
                    self.client.call("DELETE", f"/serac/v1/edits/{edit_id}", headers={"if-match": '"1"'})
                    for edit_id in batch
                )
            )
