"""The import of edits: NDJSON in, one outcome a line out, both streaming, in constant memory.

    chunks ─> lines ─> _Line (draft or error) ─> queue ─> batches ─> EditImport.add ─> outcome lines

While a batch is encoded and committed the queue fills, so batches grow with the load; a client that
sends one line and waits gets its outcome at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from litestar.exceptions import HTTPException

from serac_gateway.control_plane.http.bodies import decode_body
from serac_gateway.control_plane.http.problems import problem
from serac_gateway.control_plane.importer import EditImport, Outcome
from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import GatewayError, InvalidRequestError

MAX_LINE_BYTES = 1_048_576
"""An edit with every field at its limit and every character escaped stays below it."""

_BATCH = 64


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    """Counts from 1."""
    draft: EditDraft | GatewayError


async def import_edits(edits: EditImport, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Add the edit of every line, and yield ``{"line", "id", "version", "added"}`` or ``{"line", "error"}``.

    Outcomes come in the order of the lines. A bad line stops no other. When the client breaks off, what it
    sent in whole lines is imported.
    """
    queue: asyncio.Queue[_Line | None] = asyncio.Queue(maxsize=_BATCH)
    reader = asyncio.create_task(_read(chunks, queue))
    try:
        ended = False
        while not ended:
            batch = [await queue.get()]
            while len(batch) < _BATCH and not queue.empty():
                batch.append(queue.get_nowait())
            ended = batch[-1] is None
            if lines := [line for line in batch if line is not None]:
                yield await _outcomes(edits, lines)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def split_lines(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes | None]:
    """The lines of a byte stream, without their ends; None for one beyond `max_bytes`, which is not kept."""
    buffer = bytearray()
    overlong = False
    async for chunk in chunks:
        buffer += chunk
        if b"\n" in chunk:
            *whole, rest = buffer.split(b"\n")
            for line in whole:
                yield None if overlong or len(line) > max_bytes else bytes(line).removesuffix(b"\r")
                overlong = False
            buffer = rest
        if len(buffer) > max_bytes:
            overlong = True
            buffer.clear()
    if buffer or overlong:
        yield None if overlong else bytes(buffer)


async def _read(chunks: AsyncIterator[bytes], queue: asyncio.Queue[_Line | None]) -> None:
    number = 0
    try:
        async for line in split_lines(chunks, MAX_LINE_BYTES):
            number += 1
            await queue.put(_Line(number=number, draft=_draft(line)))
    except HTTPException:
        pass  # the client broke off; Litestar says so with an exception out of the stream
    await queue.put(None)


def _draft(line: bytes | None) -> EditDraft | GatewayError:
    if line is None:
        return InvalidRequestError(
            f"the line is longer than {MAX_LINE_BYTES:,} bytes; no edit needs that much",
            field="line",
            details={"limit": MAX_LINE_BYTES},
        )
    if not line.strip():
        return InvalidRequestError("the line is blank; give one edit a line", field="line")
    try:
        return decode_body(line, EditDraft)
    except InvalidRequestError as error:
        return error


async def _outcomes(edits: EditImport, lines: list[_Line]) -> bytes:
    drafts = [line.draft for line in lines if isinstance(line.draft, EditDraft)]
    added = iter(await edits.add(drafts))
    outcomes: list[Outcome] = [
        line.draft if isinstance(line.draft, GatewayError) else next(added) for line in lines
    ]
    return b"".join(_outcome(line.number, outcome) for line, outcome in zip(lines, outcomes, strict=True))


def _outcome(number: int, outcome: Outcome) -> bytes:
    fields: dict[str, object] = {"line": number}
    if isinstance(outcome, GatewayError):
        fields["error"] = problem(outcome)[1]
    else:
        fields |= {"id": outcome.edit.id, "version": outcome.edit.version, "added": outcome.added}
        if outcome.proposed:
            fields["proposed"] = True
    return msgspec.json.encode(fields) + b"\n"
