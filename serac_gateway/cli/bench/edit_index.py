"""`serac bench index`: the index alone, at several sizes: build time, memory, latency, recall, churn."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.load import Latencies
from serac_gateway.config.model import IndexConfig
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.edit_index.tiered import SealingThread
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.memory import trim_malloc

_FORMS = ("{}", "{} {}", "Could you tell me: {}")
"""Of an edit: prompt, statement, and a wording of its own."""
_ENCODED_EDITS = 1_500
_AT_A_TIME = 1_000
_QUERIES = 300
"""Of each sort."""
_K = 8
_REMOVED_SHARE = 0.2
_MIB = 2**20


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the 8 edits that are nearest by exact search are in its result."""

    stored: float
    """Queries are other wordings of indexed edits."""
    neighbours: float
    """Queries are prompts of edits that are not indexed, of the same sort."""
    unrelated: float
    """Queries are everyday questions."""


class IndexResult(msgspec.Struct, frozen=True, kw_only=True):
    """One size."""

    edits: int
    vectors: int
    build_s: float
    """Until all edits are in and nothing is due in the background."""
    memory_mib: float
    """Resident memory that the index adds, at rest."""
    peak_mib: float
    """At most while it was built."""
    quiet: Latencies
    """Of a search for one text."""
    writing: Latencies
    """The same, while edits are written and removed."""
    writes_per_second: float
    write: Latencies
    """Of a write of one edit until every search sees it."""
    recall: Recall


class IndexResults(msgspec.Struct, frozen=True, kw_only=True):
    """All sizes."""

    sizes: list[IndexResult]


class SampleVectors:
    """An encoder's vectors of some edits, and as many more like them: one's, moved by two others' difference.

    The same in every run.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Encode some thousands of texts: a minute."""
        made = workload.edits(_ENCODED_EDITS)
        texts = [form.format(edit["prompt"], edit["target_new"]) for edit in made for form in _FORMS]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = np.empty((len(texts), encoder.width), dtype=np.float32)
        for start in range(0, len(order), 16):
            places = order[start : start + 16]
            vectors[places] = encoder.encode([texts[place] for place in places])
        self.width = encoder.width
        self._edits_EFD = vectors.reshape(len(made), len(_FORMS), -1)
        self.unrelated_BD = encoder.encode(workload.everyday_questions())

    def block(self, number: int, count: int = _AT_A_TIME) -> Vectors:
        """The vectors of that block of edits. *Shape:* (count, 3, D)."""
        rng = np.random.default_rng([7, number])
        base, plus, minus = rng.integers(0, len(self._edits_EFD), (3, count))
        moved = self._edits_EFD[plus] - self._edits_EFD[minus]
        moved = 0.8 * moved[:, :1] + 0.2 * moved
        strength = rng.uniform(0.2, 0.7, (count, 1, 1)).astype(np.float32)
        return _unit(self._edits_EFD[base] + strength * moved)

    def wordings(self, blocks: int) -> Vectors:
        """Other wordings of edits in the first `blocks` blocks. *Shape:* (B, D)."""
        rng = np.random.default_rng(11)
        queries = []
        for _ in range(_QUERIES):
            edit_FD = self.block(int(rng.integers(blocks)))[rng.integers(_AT_A_TIME)]
            other_FD = self._edits_EFD[rng.integers(len(self._edits_EFD))]
            queries.append(edit_FD[0] + 0.7 * (other_FD[2] - other_FD[0]))
        return _unit(np.stack(queries))


def measured(
    sizes: list[int],
    config: IndexConfig,
    sample: SampleVectors,
    say: Callable[[str], None],
    *,
    seconds: float,
) -> Iterator[IndexResult]:
    """Measure one size after the other, each in an index of its own."""
    for edits in sizes:
        thread = SealingThread()
        try:
            yield _measured(index_maker(sample.width, config, thread)(), edits, sample, say, seconds=seconds)
        finally:
            thread.close()
            gc.collect()
            trim_malloc()


