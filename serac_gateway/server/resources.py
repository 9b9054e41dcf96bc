"""Parts that several generations of the configuration share: opened once, closed when the last is done.

What a part is made of is its key: its section of the configuration and what lies in its files. A generation
that needs the same takes over the same part, with its connections and memory; any other is opened beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

PartT = TypeVar("PartT")
FileStamps = tuple[tuple[str, int, int], ...]
"""Path, time of the last change in ns and size of files: another stamp is another content."""


class _Kept:
    __slots__ = ("part", "users")

    def __init__(self, part: object) -> None:
        self.part = part
        self.users = 0


class KeptParts:
    """The parts that are open, by name and key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Hashable], _Kept] = {}

    def user(self) -> PartsInUse:
        """What one generation takes its parts from."""
        return PartsInUse(self._kept)

    def __len__(self) -> int:
        """How many parts are open."""
        return len(self._kept)


class PartsInUse:
    """The parts that one generation uses; `KeptParts.user` makes it."""

    def __init__(self, kept: dict[tuple[str, Hashable], _Kept]) -> None:
        self._kept = kept
        self._stack = AsyncExitStack()
        self.opened: list[str] = []
        """The names of those that were not open before, in order."""

    async def get(
        self,
        name: str,
        key: Hashable,
        open_part: Callable[[], Awaitable[PartT]],
        close_part: Callable[[PartT], Awaitable[None]],
    ) -> PartT:
        """The part of that name and key; opened if it is not open. No two callers may want it at once.

        Raises whatever `open_part` raises; then nothing was kept.
        """
        kept = self._kept.get((name, key))
        if kept is None:
            kept = self._kept[name, key] = _Kept(await open_part())
            self.opened.append(name)
        kept.users += 1
        self._stack.push_async_callback(self._done_with, (name, key), kept, close_part)
        return kept.part  # type: ignore[return-value] # the key's name stands for the type

    async def close(self) -> None:
        """Be done with all of them, the latest first; those that nobody else uses are closed. Idempotent."""
        await self._stack.aclose()

    async def _done_with(
        self, key: tuple[str, Hashable], kept: _Kept, close_part: Callable[[Any], Awaitable[None]]
    ) -> None:
        kept.users -= 1
        if kept.users == 0:
            del self._kept[key]
            await close_part(kept.part)


def file_stamps(*paths: Path | str | None) -> FileStamps:
    """The stamps of the files at `paths` and in the folders there; what is not there has none."""
    stamps = []
    for path in (Path(one) for one in paths if one is not None):
        for file in [path, *sorted(path.rglob("*"))]:
            try:
                known = file.stat()
            except OSError:
                continue
            if not file.is_dir():
                stamps.append((str(file), known.st_mtime_ns, known.st_size))
    return tuple(stamps)
