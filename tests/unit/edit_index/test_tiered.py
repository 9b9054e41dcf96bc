"""Many vectors lie in inverted lists; what is written is seen at once, whatever is being built."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from serac_gateway.config.model import IndexConfig
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index import tiered
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.ivf import Centroids, IvfScheme
from serac_gateway.edit_index.tiered import SealingThread, TieredIndex

WIDTH = 32
SMALL = IndexConfig(exact_vectors=600, delta_vectors=100, read_vectors=400)


@pytest.fixture
def thread() -> Iterator[SealingThread]:
    made = SealingThread()
    yield made
    made.close()


def clustered(rows: int, seed: int) -> Vectors:
    """Unit vectors about a few dozen centres, which have a direction in common as encoders' have."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(40, WIDTH)) + 2 * np.ones(WIDTH)
    vectors = centres[rng.integers(0, 40, rows)] + 0.4 * rng.normal(size=(rows, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def edits(first: int, count: int) -> list[tuple[str, Vectors]]:
    rows = clustered(2 * count, first).reshape(count, 2, WIDTH)
    return [(f"e{first + number}", rows[number]) for number in range(count)]


def recall(index: TieredIndex, exact: FaissFlatIndex, *, k: int = 8) -> float:
    queries = clustered(100, 999)
    pairs = zip(index.search(queries, k), exact.search(queries, k), strict=True)
    return float(
        np.mean([len({hit.edit_id for hit in a} & {hit.edit_id for hit in b}) / k for a, b in pairs])
    )


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.97), ("fp16", 0.97), ("int8", 0.8)])
def test_most_of_the_nearest_are_found_among_many(
    thread: SealingThread, precision: str, least: float
) -> None:
    config = IndexConfig(exact_vectors=600, delta_vectors=100, read_vectors=2_000, precision=precision)
    index, exact = TieredIndex(WIDTH, config=config, thread=thread), FaissFlatIndex(WIDTH)
    for first in range(0, 4_000, 500):
        index.put(edits(first, 500))
        exact.put(edits(first, 500))
        index.settle()
    assert index.sealed_rows > 7_000
    assert recall(index, exact) >= least


def test_lists_are_in_half_precision_until_there_are_many(
    thread: SealingThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered, "_FINER_ROWS", 2_000)
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    precisions, exact = [], FaissFlatIndex(WIDTH)
    for first in range(0, 4_000, 500):
        index.put(edits(first, 500))
        exact.put(edits(first, 500))
        index.settle()
        precisions.append({segment.scheme.precision for segment in index._state.sealed})
    assert precisions[0] == {"fp16"}
    assert precisions[-1] == {"int8"}  # those of before are written anew
    assert len(index) == len(exact)
    assert recall(index, exact) > 0.5


def test_few_vectors_are_searched_exactly_and_wake_no_thread(thread: SealingThread) -> None:
    index, exact = TieredIndex(WIDTH, config=SMALL, thread=thread), FaissFlatIndex(WIDTH)
    index.put(edits(0, 300))
    exact.put(edits(0, 300))
    assert index.sealed_rows == 0
    assert recall(index, exact) == 1.0
    assert not any(other.name == "index-sealing" for other in threading.enumerate())


def test_lists_are_made_anew_as_rows_grow_and_segments_stay_few(thread: SealingThread) -> None:
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    schemes, most = set(), 0
    for first in range(0, 6_000, 400):
        index.put(edits(first, 400))
        index.settle()
        schemes |= {segment.scheme for segment in index._state.sealed}
        most = max(most, len(index._state.sealed))
    assert len(schemes) == 2  # made for 800 rows and, above four times as many, for 4,000
    assert most <= 5


def test_dead_rows_are_dropped_and_their_keys_are_used_again(thread: SealingThread) -> None:
    index, exact = TieredIndex(WIDTH, config=SMALL, thread=thread), FaissFlatIndex(WIDTH)
    index.put(edits(0, 1_000))
    index.settle()
    for turn in range(30):
        changed = [(f"e{number}", vectors) for number, (_, vectors) in enumerate(edits(turn * 977, 300))]
        index.put(changed)
        exact.put(changed)
        index.settle()
        gc.collect()
    assert len(index) == 1_000
    assert index.sealed_rows < 2 * 1_000 / (1 - 0.21) + 2 * 300
    assert len(index._keys.edit_ids) < 4_000  # 10,000 puts were made
    index.remove(f"e{number}" for number in range(300, 1_000))
    index.settle()
    assert [[hit.edit_id for hit in row] for row in index.search(clustered(5, 3), 300)] == [
        [hit.edit_id for hit in row] for row in index.search(clustered(5, 3), 300)
    ]
    assert {hit.edit_id for hit in index.search(clustered(1, 3), 300)[0]} == {
        f"e{number}" for number in range(300)
    }


