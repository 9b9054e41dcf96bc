"""Content encodings of request bodies, decoded within bounds. Pure.

A body is decoded only to be read: what passes to the upstream is the client's own bytes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator

import brotli
import zstandard

from serac_gateway.errors import TooLongToReadError, UnreadableError, UnsupportedEncodingError

MAX_CODINGS = 3
MAX_RATIO = 200
"""Decoded to encoded bytes, beyond `_FREE_BYTES`: text compresses to a tenth, a bomb to a thousandth."""
_FREE_BYTES = 1_048_576
_STEP_BYTES = 65_536
_MAX_MEMBERS = 100
"""Of a gzip body: each one copies the rest of the body."""
_MAX_WINDOW_BYTES = 134_217_728
"""Of zstd: what its command line decodes without being asked to."""


def codings_of(content_encoding: str) -> list[str]:
    """The codings that a Content-Encoding header names, in the order in which they were applied."""
    names = (name.strip().lower() for name in content_encoding.split(","))
    return [name for name in names if name not in ("", "identity")]


def decoded(data: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """`data` without its codings.

    Raises:
        UnsupportedEncodingError: A coding is unknown, or there are too many.
        UnreadableError: The data are not in that coding.
        TooLongToReadError: They become longer than `max_bytes`, or than MAX_RATIO times their length.
    """
    codings = codings_of(content_encoding)
    unknown = next((name for name in codings if name not in _DECODERS), None)
    if unknown is not None or len(codings) > MAX_CODINGS:
        what = f"names {unknown!r}" if unknown is not None else f"names {len(codings)} codings"
        raise UnsupportedEncodingError(
            f"Content-Encoding {what}; send the body as it is, or in at most {MAX_CODINGS} of"
            f" {', '.join(sorted(_DECODERS))}",
            field="content-encoding",
            details={"reason": "compressed body", "value": content_encoding[:80]},
        )
    for name in reversed(codings):
        data = _bounded(name, data, max_bytes)
    return data


def _bounded(name: str, data: bytes, max_bytes: int) -> bytes:
    limit = min(max_bytes, max(_FREE_BYTES, MAX_RATIO * len(data)))
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in _DECODERS[name](data):
            size += len(chunk)
            if size > limit:
                raise TooLongToReadError(
                    f"the body becomes longer than {limit:,} bytes when its Content-Encoding {name} is"
                    " decoded; send less, or send it without the encoding",
                    field="content-encoding",
                    details={"reason": "body too long", "limit": limit},
                )
            chunks.append(chunk)
    except _ERRORS as exc:
        raise UnreadableError(
            f"the body is not in its Content-Encoding {name}: {exc}; encode it anew, or leave the header out",
            field="content-encoding",
            details={"reason": "compressed body"},
        ) from exc
    return b"".join(chunks)


_ERRORS = (zlib.error, brotli.error, zstandard.ZstdError, EOFError)


def _gzip(data: bytes) -> Iterator[bytes]:
    """All members: a gzip file may have several, one after the other."""
    for _ in range(_MAX_MEMBERS):
        if not data:
            return
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        yield from _inflated(inflater, data)
        data = inflater.unused_data.lstrip(b"\0")  # padding after the last member
    if data:
        raise EOFError(f"it has more than {_MAX_MEMBERS} members")


def _deflate(data: bytes) -> Iterator[bytes]:
    """With the header of zlib, as the standard has it, or without, as some clients send it."""
    has_header = len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    yield from _inflated(zlib.decompressobj(wbits=zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS), data)


def _inflated(inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    while data and not inflater.eof:
        yield inflater.decompress(data, _STEP_BYTES)
        data = inflater.unconsumed_tail
    while not inflater.eof and (chunk := inflater.decompress(b"", _STEP_BYTES)):
        yield chunk
    if not inflater.eof:
        raise EOFError("it breaks off")


def _brotli(data: bytes) -> Iterator[bytes]:
    decoder = brotli.Decompressor()
    chunk = decoder.process(data, output_buffer_limit=_STEP_BYTES)
    while chunk or not (decoder.is_finished() or decoder.can_accept_more_data()):
        yield chunk
        chunk = decoder.process(b"", output_buffer_limit=_STEP_BYTES)
    if not decoder.is_finished():
        raise EOFError("it breaks off")


def _zstd(data: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    with decompressor.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        while chunk := reader.read(_STEP_BYTES):
            yield chunk


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
