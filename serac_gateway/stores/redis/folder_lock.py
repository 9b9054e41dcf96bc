"""The lock that keeps a second gateway off the folder of an embedded server.

It is on the folder itself, by its descriptor, so another path to the folder (a link, a mount) leads to the
same lock; the kernel releases it with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from serac_gateway.errors import ConfigError

_LOCK = "gateway.lock"
"""A file that names the holder, and that earlier releases lock."""


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep gateways off the folder meanwhile.

    Raises:
        ConfigError: One uses it.
        OSError: It cannot be opened.
    """
    descriptors = lock_folder(folder)
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def lock_folder(folder: Path) -> tuple[int, int]:
    """Open descriptors of the lock file, which names its holder, and of the folder; both are locked.

    The file may be removed by somebody who takes it for a stale one; the folder's lock holds all the same.
    """
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except BaseException:
        os.close(folder_fd)
        raise
    try:
        for descriptor in (folder_fd, lock):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BaseException as exc:
        holder = os.pread(lock, 20, 0).decode("utf-8", "replace")
        os.close(lock)
        os.close(folder_fd)
        if not isinstance(exc, BlockingIOError):
            raise
        raise ConfigError(
            f"the data folder {str(folder)!r} is in use by another gateway (process {holder or 'unknown'});"
            " stop that one, name another folder with --data-dir, or share a Redis with --redis"
        ) from None
    return lock, folder_fd