def test_writes_are_seen_and_nothing_is_missed_while_rows_are_sealed(
    thread: SealingThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    segment = IvfScheme.segment

    def slowly(self: IvfScheme, *args: object, **kwargs: object) -> object:
        begun.set()
        assert go_on.wait(10)
        return segment(self, *args, **kwargs)

    monkeypatch.setattr(IvfScheme, "segment", slowly)
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    index.put(edits(0, 400))
    assert begun.wait(10)
    new = clustered(1, 12_345)
    index.put([("new", new), ("e0", -new)])
    index.remove(["e1"])
    for _ in range(2):
        nearest = index.search(new, 400)[0]
        assert nearest[0].edit_id == "new"
        assert nearest[-1].edit_id == "e0"
        assert {hit.edit_id for hit in index.search(new, 1_000)[0]} == {
            "new", *(f"e{number}" for number in range(400) if number != 1)
        }  # fmt: skip
        go_on.set()
        index.settle()
    assert index.sealed_rows == 800


def test_a_rebuild_that_fails_leaves_the_index_as_it_was(
    thread: SealingThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> object:
        raise MemoryError("no memory left")

    monkeypatch.setattr(Centroids, "trained", fails)
    index, exact = TieredIndex(WIDTH, config=SMALL, thread=thread), FaissFlatIndex(WIDTH)
    with caplog.at_level(logging.ERROR):
        index.put(edits(0, 400))
        exact.put(edits(0, 400))
        index.settle()
    index.put(edits(400, 10))
    exact.put(edits(400, 10))
    assert recall(index, exact) == 1.0
    assert "could not be rebuilt" in caplog.text
    assert caplog.text.count("could not be rebuilt") == 1
    monkeypatch.undo()
    later_s = time.monotonic() + 60
    monkeypatch.setattr(tiered.time, "monotonic", lambda: later_s)
    index.put(edits(410, 10))
    index.settle()
    assert index.sealed_rows == 840


def test_what_was_removed_before_it_could_be_sealed_leaves_nothing(thread: SealingThread) -> None:
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    index.put([(f"e{number}", clustered(100, number)) for number in range(6)])
    index.remove(f"e{number}" for number in range(6))
    index.put([("last", clustered(1, 7))])
    index.remove(["last"])
    index.settle()
    assert (len(index), index.sealed_rows) == (0, 0)
    assert index.search(clustered(1, 8), 8) == [[]]


def test_a_bulk_load_waits_for_the_rows_to_be_sealed(
    thread: SealingThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered, "_BACKLOG_ROWS", 1_000)
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    for first in range(0, 10_000, 500):
        index.put(edits(first, 500))
        index.make_room()
        assert index._exact_rows() <= 1_600
    thread.close()
    index.put(edits(10_000, 2_000))
    index.make_room()  # nobody will do the work: it must not wait for ever
    assert len(index) == 12_000


def test_a_bulk_load_goes_on_once_the_pause_after_a_failure_is_over(
    thread: SealingThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its last put came within the pause, and so woke nobody."""
    monkeypatch.setattr(tiered, "_BACKLOG_ROWS", 100)
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    index._retry_at_s = math.inf
    index.put(edits(0, 2_000))
    index.make_room()
    assert index.sealed_rows == 0
    index._retry_at_s = 0.0
    loading = threading.Thread(target=index.make_room, daemon=True)
    loading.start()
    loading.join(30)
    assert not loading.is_alive()
    assert index.sealed_rows == 4_000


def test_an_edit_with_more_forms_than_ids_have_room_for_is_refused(thread: SealingThread) -> None:
    index = TieredIndex(WIDTH, config=SMALL, thread=thread)
    with pytest.raises(ValueError, match=r"'many'.*1 to 65535"):
        index.put([("many", np.ones((65_536, WIDTH), np.float32))])


def test_rows_unlike_those_that_8_bits_were_fitted_to_get_a_writing_of_their_own() -> None:
    rows = clustered(2_000, 1)
    scheme = IvfScheme.trained(rows, lists=8, precision="int8")
    assert scheme.fits(clustered(500, 2))
    others = -clustered(2_000, 3)
    assert not scheme.fits(others)
    assert IvfScheme.trained(others, lists=8, precision="int8", like=scheme).fits(others)
    again = IvfScheme.trained(clustered(2_000, 4), lists=16, precision="int8", like=scheme)
    assert np.array_equal(again.mean_D, scheme.mean_D)
