"""Folders of converted weights in the data folder: made once, and whole or not there at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from serac_gateway.errors import ConfigError


def converted_folder(
    models: Path, kind: str, name: str, convert: Callable[[Path], None], *, others: int
) -> Path:
    """The folder ``KIND-NAME`` in `models`, which `convert` fills the first time.

    Starts that run side by side wait for one conversion. A conversion that fails leaves nothing; what a
    killed start left is removed by the next. Of the other folders of this kind those `others` stay that were
    opened last, to go back to.

    Raises:
        ConfigError: `convert` raised one, or the folder cannot be written.
    """
    folder = models / f"{kind}-{name}"
    try:
        if not folder.is_dir():
            models.mkdir(parents=True, exist_ok=True)
            with (models / f"{kind}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not folder.is_dir():
                    _make(folder, kind, convert)
                    _remove_outdated(models, kind, folder, others)
        else:
            with suppress(OSError):  # of a data folder that is only read
                os.utime(folder)
    except OSError as exc:
        raise ConfigError(
            f"cannot write the converted weights to {str(folder)!r}: {exc.strerror or exc};"
            " free space there or choose another --data-dir"
        ) from exc
    return folder


def _make(folder: Path, kind: str, convert: Callable[[Path], None]) -> None:
    for leftover in folder.parent.glob(f".{kind}-*"):  # of a start that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=folder.parent))
    try:
        convert(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_outdated(models: Path, kind: str, keep: Path, others: int) -> None:
    outdated = [folder for folder in models.glob(f"{kind}-*") if folder.is_dir() and folder != keep]
    outdated.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in outdated[others:]:
        shutil.rmtree(folder, ignore_errors=True)
