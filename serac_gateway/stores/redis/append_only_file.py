"""The append-only file of the embedded server, as it lies on the disk while no server runs.

Its folder holds a manifest that names the files in use, of which the last is being written. A file is a
sequence of commands; what one commit writes stands between MULTI and EXEC. Valkey itself ends at a tail of
NUL bytes, as file systems leave one after a power failure, and names a tool that it does not come with.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

log = logging.getLogger(__name__)

FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_NAMED = re.compile(r"file (\S+) seq \d+ type ([bhi])")
_COMMAND = re.compile(rb"\*([1-9][0-9]{0,6})\r\n")
_WORD = re.compile(rb"\$([0-9]{1,10})\r\n")
_COMMENT = re.compile(rb"#[^\r\n]{0,1000}\r\n")
_BEGINS = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[0-9]{1,10}\r\n")
_MULTI = re.compile(rb"\*1\r\n\$5\r\nMULTI\r\n", re.IGNORECASE)
_EXEC = re.compile(rb"\*1\r\n\$4\r\nEXEC\r\n", re.IGNORECASE)


class BadRange(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the file that are no whole commands, with what belongs to the same commit."""

    start: int
    end: int
    is_tail: bool
    """Nothing that can be read follows: it was never acknowledged, or the disk has lost it."""


def sweep(folder: Path) -> list[str]:
    """Remove what crashed rewrites left in the server's `folder`, which no server uses, and name it.

    Such files may hold what was purged since.
    """
    removed = []
    for directory in (folder, folder / FOLDER):
        for pattern in ("temp-*.aof", "temp-*.rdb"):
            removed += [_removed(path) for path in directory.glob(pattern)]
    if in_use := _in_use(folder):
        for path in (folder / FOLDER).glob("appendonly.aof.*"):
            if path.name not in in_use and path.name != _MANIFEST:
                removed.append(_removed(path))
    if removed:
        log.warning("removed what crashed rewrites left in %r: %s", str(folder), ", ".join(removed))
    return removed


def unneeded_files(folder: Path) -> list[Path]:
    """Files of the running server's `folder` that a finished rewrite is about to remove."""
    in_use = _in_use(folder)
    files = (folder / FOLDER).glob("appendonly.aof.*")
    return [path for path in files if path.name not in in_use and path.name != _MANIFEST]


def last_file(folder: Path) -> Path | None:
    """The file that is being written; None: there is none, or the manifest cannot be read."""
    files = data_files(folder)
    return files[-1] if files else None


def data_files(folder: Path) -> list[Path]:
    """The files in use that hold commands, oldest first."""
    paths = [folder / FOLDER / name for name, kind in _manifest(folder) if kind == "i"]
    return [path for path in paths if path.is_file()]


def bad_ranges(path: Path) -> list[BadRange]:
    """What of the file cannot be read, in order. Reads all of it, some 100 MB a second."""
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _joined(_bad(data), len(data))


def cut(path: Path, ranges: list[BadRange], keep_in: Path) -> Path:
    """Take `ranges` out of the file, in one step, after their bytes lie in a new file in `keep_in`.

    Returns that file. Killed at any point, the file is as before or as after.

    Raises:
        OSError: One of them cannot be written.
    """
    keep_in.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = keep_in / f"{path.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    whole = path.with_name(f"temp-{os.getpid()}.aof")  # which `sweep` removes
    with path.open("rb") as source, _private(kept) as damaged, _private(whole) as target:
        position = 0
        for bad in ranges:
            _copy(source, target, bad.start - position)
            _copy(source, damaged, bad.end - bad.start)
            position = bad.end
        _copy(source, target, path.stat().st_size - position)
        for written in (damaged, target):
            written.flush()
            os.fsync(written.fileno())
    _sync_folder(keep_in)
    whole.replace(path)
    _sync_folder(path.parent)
    return kept


def _bad(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Start and end of ranges to cut; they may touch each other."""
    position, size = 0, len(data)
    begun: int | None = None
    """Where the commit began that is open."""
    while position < size:
        end = _command_end(data, position)
        if end is None:
            start = position if begun is None else begun
            position = _next_command(data, position + 1)
            end_of_commit = _end_of_torn_commit(data, position)
            yield start, end_of_commit
            position, begun = end_of_commit, None
            continue
        if _MULTI.match(data, position):
            if begun is not None:
                yield begun, position
            begun = position
        elif _EXEC.match(data, position):
            begun = None
        position = end
    if begun is not None:
        yield begun, size


def _joined(ranges: Iterator[tuple[int, int]], size: int) -> list[BadRange]:
    joined: list[list[int]] = []
    for start, end in ranges:
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return [BadRange(start=start, end=end, is_tail=end == size) for start, end in joined]


def _command_end(data: mmap.mmap, position: int) -> int | None:
    """Where the command at `position` ends; None: there is no whole one."""
    if comment := _COMMENT.match(data, position):
        return comment.end()
    head = _COMMAND.match(data, position)
    if head is None:
        return None
    position = head.end()
    for _ in range(int(head[1])):
        word = _WORD.match(data, position)
        if word is None:
            return None
        position = word.end() + int(word[1])
        if data[position : position + 2] != b"\r\n":
            return None
        position += 2
    return position


def _next_command(data: mmap.mmap, position: int) -> int:
    """Where the next whole command begins; the end if there is none."""
    while match := _BEGINS.search(data, position):
        if _command_end(data, match.start()) is not None:
            return match.start()
        position = match.start() + 1
    return len(data)


def _end_of_torn_commit(data: mmap.mmap, position: int) -> int:
    """The end of the commit of which `position` is inside; `position` itself if it is outside all."""
    place = position
    while place < len(data) and not _MULTI.match(data, place):
        end = _command_end(data, place)
        if end is None:
            break
        if _EXEC.match(data, place):
            return end
        place = end
    return position


def _manifest(folder: Path) -> list[tuple[str, str]]:
    try:
        text = (folder / FOLDER / _MANIFEST).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [(match[1], match[2]) for match in _NAMED.finditer(text)]


def _in_use(folder: Path) -> set[str]:
    return {name for name, kind in _manifest(folder) if kind != "h"}


def _removed(path: Path) -> str:
    path.unlink(missing_ok=True)
    return path.name


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _copy(source: IO[bytes], target: IO[bytes], count: int) -> None:
    while count and (block := source.read(min(count, 1 << 20))):
        target.write(block)
        count -= len(block)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
