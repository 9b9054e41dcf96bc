"""Digests of the files of a converted model, which show at every start whether they are what was made."""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

DIGESTS_FILE = "digests.json"


def write_digests(folder: Path) -> None:
    """Note the SHA-256 digests of all files in the folder, in a file beside them.

    Raises:
        OSError: A file cannot be read or written.
    """
    (folder / DIGESTS_FILE).write_bytes(msgspec.json.encode(_digests(folder)))


def folder_fault(folder: Path) -> str | None:
    """What is wrong with the files of a folder that is there; None: they are those whose digests were noted.

    290 MB take a quarter of a second. Files whose times and sizes did not change are read once a process.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
        return _fault(folder, stamps)
    except (OSError, ValueError) as exc:
        return str(exc)


def is_sound(folder: Path) -> bool:
    """Whether the folder is there with the files whose digests were noted; else a log line says why."""
    if not folder.is_dir():
        return False
    fault = folder_fault(folder)
    if fault is not None:
        log.warning("the converted model in %r is made anew: %s", str(folder), fault)
    return fault is None


@functools.lru_cache(maxsize=16)
def _fault(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> str | None:
    """What is wrong with the files; `stamps` only tells apart what was read before."""
    noted = folder / DIGESTS_FILE
    if not noted.is_file():
        return "it has no digests"
    expected = msgspec.json.decode(noted.read_bytes(), type=dict[str, str])
    present = _digests(folder)
    wrong = sorted(
        name for name in expected.keys() | present.keys() if expected.get(name) != present.get(name)
    )
    return f"{wrong[0]!r} is damaged, missing or foreign" if wrong else None


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != DIGESTS_FILE:
            with path.open("rb") as file:
                name = path.relative_to(folder).as_posix()
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
