"""Resources that several runtimes share: opened once, closed when the last runtime that uses them is closed.

A resource is identified by its name and a key: its section of the configuration and the stamps of its files.
A runtime with an equal key shares the open resource, with its connections and memory; a runtime with another
key opens its own beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

ResourceT = TypeVar("ResourceT")
FileStamps = tuple[tuple[str, int, int], ...]
"""Path, time of the last change in ns and size in bytes of files: another stamp is another content."""


class _Entry:
    __slots__ = ("resource", "users")

    def __init__(self, resource: object) -> None:
        self.resource = resource
        self.users = 0


class SharedResources:
    """The open resources, by name and key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, Hashable], _Entry] = {}

    def lease(self) -> ResourceLease:
        """A new lease, through which one runtime takes its resources."""
        return ResourceLease(self._entries)

    def __len__(self) -> int:
        """How many resources are open."""
        return len(self._entries)


class ResourceLease:
    """The resources that one runtime uses; `SharedResources.lease` makes it."""

    def __init__(self, entries: dict[tuple[str, Hashable], _Entry]) -> None:
        self._entries = entries
        self._stack = AsyncExitStack()
        self.opened: list[str] = []
        """The names of the resources that this lease opened, in order."""

    async def acquire(
        self,
        name: str,
        key: Hashable,
        open_resource: Callable[[], Awaitable[ResourceT]],
        close_resource: Callable[[ResourceT], Awaitable[None]],
    ) -> ResourceT:
        """The resource of that name and key; opened if it is not open.

        No two callers may acquire the same one at once. Raises whatever `open_resource` raises; then nothing
        was acquired.
        """
        entry = self._entries.get((name, key))
        if entry is None:
            entry = self._entries[name, key] = _Entry(await open_resource())
            self.opened.append(name)
        entry.users += 1
        self._stack.push_async_callback(self._release, (name, key), entry, close_resource)
        return entry.resource  # type: ignore[return-value] # the name determines the type

    async def close(self) -> None:
        """Release all of them, the latest first; those that no other lease uses are closed. Idempotent."""
        await self._stack.aclose()

    async def _release(
        self, key: tuple[str, Hashable], entry: _Entry, close_resource: Callable[[Any], Awaitable[None]]
    ) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]
            await close_resource(entry.resource)


def file_stamps(*paths: Path | str | None) -> FileStamps:
    """The stamps of the files at `paths` and of all files in folders there; a missing path has no stamp."""
    stamps = []
    for path in (Path(path) for path in paths if path is not None):
        for file in [path, *sorted(path.rglob("*"))]:
            try:
                status = file.stat()
            except OSError:
                continue
            if not file.is_dir():
                stamps.append((str(file), status.st_mtime_ns, status.st_size))
    return tuple(stamps)
