"""Whether a text lies in any file of a folder, however the gateway may have written it."""

from __future__ import annotations

import base64
import json
import mmap
from collections.abc import Iterator
from pathlib import Path

import msgspec

MIN_TEXT_BYTES = 4
_LEAST_BASE64_CHARS = 8


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A file in which the text lies."""

    path: str
    offset: int
    """Of the first place, in bytes."""


class SearchOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a search of a folder gave."""

    files: int
    """How many files were read."""
    hits: list[Hit]
    unread: list[str]
    """Files, and folders, that cannot be read."""


def search_folder(folder: Path, text: str) -> SearchOutcome:
    """Look into every file below the folder; links are not followed."""
    needles = _spellings(text)
    hits: list[Hit] = []
    unread: list[str] = []
    files = 0
    for path in _files(folder, unread):
        try:
            offset = _first(path, needles)
        except FileNotFoundError:
            continue  # removed meanwhile, as by a rewrite
        except OSError:
            unread.append(str(path))
            continue
        files += 1
        if offset is not None:
            hits.append(Hit(path=str(path), offset=offset))
    return SearchOutcome(files=files, hits=hits, unread=unread)


def _spellings(text: str) -> list[bytes]:
    """The bytes that stand for the text: plain, as JSON writes it, and in base64 at each of three places."""
    plain = text.encode("utf-8", "surrogatepass")
    spellings = [plain]
    for is_ascii in (True, False):
        spellings.append(json.dumps(text, ensure_ascii=is_ascii)[1:-1].encode("utf-8", "surrogatepass"))
    for skipped in range(3):
        # Characters that also depend on the bytes before or after are left out.
        encoded = base64.b64encode(bytes(skipped) + plain)
        first = -(-skipped * 8 // 6)
        last = (skipped + len(plain)) * 8 // 6
        if last - first >= _LEAST_BASE64_CHARS:
            spellings.append(encoded[first:last])
    return list(dict.fromkeys(spellings))


def _files(folder: Path, unread: list[str]) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError:
        unread.append(str(folder))
        return
    for path in entries:
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path, unread)
        elif path.is_file():
            yield path


def _first(path: Path, needles: list[bytes]) -> int | None:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            places = [place for needle in needles if (place := data.find(needle)) >= 0]
    return min(places, default=None)
