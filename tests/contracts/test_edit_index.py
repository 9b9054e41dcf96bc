"""Every edit index does what `EditIndex` says."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serac_gateway.config.model import IndexConfig
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.faiss_gpu import CudaDevice, FaissGpuIndex, cuda_device_count
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.edit_index.tiered import SealingThread, TieredIndex

WIDTH = 8
MakeIndex = Callable[[], EditIndex]


class SettledIndex(TieredIndex):
    """Seals and merges all that is due before a write returns."""

    def put(self, edits: Iterable[tuple[str, Vectors]]) -> None:
        super().put(edits)
        self.settle()

    def remove(self, edit_ids: Iterable[str]) -> None:
        super().remove(edit_ids)
        self.settle()


ALL_LISTS = IndexConfig(exact_vectors=40, delta_vectors=16, precision="fp32", read_vectors=10**9)
"""Seals early, and reads every list: what is approximate about it is then exact."""


@pytest.fixture(
    scope="module",
    params=["flat", "tiered", "settled", "fake gpu", pytest.param("gpu", marks=pytest.mark.gpu)],
)
def make_index(request: pytest.FixtureRequest) -> Iterator[MakeIndex]:
    if request.param == "flat":
        yield lambda: FaissFlatIndex(WIDTH)
        return
    if request.param in ("tiered", "settled"):
        thread = SealingThread()
        kind = TieredIndex if request.param == "tiered" else SettledIndex
        yield lambda: kind(WIDTH, config=ALL_LISTS, thread=thread)
        thread.close()
        return
    if request.param == "fake gpu":
        with fake_cuda(budget_rows=10_000) as device:
            yield lambda: FaissGpuIndex(WIDTH, device=device)
        return
    if not cuda_device_count():
        pytest.skip("faiss sees no CUDA device; needs the extra [gpu] and a GPU")
    device = CudaDevice()
    yield lambda: FaissGpuIndex(WIDTH, device=device)


@pytest.mark.skipif(cuda_device_count() > 0, reason="a CUDA device is there")
def test_a_cuda_device_that_is_not_there_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"CUDA device 0 is not there.*\[gpu\]"):
        CudaDevice()


@contextmanager
def fake_cuda(*, budget_rows: int) -> Iterator[CudaDevice]:
    """A device that holds `budget_rows` rows, then refuses; its searches run in main memory."""

    class Resources:
        def setTempMemory(self, size: int) -> None:
            self.size = size

    left = [budget_rows]

    def copied(resources: Resources, number: int, rows: faiss.Index) -> faiss.Index:
        if rows.ntotal > left[0]:
            raise RuntimeError("Error in void* faiss::gpu::allocMemory: cudaMalloc error out of memory")
        left[0] -= rows.ntotal
        return rows

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(faiss, "StandardGpuResources", Resources, raising=False)
        patched.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
        patched.setattr(faiss, "index_cpu_to_gpu", copied, raising=False)
        yield CudaDevice()


def test_a_full_device_is_warned_of_once_and_what_comes_is_searched_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with fake_cuda(budget_rows=3) as device:
        index, held = FaissGpuIndex(WIDTH, device=device), {}
        for number in range(40):
            vectors_FD = unit_vectors(2, number)
            index.put([(f"e{number}", vectors_FD)])
            held[f"e{number}"] = vectors_FD
        assert_equals_brute_force(index, held, 8, 99)
    assert caplog.text.count("takes no further vectors") == 1


def test_a_device_that_cannot_be_opened_is_warned_of_and_main_memory_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> object:
        raise RuntimeError("CUDA driver version is insufficient for CUDA runtime version")

    thread = SealingThread()
    with fake_cuda(budget_rows=3), pytest.MonkeyPatch.context() as patched:
        patched.setattr(faiss, "StandardGpuResources", broken, raising=False)
        make = index_maker(WIDTH, IndexConfig(), thread)
    assert isinstance(make(), TieredIndex)
    assert "cannot be used" in caplog.text


def unit_vectors(rows: int, seed: int) -> Vectors:
    vectors_RD = np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)
    return vectors_RD / np.linalg.norm(vectors_RD, axis=1, keepdims=True)


def brute_force(held: dict[str, Vectors], query_D: Vectors, k: int) -> list[tuple[str, float]]:
    best = [(edit_id, float((vectors_FD @ query_D).max())) for edit_id, vectors_FD in held.items()]
    return sorted(best, key=lambda pair: (-pair[1], pair[0]))[:k]


def assert_equals_brute_force(index: EditIndex, held: dict[str, Vectors], k: int, seed: int) -> None:
    queries_BD = unit_vectors(3, seed)
    for query_D, row in zip(queries_BD, index.search(queries_BD, k), strict=True):
        expected = brute_force(held, query_D, k)
        assert [hit.edit_id for hit in row] == [edit_id for edit_id, _ in expected]
        assert np.allclose([hit.similarity for hit in row], [s for _, s in expected], atol=1e-5)
        for hit in row:
            assert np.isclose(held[hit.edit_id][hit.form] @ query_D, hit.similarity, atol=1e-5)


def test_an_empty_index_finds_nothing(make_index: MakeIndex) -> None:
    index = make_index()
    assert index.search(unit_vectors(2, 0), 8) == [[], []]
    assert len(index) == 0


def test_a_put_is_seen_by_the_next_search_and_replaces_what_was_there(make_index: MakeIndex) -> None:
    index = make_index()
    first, second = unit_vectors(2, 1)
    index.put([("a", first[None])])
    assert index.search(first[None], 1)[0][0].similarity == pytest.approx(1.0)
    index.put([("a", second[None])])
    assert len(index) == 1
    assert "a" in index
    assert index.search(first[None], 8)[0][0].similarity == pytest.approx(float(first @ second), abs=1e-6)


def test_a_search_returns_edits_not_forms(make_index: MakeIndex) -> None:
    index = make_index()
    index.put([("many", unit_vectors(200, 2)), ("one", unit_vectors(1, 3))])
    assert {hit.edit_id for hit in index.search(unit_vectors(1, 4), 2)[0]} == {"many", "one"}


def test_removing_forgets_and_ignores_what_is_unknown(make_index: MakeIndex) -> None:
    index = make_index()
    index.put([("a", unit_vectors(2, 5)), ("b", unit_vectors(2, 6))])
    index.remove(["a", "never there"])
    assert [hit.edit_id for hit in index.search(unit_vectors(1, 7), 8)[0]] == ["b"]
    assert "a" not in index


@pytest.mark.parametrize(
    "vectors_FD", [np.ones((1, WIDTH + 1), np.float32), np.empty((0, WIDTH), np.float32)]
)
def test_vectors_of_the_wrong_shape_are_refused_and_change_nothing(
    make_index: MakeIndex, vectors_FD: Vectors
) -> None:
    index = make_index()
    with pytest.raises(ValueError, match="'bad'"):
        index.put([("good", unit_vectors(1, 8)), ("bad", vectors_FD)])
    assert len(index) == 0
    with pytest.raises(ValueError, match="at least 1"):
        index.search(unit_vectors(1, 8), 0)
    with pytest.raises(ValueError, match="width"):
        index.search(np.ones((1, WIDTH + 1), np.float32), 1)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=20)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 30), max_size=10)),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=60)
@given(operations=operations, k=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_any_order_of_writes_searches_like_brute_force(
    make_index: MakeIndex, operations: list, k: int, seed: int
) -> None:
    index, held = make_index(), {}
    for step, (name, arguments) in enumerate(operations):
        if name == "put":
            batch = {
                f"e{number}": unit_vectors(forms, seed + 100 * step + number) for number, forms in arguments
            }
            index.put(batch.items())
            held |= batch
        else:
            index.remove(f"e{number}" for number in arguments)
            for number in arguments:
                held.pop(f"e{number}", None)
        assert len(index) == len(held)
    assert_equals_brute_force(index, held, k, seed)


def test_thousands_of_edits_replaced_and_removed_search_like_brute_force(make_index: MakeIndex) -> None:
    index, held = make_index(), {}
    for round_ in range(12):
        batch = {
            f"e{(round_ * 700 + i) % 3_000}": unit_vectors(1 + i % 4, round_ * 1_000 + i)
            for i in range(1_000)
        }
        index.put(batch.items())
        held |= batch
        gone = [f"e{(round_ * 311 + i) % 3_000}" for i in range(200)]
        index.remove(gone)
        for edit_id in gone:
            held.pop(edit_id, None)
    assert len(index) == len(held)
    assert_equals_brute_force(index, held, 8, 99)


_GROW = """
import re
from pathlib import Path
import numpy as np
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex

