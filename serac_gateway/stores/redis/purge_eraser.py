"""Rewrites the embedded server's append-only file until nothing that was purged lies in it.

A purge takes content out of the server's memory; the file goes on holding the commands that once brought it.
A marker file, written before the purge, says that the file is to be rewritten: whatever is killed meanwhile,
the next start goes on. A rewrite counts only if it began after the purge and ended well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.exceptions import RedisError

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.redis.append_only_file import FOLDER, unneeded_files

log = logging.getLogger(__name__)

_PENDING = "purge.pending"
_PLAIN = "rewritten.plain"
"""There if all files in use were written without compression, which would hide a text from a search."""
_WAIT_S = 10.0
"""How long a purge waits for the rewrite; a GB takes some ten seconds."""
_POLL_S = 0.05
_FILES_REMOVED_WITHIN_S = 20.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0

Send = Callable[..., Awaitable[object]]


class _RewriteFailedError(Exception):
    pass


class PurgeEraser:
    """Belongs to one event loop. `start` it once the server answers."""

    def __init__(self, folder: Path, send: Send) -> None:
        """`send` sends one command to the server in `folder`, and returns the reply."""
        self._folder = folder
        self._send = send
        self._is_fresh = not (folder / FOLDER).exists()
        self._wanted = 0
        self._done = 0
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_pending(self) -> bool:
        """Whether something that was purged may still lie in the file."""
        return self._done < self._wanted

    def start(self) -> None:
        """Begin to rewrite if an earlier process did not come to it."""
        if self._is_fresh:
            (self._folder / _PLAIN).touch()
        if (self._folder / _PENDING).exists() or not (self._folder / _PLAIN).exists():
            self._wanted += 1
        self._task = asyncio.create_task(self._run(), name="purge-eraser")

    async def stop(self) -> None:
        """End; what is pending waits for the next start. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def announce(self) -> None:
        """Write the marker; return when it is on the disk. Before each purge.

        Raises:
            StoreUnavailableError: It cannot be written.
        """
        try:
            await asyncio.to_thread(self._write_marker)
        except OSError as exc:
            raise StoreUnavailableError(
                f"cannot note in {str(self._folder)!r} that something is to be erased from the disk:"
                f" {(exc.strerror or str(exc)).lower()}; nothing was purged; make room, or make it writable"
            ) from exc

    async def erase(self) -> bool:
        """Rewrite the file after a purge, and return whether that ended within ten seconds.

        It is tried until it succeeds, also after this returns.
        """
        self._wanted += 1
        wanted = self._wanted
        async with self._changed:
            self._changed.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    await self._changed.wait_for(lambda: self._done >= wanted)
        return self._done >= wanted

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self.is_pending)
            wanted = self._wanted
            try:
                await self._rewrite()
                if self._wanted == wanted:
                    await asyncio.to_thread(self._remove_marker)
            except (RedisError, OSError, _RewriteFailedError) as exc:
                if pause_s == _FIRST_PAUSE_S:
                    log.warning("what was purged still lies on the disk: %s; it is tried again", exc)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if pause_s > _FIRST_PAUSE_S:
                log.info("what was purged is gone from the disk")
            pause_s = _FIRST_PAUSE_S
            async with self._changed:
                self._done = wanted
                self._changed.notify_all()

    async def _rewrite(self) -> None:
        """Have the server write its file anew, and return when the old files are gone.

        Raises:
            _RewriteFailedError: It did not, or it was another process by the end.
            RedisError, OSError: The server did not answer.
        """
        server = await self._until_idle()
        await self._send("BGREWRITEAOF")
        after = await self._until_idle()
        if after["run_id"] != server["run_id"]:
            raise _RewriteFailedError("the server ended during the rewrite")
        if after["aof_last_bgrewrite_status"] != "ok":
            raise _RewriteFailedError("the rewrite of the append-only file failed, see its log")
        async with asyncio.timeout(_FILES_REMOVED_WITHIN_S):
            while await asyncio.to_thread(unneeded_files, self._folder):
                await asyncio.sleep(_POLL_S)

    async def _until_idle(self) -> dict[str, str]:
        """What the server says of itself, once it rewrites nothing."""
        while True:
            facts = _facts(await self._send("INFO", "server", "persistence"))
            if facts["aof_rewrite_in_progress"] == facts["aof_rewrite_scheduled"] == "0":
                return facts
            await asyncio.sleep(_POLL_S)

    def _write_marker(self) -> None:
        with (self._folder / _PENDING).open("wb") as marker:
            os.fsync(marker.fileno())
        self._sync()

    def _remove_marker(self) -> None:
        (self._folder / _PLAIN).touch()
        (self._folder / _PENDING).unlink(missing_ok=True)
        self._sync()

    def _sync(self) -> None:
        opened = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _facts(info: object) -> dict[str, str]:
    if isinstance(info, dict):  # as redis-py parses it
        return {str(name): str(fact) for name, fact in info.items()}
    assert isinstance(info, bytes)
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
