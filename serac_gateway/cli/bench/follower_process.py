"""A gateway's edits in memory, in a process of its own, for `serac bench replicas`.

    python -m serac_gateway.cli.bench.follower_process --folder FOLDER --width 384

It follows the embedded store that runs in FOLDER as a gateway does, searches at a steady rate, and obeys the
lines of its input: `busy` begins the second phase of the searches; `end LOG_ID` waits until that entry is in
force and writes a `FollowerReport` as one line of JSON. It writes `ready` first.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from typing_extensions import override

from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.records import log_id_order
from serac_gateway.stores.redis.embedded_valkey import running_server_url
from serac_gateway.stores.redis.store import RedisStore

NAMESPACE = "bench"
_SEARCH_EVERY_S = 0.1
_NEAREST = 8
_CATCH_UP_S = 60.0
_PROBES = 16


class FollowerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one follower has seen. Times are of the system's monotonic clock, which all processes share."""

    applied: list[tuple[str, float]]
    """Log ids up to which everything was in force, with the time from which it was, in order."""
    quiet_ms: list[float]
    """Searches before the writes, in milliseconds: from when one was due to its result."""
    busy_ms: list[float]
    """Searches during the writes."""
    cpu_s: float
    """CPU time of the process during the writes, up to the last entry in force."""
    edits: int
    digest: str
    """SHA-256 of all edits in force and of what searches return; equal for equal edits and vectors."""
    caught_up: bool
    """Whether the last entry was in force in time."""


class RandomEncoder(Encoder):
    """Unit vectors that depend on the text alone. A follower encodes nothing: the store has the vectors."""

    def __init__(self, width: int) -> None:
        """`width` is D."""
        self._width = width

    @property
    @override
    def width(self) -> int:
        return self._width

    @property
    @override
    def fingerprint(self) -> str:
        return f"random-{self._width}"

    @override
    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = [np.random.default_rng(_seed(text)).normal(size=self._width) for text in texts]
        vectors_BD = np.array(rows, dtype=np.float32).reshape(-1, self._width)
        return np.asarray(vectors_BD / np.linalg.norm(vectors_BD, axis=1, keepdims=True), dtype=np.float32)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def digest(active_edits: ActiveEdits, encoder: Encoder, namespace: str) -> str:
    """SHA-256 of all edits in force, and of the ids that searches return, as hexadecimal digits."""
    content = hashlib.sha256()
    for edit in sorted(active_edits.all(namespace), key=lambda edit: edit.id):
        content.update(msgspec.json.encode(edit))
    queries_BD = encoder.encode([f"probe {number}" for number in range(_PROBES)])
    for row in active_edits.candidates(namespace, queries_BD, _NEAREST):
        content.update(" ".join(candidate.edit.id for candidate in row).encode())
    return content.hexdigest()


async def follow(url: str, *, width: int) -> None:
    """Follow the store at `url` until the input says `end`; vectors have `width` components."""
    encoder = RandomEncoder(width)
    store = await RedisStore.open(url)
    active_edits = ActiveEdits(store=store, encoder=encoder, make_index=index_maker(width))
    applied: list[tuple[str, float]] = []

    def note() -> None:
        applied.append((active_edits.position(NAMESPACE).log_id, time.monotonic()))

    follower = LogFollower(store=store, active_edits=active_edits, max_staleness_s=10.0, on_applied=note)
    searching: asyncio.Task[None] | None = None
    try:
        await active_edits.load()
        follower.start()
        await follower.caught_up()
        quiet_ms: list[float] = []
        busy_ms: list[float] = []
        samples = [quiet_ms]
        cpu_before_s = time.process_time()
        searching = asyncio.create_task(_search(active_edits, encoder, samples))
        _say("ready")
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            if line[0] == "busy":
                samples[0], cpu_before_s = busy_ms, time.process_time()
                continue
            searching.cancel()
            caught_up = await _until_applied(active_edits, line[1])
            cpu_s = time.process_time() - cpu_before_s
            report = FollowerReport(
                applied=applied,
                quiet_ms=quiet_ms,
                busy_ms=busy_ms,
                cpu_s=cpu_s,
                edits=active_edits.count(NAMESPACE),
                digest=digest(active_edits, encoder, NAMESPACE),
                caught_up=caught_up,
            )
            _say(msgspec.json.encode(report).decode())
            return
    finally:
        if searching is not None:
            searching.cancel()
        await follower.close()
        await store.close()


async def _search(active_edits: ActiveEdits, encoder: Encoder, samples: list[list[float]]) -> None:
    """Search on a worker thread at a steady rate, as decisions do, and note the time into `samples[0]`."""
    queries = encoder.encode([f"query {number}" for number in range(256)])
    due_s = time.monotonic()
    for number in range(sys.maxsize):
        due_s += _SEARCH_EVERY_S
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        query_1D = queries[number % len(queries)][np.newaxis]
        await asyncio.to_thread(active_edits.candidates, NAMESPACE, query_1D, _NEAREST)
        samples[0].append((time.monotonic() - due_s) * 1_000)
        due_s = max(due_s, time.monotonic() - 1.0)  # after a long stall not all that was due then


async def _until_applied(active_edits: ActiveEdits, log_id: str) -> bool:
    until_s = time.monotonic() + _CATCH_UP_S
    while log_id_order(active_edits.position(NAMESPACE).log_id) < log_id_order(log_id):
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(0.01)
    return True


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follow a store, for serac bench replicas.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--width", type=int, required=True)
    given = parser.parse_args()
    with running_server_url(given.folder) as url_in_use:
        asyncio.run(follow(url_in_use, width=given.width))
