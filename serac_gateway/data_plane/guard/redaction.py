"""Takes the values that suppressions keep back out of requests: the base model cannot say what it never read.

A reply can hide a value in more ways than any watch knows: a cipher, a sum, a rhyme. A request has it as the
operator's system prompt, a document or a tool gave it, in a form that is recognized.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from serac_gateway.data_plane.guard.guards import ValueGuard
from serac_gateway.data_plane.guard.reply_watch import STEP_CHARS
from serac_gateway.data_plane.guard.text_watch import TextWatch
from serac_gateway.data_plane.lenient_json import UNDECODABLE
from serac_gateway.data_plane.protocols.all_text import NOT_FOR_THE_MODEL
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.errors import UnreadableError

REDACTED = "[redacted]"
"""Stands in the place of a value."""
_DATA = frozenset(
    {"type", "role", "data", "file_data", "b64_json", "encrypted_content", "signature", "thought_signature"}
)
"""Members, at any depth, that hold names of the API or encoded data."""
_ON_LOOP_BYTES = 4_096
"""A longer body is read on a worker thread: it takes 1.5 microseconds a character."""


class Redacted(msgspec.Struct, frozen=True, kw_only=True):
    """A request without the values that were in it."""

    body: bytes
    values: tuple[int, ...]
    """The places of the values, among those that are looked for, in order; each once."""


async def redacted(body: RequestBody, guard: ValueGuard) -> Redacted | None:
    """`body` without the values of `guard`; None: it has none, and passes as it is.

    Members without a value keep their bytes. Names of members are not read, nor are images and other data.
    A body that cannot be read passes: whether it may is decided before (`routing.on_unreadable`).
    """
    if len(body.data) <= _ON_LOOP_BYTES and not body.form.content_encoding:
        return _without_values(body, guard)
    return await asyncio.to_thread(_without_values, body, guard)


def text_without_values(text: str, guard: ValueGuard) -> tuple[str, set[int]]:
    """`text` with `REDACTED` in the place of each value, and the places of the values that it had."""
    values: set[int] = set()
    for spans in (_spans, _exact_spans):
        kept: list[str] = []
        done = 0
        for begin, end, value in spans(text, guard):
            kept += [text[done:begin], REDACTED]
            values.add(value)
            done = end
        text = "".join([*kept, text[done:]])
    return text, values


def _spans(text: str, guard: ValueGuard) -> Iterator[tuple[int, int, int]]:
    """Begin, end and value of each that is recognized in `text`, in order."""
    begin = 0
    while begin < len(text):
        watch = TextWatch(guard.patterns)
        # In steps, so that a text full of values is not copied once for each of them.
        steps = (text[start : start + STEP_CHARS] for start in range(begin, len(text), STEP_CHARS))
        match = next((match for step in steps if (match := watch.feed(step)) is not None), None)
        end = len(text) if match is None else begin + watch.end_of(match)
        match = match or watch.close()
        if match is None:
            return
        yield begin + match.start, end, match.value
        begin = end


def _exact_spans(text: str, guard: ValueGuard) -> Iterator[tuple[int, int, int]]:
    return guard.exact.spans(text)


def _without_values(body: RequestBody, guard: ValueGuard) -> Redacted | None:
    try:
        members = dict(body.strict_members())
    except (UnreadableError, *UNDECODABLE):
        return None
    values: set[int] = set()
    for name, raw in members.items():
        if name.lower() in NOT_FOR_THE_MODEL:
            continue
        in_member: set[int] = set()
        cleaned = _cleaned(msgspec.json.decode(raw), name, guard, in_member)
        if in_member:
            members[name] = msgspec.Raw(msgspec.json.encode(cleaned))
            values |= in_member
    if not values:
        return None
    return Redacted(body=msgspec.json.encode(members), values=tuple(sorted(values)))


def _cleaned(value: object, name: str, guard: ValueGuard, values: set[int]) -> object:
    """`value`, the member `name`, without the values; adds the places of those that it had to `values`."""
    if isinstance(value, str):
        if name in _DATA or value.startswith("data:"):
            return value
        text, in_text = text_without_values(value, guard)
        values |= in_text
        return text
    if isinstance(value, list):
        return [_cleaned(member, name, guard, values) for member in value]
    if isinstance(value, dict):
        return {key: _cleaned(member, key, guard, values) for key, member in value.items()}
    return value