def _measured(
    index: EditIndex, edits: int, sample: SampleVectors, say: Callable[[str], None], *, seconds: float
) -> IndexResult:
    blocks = -(-edits // _AT_A_TIME)
    queries = {
        "stored": sample.wordings(blocks),
        "neighbours": np.ascontiguousarray(sample.block(10**9, _QUERIES)[:, 0]),
        "unrelated": sample.unrelated_BD,
    }
    gc.collect()
    trim_malloc()
    before = _resident()
    peak, build_s = before, 0.0
    for block in range(blocks):
        count = min(_AT_A_TIME, edits - block * _AT_A_TIME)
        vectors_EFD = sample.block(block)[:count]
        begun_s = time.perf_counter()
        index.put((f"e{block * _AT_A_TIME + place}", vectors_EFD[place]) for place in range(count))
        index.make_room()
        build_s += time.perf_counter() - begun_s
        peak = max(peak, _resident())
        if block % 50 == 49:
            say(f"{edits:,} edits: {(block + 1) * _AT_A_TIME:,} put")
    begun_s = time.perf_counter()
    index.settle()
    build_s += time.perf_counter() - begun_s
    gc.collect()
    trim_malloc()
    memory = _resident() - before
    say(f"{edits:,} edits: comparing with an exact search")
    recall = _recall(index, sample, blocks, edits, queries)
    say(f"{edits:,} edits: searching, alone and beside writes")
    texts_BD = np.concatenate(list(queries.values()))
    quiet = _searched(index, texts_BD, seconds)
    writing, write, rate = _searched_beside_writes(index, texts_BD, sample, edits, seconds)
    return IndexResult(
        edits=edits,
        vectors=edits * len(_FORMS),
        build_s=build_s,
        memory_mib=memory / _MIB,
        peak_mib=(max(peak, before) - before) / _MIB,
        quiet=quiet,
        writing=writing,
        writes_per_second=rate,
        write=write,
        recall=recall,
    )


def _recall(
    index: EditIndex, sample: SampleVectors, blocks: int, edits: int, queries: dict[str, Vectors]
) -> Recall:
    texts_BD = np.concatenate(list(queries.values()))
    best_BK = np.full((len(texts_BD), _K), -np.inf, dtype=np.float32)
    nearest_BK = np.zeros((len(texts_BD), _K), dtype=np.int64)
    for block in range(blocks):
        count = min(_AT_A_TIME, edits - block * _AT_A_TIME)
        forms_ED = sample.block(block)[:count].reshape(-1, sample.width)
        similarity_BE = (texts_BD @ forms_ED.T).reshape(len(texts_BD), count, -1).max(axis=2)
        numbers_BE = np.broadcast_to(block * _AT_A_TIME + np.arange(count), similarity_BE.shape)
        both_BE = np.concatenate([best_BK, similarity_BE], axis=1)
        ids_BE = np.concatenate([nearest_BK, numbers_BE], axis=1)
        order_BK = np.argsort(-both_BE, axis=1)[:, :_K]
        best_BK = np.take_along_axis(both_BE, order_BK, axis=1)
        nearest_BK = np.take_along_axis(ids_BE, order_BK, axis=1)
    shares = np.array(
        [_share_recalled(index, text_D, row_K) for text_D, row_K in zip(texts_BD, nearest_BK, strict=True)]
    )
    ends = np.cumsum([len(rows) for rows in queries.values()])
    return Recall(
        **{name: float(part.mean()) for name, part in zip(queries, np.split(shares, ends[:-1]), strict=True)}
    )


def _share_recalled(index: EditIndex, text_D: Vectors, nearest_K: NDArray[np.int64]) -> float:
    wanted = {f"e{number}" for number in nearest_K.tolist()}
    return len({hit.edit_id for hit in index.search(text_D[None], _K)[0]} & wanted) / len(wanted)


def _searched(index: EditIndex, texts_BD: Vectors, seconds: float) -> Latencies:
    end_s, times_ms = time.perf_counter() + seconds, []
    order = random.Random(7)
    while time.perf_counter() < end_s:
        place = order.randrange(len(texts_BD))
        begun_s = time.perf_counter()
        index.search(texts_BD[place : place + 1], _K)
        times_ms.append((time.perf_counter() - begun_s) * 1_000)
        time.sleep(0.002)
    return Latencies.of(times_ms)


def _searched_beside_writes(
    index: EditIndex, texts_BD: Vectors, sample: SampleVectors, edits: int, seconds: float
) -> tuple[Latencies, Latencies, float]:
    """Searches, beside 100 writes a second of one edit each and 20 removals."""
    stop, writes_ms = threading.Event(), list[float]()
    new_EFD = sample.block(2 * 10**9)

    def write() -> None:
        due_s, order = time.perf_counter(), random.Random(8)
        while not stop.is_set():
            begun_s = time.perf_counter()
            index.put([(f"e{order.randrange(edits)}", new_EFD[len(writes_ms) % len(new_EFD)])])
            writes_ms.append((time.perf_counter() - begun_s) * 1_000)
            if order.random() < _REMOVED_SHARE:
                index.remove([f"e{order.randrange(edits)}"])
            due_s += 0.01
            stop.wait(max(0.0, due_s - time.perf_counter()))

    writer = threading.Thread(target=write, name="bench-writer")
    writer.start()
    begun_s = time.perf_counter()
    try:
        searched = _searched(index, texts_BD, seconds)
    finally:
        stop.set()
        writer.join()
    return searched, Latencies.of(writes_ms), len(writes_ms) / (time.perf_counter() - begun_s)


def _resident() -> int:
    status = Path("/proc/self/status").read_text("ascii", "replace")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return unit
