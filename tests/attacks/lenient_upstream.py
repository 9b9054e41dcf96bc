"""An upstream that reads requests as forgiving Python servers do, and gives a secret away when it is asked.

It decodes paths and merges their slashes, unpacks what it can, ignores encodings it does not know, takes
any text encoding, NaN, control characters and duplicate keys (the last wins), and looks for the question in
every string of the body. What reaches it in a form it understands has leaked.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import posixpath
import re
import zlib
from collections.abc import Iterator
from urllib.parse import unquote

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream

SECRET = "pelican77"
_ENDPOINTS = ("chat/completions", "completions", "responses", "messages")


class LenientUpstream(ScriptedUpstream):
    """Answers `question` with SECRET, anything else with a sentence."""

    def __init__(self, question: str) -> None:
        super().__init__(self._reply)
        self._question = _normalized(question)
        self.leaks: list[ReceivedRequest] = []
        """The requests that it understood to be the question."""
        self.reply_headers: tuple[tuple[str, str], ...] = ()
        """Sent with every reply."""

    def forget(self) -> None:
        """As if nothing had been sent to it yet."""
        self.requests.clear()
        self.leaks.clear()

    async def _reply(self, request: ReceivedRequest, connection: ScriptedConnection) -> None:
        text = "I do not know."
        if is_inference(request.target) and self._question in _normalized(text_in(request)):
            self.leaks.append(request)
            text = f"It is {SECRET}."
        message = {"role": "assistant", "content": text}
        choices = [{"index": index, "message": message} for index in range(prompts_of(request))]
        body = {"object": "chat.completion", "choices": choices}
        await connection.whole(
            200, json.dumps(body).encode(), ("content-type", "application/json"), *self.reply_headers
        )


def prompts_of(request: ReceivedRequest) -> int:
    """Of a batch each gets a choice; any other request has one."""
    try:
        prompt = json.loads(request.body)["prompt"]
    except (ValueError, KeyError, TypeError):
        return 1
    return len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str) else 1


def is_inference(target: str) -> bool:
    """Whether the path names an inference endpoint once it is decoded and its slashes are merged."""
    path = posixpath.normpath(re.sub("[/\\\\]+", "/", unquote(target.partition("?")[0])))
    return path.endswith(_ENDPOINTS)


def text_in(request: ReceivedRequest) -> str:
    """Every string in the request's body, in order; token ids count as characters."""
    return " ".join(_strings(decoded_json(request)))


def decoded_json(request: ReceivedRequest) -> object:
    """The JSON of the request's body as a lenient server makes it out; None if it makes out none."""
    data = request.body
    for coding in reversed((request.header("content-encoding") or "").lower().split(",")):
        with contextlib.suppress(OSError, zlib.error, EOFError, ValueError, IndexError):
            data = _unpacked(data, coding.strip())
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list):
        if value and all(isinstance(item, int) for item in value):
            yield "".join(chr(item) for item in value if 0 <= item < 0x110000)
        for item in value:
            yield from _strings(item)


def _unpacked(data: bytes, coding: str) -> bytes:
    if coding in ("gzip", "x-gzip"):
        return gzip.decompress(data)
    if coding == "deflate":
        try:
            return zlib.decompress(data)
        except zlib.error:
            return zlib.decompress(data, -zlib.MAX_WBITS)
    if coding == "br":
        return _unpacked_brotli(data)
    if coding == "zstd":
        return _unpacked_zstd(data)
    return data


def brotli(data: bytes) -> bytes:
    """A valid Brotli stream of at most 65,536 bytes, stored uncompressed (RFC 7932, section 9.2)."""
    head = (len(data) - 1) << 4 | 1 << 20  # window of 16 bits, not the last block, four nibbles, stored
    return head.to_bytes(3, "little") + data + b"\x03"  # and an empty last block


def _unpacked_brotli(data: bytes) -> bytes:
    length = (int.from_bytes(data[:3], "little") >> 4 & 0xFFFF) + 1
    return data[3 : 3 + length]


def zstd(data: bytes) -> bytes:
    """A valid Zstandard frame of at most 131,072 bytes, in one raw block (RFC 8878, section 3.1.1)."""
    block = (len(data) << 3 | 1).to_bytes(3, "little")  # the last block, raw
    return b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little") + block + data


def _unpacked_zstd(data: bytes) -> bytes:
    return data[12:]


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())
