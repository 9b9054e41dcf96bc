"""`serac bench import`, `start` and `write`: times of imports, of starts with stored edits, and of writes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.load import Latencies
from serac_gateway.cli.bench.processes import GatewayProcess, running_gateway, running_mock
from serac_gateway.cli.bench.wire import BenchError
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Edit, EditDraft, first_version, forms
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.open import open_store
from serac_gateway.stores.records import Action, Change, Commit, FormVectors

_TURNS = 10
_SAMPLE = 0.1
"""Share of a turn's edits that are encoded alone before the turn."""
_COMMITTED_AT_A_TIME = 1_000
_MIB = 2**20
_NAMESPACE = "bench"

StoreEdits = Callable[[str, str, list[dict[str, str]]], object]
"""Imports edits into the gateway at a URL, into a namespace."""


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """The rate of an import, and the rate of the encoder alone."""

    edits: int
    seconds: float
    edits_per_second: float
    encoder_edits_per_second: float
    """On as many threads as the gateway has for decisions; in turns with the import."""
    share_of_encoder: float
    resident_before_mib: float
    peak_resident_mib: float
    """Of the gateway with its models, without the store's own process."""


class StartResult(msgspec.Struct, frozen=True, kw_only=True):
    """Starts of a gateway with converted models, until /health/ready answers 200."""

    edits: int
    seconds: float
    seconds_without_edits: float
    encoded_anew: bool
    """Whether the gateway encoded any edit."""


class WriteResult(msgspec.Struct, frozen=True, kw_only=True):
    """One write after the other, each until the edit is in force in the same process."""

    edits: int
    """Edits in the store before the writes."""
    beyond_encoding: Latencies
    encoding: Latencies


def imported(
    gateway: GatewayProcess, encoder: Encoder, edits: int, *, threads: int, store_edits: StoreEdits
) -> ImportResult:
    """Import `edits` edits, in turns with the encoder alone."""
    made, size = workload.edits(edits), -(-edits // _TURNS)
    before = gateway.watched.usage().resident_bytes
    import_s = encoder_s = 0.0
    encoded = 0
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, edits, size):
            turn = made[start : start + size]
            sample = turn[: max(1, round(_SAMPLE * len(turn)))]
            encoded += len(sample)
            begun_s = time.perf_counter()
            list(pool.map(partial(_encode, encoder), sample))
            encoded_s = time.perf_counter()
            store_edits(gateway.url, _NAMESPACE, turn)
            encoder_s += encoded_s - begun_s
            import_s += time.perf_counter() - encoded_s
    rate, encoder_rate = edits / import_s, encoded / encoder_s
    return ImportResult(
        edits=edits,
        seconds=import_s,
        edits_per_second=rate,
        encoder_edits_per_second=encoder_rate,
        share_of_encoder=rate / encoder_rate,
        resident_before_mib=before / _MIB,
        peak_resident_mib=gateway.watched.peak_resident_bytes() / _MIB,
    )


def started(folder: Path, encoder: Encoder, edits: int, *, models_from: Path) -> StartResult:
    """Start a gateway without edits, and one with `edits` edits, whose vectors are random to save time.

    Raises:
        BenchError: A gateway does not start.
    """
    seconds = []
    for data, count in ((folder / "none", 0), (folder / "edits", edits)):
        asyncio.run(_make_store(data, encoder, count))
        with running_mock() as mock:
            begun_s = time.perf_counter()
            with running_gateway(data, upstream_url=mock.target.url, models_from=models_from):
                seconds.append(time.perf_counter() - begun_s)
    words = (folder / "edits" / "gateway.log").read_text("utf-8", "replace")
    return StartResult(
        edits=edits,
        seconds=seconds[1],
        seconds_without_edits=seconds[0],
        encoded_anew="encoded anew" in words,
    )


async def written(folder: Path, encoder: Encoder, edits: int, *, writes: int) -> WriteResult:
    """Add edits one after the other to a store that holds `edits` edits, with fsync always.

    Conflicts are not searched: the gateway does that beside the commit, and an edit is in force before.

    Raises:
        BenchError: An added edit is not in the index.
    """
    await _make_store(folder, encoder, edits)
    store = await open_store(None, folder)
    timed = _TimedEncoder(encoder)
    active_edits = ActiveEdits(store=store, encoder=timed, make_index=lambda: FaissFlatIndex(encoder.width))
    beyond_ms, encoding_ms = [], []
    try:
        await active_edits.load()
        with ThreadPoolExecutor(1) as pool:
            writer = EditWriter(store=store, encoder=timed, active_edits=active_edits, pool=pool)
            for draft in workload.edits(edits + writes)[edits:]:
                timed.seconds, begun_s = 0.0, time.perf_counter()
                version = NextVersion.added(_NAMESPACE, msgspec.convert(draft, EditDraft))
                await writer.write(_NAMESPACE, version)
                beyond_ms.append((time.perf_counter() - begun_s - timed.seconds) * 1_000)
                encoding_ms.append(timed.seconds * 1_000)
                ((nearest,),) = active_edits.candidates(_NAMESPACE, encoder.encode([draft["prompt"]]), 1)
                if nearest.edit.id != draft["id"]:
                    raise BenchError(f"edit {draft['id']!r} was added, but is not in the index")
    finally:
        await store.close()
    return WriteResult(
        edits=edits, beyond_encoding=Latencies.of(beyond_ms), encoding=Latencies.of(encoding_ms)
    )


class _TimedEncoder(Encoder):
    """Adds up the seconds that its encoder runs."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.seconds = 0.0

    @property
    def width(self) -> int:
        return self._encoder.width

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        begun_s = time.perf_counter()
        vectors_BD = self._encoder.encode(texts)
        self.seconds += time.perf_counter() - begun_s
        return vectors_BD


async def _make_store(folder: Path, encoder: Encoder, edits: int) -> None:
    """Make a data folder whose store holds `edits` edits with random vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    store = await open_store(None, folder)
    try:
        await _fill(store, encoder, edits)
    finally:
        await store.close()


async def _fill(store: EditStore, encoder: Encoder, edits: int) -> None:
    rng = np.random.default_rng(7)

    def changes() -> Iterator[Change]:
        for draft in workload.edits(edits):
            edit = _edit(draft)
            vectors_FD = rng.normal(size=(len(forms(edit)), encoder.width)).astype(np.float32)
            vectors_FD /= np.linalg.norm(vectors_FD, axis=1, keepdims=True)
            vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=vectors_FD)
            yield Change(action=Action.ADD, edit=edit, vectors=vectors)

    made = changes()
    while batch := tuple(itertools.islice(made, _COMMITTED_AT_A_TIME)):
        await store.commit(_NAMESPACE, Commit(changes=batch))


def _edit(draft: dict[str, str]) -> Edit:
    return first_version(msgspec.convert(draft, EditDraft), namespace=_NAMESPACE)


def _encode(encoder: Encoder, draft: dict[str, str]) -> Vectors:
    return encoder.encode(forms(_edit(draft)))
