"""`serac bench guard`: what watching a streamed reply costs, in this process, without a network."""

from __future__ import annotations

import asyncio
import random
import time

import msgspec
from rich.table import Table

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.report import OutOption, write_out
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import print_json, stdout
from serac_gateway.data_plane.guard.event_pieces import EventPieces
from serac_gateway.data_plane.guard.patterns import Patterns, patterns_of
from serac_gateway.data_plane.guard.reply_watch import ReplyWatch
from serac_gateway.data_plane.protocols.base import stream_event

_TOKEN_CHARS = 4
_TOKENS = 5_000


class GuardRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of chat completion chunks, a token each, watched for some values."""

    values: int
    build_ms: float
    """To make the patterns, once after each change."""
    cpu_ms: float
    """For 1,000 tokens."""
    waiting_share: float
    """Of the tokens that wait for a later one."""
    longest_wait: int
    """Tokens that the longest waiting one waits for."""


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
    """By the number of values."""

    rows: list[GuardRow]


def guard(out: OutOption = None, as_json: JsonOption = False) -> None:
    """Measure what watching replies for suppressed values costs: CPU time and delay for 1,000 tokens."""
    patterns_of(["0"])  # opens the names of numbers, which a process does once
    result = GuardResult(rows=[asyncio.run(_measured(values)) for values in (1, 10, 100, 10_000)])
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("values", "patterns ms", "CPU ms / 1,000 tokens", "tokens that wait", "for at most")
    for row in result.rows:
        table.add_row(
            f"{row.values:,}",
            f"{row.build_ms:.1f}",
            f"{row.cpu_ms:.1f}",
            f"{row.waiting_share:.0%}",
            f"{row.longest_wait} tokens",
        )
    stdout().print(table)


async def _measured(values: int) -> GuardRow:
    begun = time.perf_counter()
    patterns = patterns_of(_made_values(values))
    build_s = time.perf_counter() - begun
    text = " ".join(workload.everyday_questions() * 200)[: _TOKENS * _TOKEN_CHARS]
    events = [
        stream_event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                      "choices": [{"index": 0, "delta": {"content": text[start : start + _TOKEN_CHARS]},
                                   "finish_reason": None}]})
        for start in range(0, len(text), _TOKEN_CHARS)
    ]  # fmt: skip
    cpu_s, waits = await _watched(events, patterns)
    return GuardRow(
        values=values,
        build_ms=round(build_s * 1_000, 2),
        cpu_ms=round(cpu_s * 1_000 / len(events) * 1_000, 2),
        waiting_share=sum(wait > 0 for wait in waits) / len(waits),
        longest_wait=max(waits),
    )


async def _watched(events: list[bytes], patterns: Patterns) -> tuple[float, list[int]]:
    """CPU seconds, and for each event how many later ones it waited for."""
    pieces, watch = EventPieces(), ReplyWatch(patterns)
    waits: list[int] = []
    begun = time.process_time()
    for place, event in enumerate(events):
        for piece in pieces.feed(event):
            await watch.add(piece.data, piece.value, piece.texts)
        waits += [place - len(waits) for _ in watch.released()]
    return time.process_time() - begun, waits


def _made_values(count: int) -> list[str]:
    """Passwords, telephone numbers and names that stand in no text."""
    dice = random.Random(count)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=7)).capitalize() for _ in range(2 * count)]
    kinds = (
        lambda place: f"{words[place].lower()}{dice.randrange(100)}",
        lambda place: f"{dice.randrange(1_000)}-{dice.randrange(10_000_000):07}",
        lambda place: f"{words[place]} {words[count + place]}",
    )
    return [kinds[place % 3](place) for place in range(count)]