def peak_bytes():  # ru_maxrss would begin with the test runner's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

index, rows = FaissFlatIndex(384), np.eye(3, 384, dtype=np.float32)
index.put([("first", rows)])
before = peak_bytes()
for start in range(0, 40_000, 1_000):
    index.put((f"e{start + i}", rows) for i in range(1_000))
print((peak_bytes() - before) / (40_001 * rows.nbytes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_index_that_grows_never_holds_everything_twice() -> None:
    grown = subprocess.run([sys.executable, "-c", _GROW], capture_output=True, text=True, check=True)
    assert 1.5 <= float(grown.stdout) < 3  # rows in full and in half; 4.0 when every merge was of everything


def test_searches_during_writes_see_whole_writes_only(make_index: MakeIndex) -> None:
    """Both edits of a put point the same way; a search must find neither or both of one generation."""
    index = make_index()
    query = unit_vectors(1, 11)
    stop = threading.Event()
    torn: list[object] = []

    def search() -> None:
        while not stop.is_set():
            candidates = index.search(query, 2)[0]
            if len(candidates) == 1 or (
                len(candidates) == 2 and abs(candidates[0].similarity - candidates[1].similarity) > 1e-6
            ):
                torn.append(candidates)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for generation in range(300):
        vectors = unit_vectors(1, 1_000 + generation)
        index.put([("left", vectors), ("right", vectors)])
        index.put((f"noise{generation}-{i}", -query) for i in range(20))
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []
