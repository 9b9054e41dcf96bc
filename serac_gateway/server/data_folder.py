"""The data folder, made at the start or refused in one line, and temporary folders of killed gateways."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

from serac_gateway.errors import ConfigError

log = logging.getLogger(__name__)

WORKERS_PREFIX = "serac-workers-"
"""Of the temporary folder that a gateway shares with its workers, and keeps locked."""
_WORKERS_FILES = frozenset({"models.sock", "namespaces"})
_YOUNGEST_S = 60.0
"""A younger folder may belong to a gateway that has not locked it yet."""


def make_data_folder(path: Path) -> None:
    """Make the folder where it is missing, and see that files can be made in it.

    Raises:
        ConfigError: It is none, or cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        files = [part for part in (path, *path.parents) if os.path.exists(part) and not os.path.isdir(part)]
        if files:
            why = f"{str(files[0])!r} is no folder"
        raise ConfigError(
            f"the data folder {str(path)!r} cannot be used: {why}; name one that can be written with"
            " --data-dir or data_dir"
        ) from exc


def sweep_worker_folders() -> list[Path]:
    """Remove the temporary folders of gateways that were killed; returns them.

    A living gateway holds a lock on its folder. Only folders of this user with nothing else in them count.
    """
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{WORKERS_PREFIX}*"):
        try:
            if _is_left(folder):
                shutil.rmtree(folder)
                removed.append(folder)
        except OSError as exc:
            log.info("%r was left by a gateway and cannot be removed: %s", str(folder), exc)
    if removed:
        log.info("removed the temporary folders of %d gateways that were killed", len(removed))
    return removed


def _is_left(folder: Path) -> bool:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(opened)
        if status.st_uid != os.getuid() or time.time() - status.st_mtime < _YOUNGEST_S:
            return False
        if not _WORKERS_FILES.issuperset(os.listdir(opened)):
            return False
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(opened)
    return True
