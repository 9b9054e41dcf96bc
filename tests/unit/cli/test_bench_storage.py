"""The measures of importing, starting and writing: that they store what they say, and time the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from serac_gateway.cli.bench import workload as material
from serac_gateway.cli.bench.processes import GatewayProcess, Watched, running_mock
from serac_gateway.cli.bench.storage import imported, written
from serac_gateway.cli.bench.wire import BenchError
from serac_gateway.domain.vectors import Vectors
from serac_gateway.stores.open import open_store
from serac_gateway.testing import WordEncoder


async def test_writes_are_timed_in_a_store_that_holds_edits_already(tmp_path: Path) -> None:
    timings = await written(tmp_path, WordEncoder(), 30, writes=5)
    assert (timings.edits, timings.beyond_encoding.count, timings.encoding.count) == (30, 5, 5)
    assert timings.beyond_encoding.median_ms > 0.1  # fsync always
    store = await open_store(None, tmp_path)
    try:
        assert len((await store.page("bench", limit=100)).edits) == 35
    finally:
        await store.close()


async def test_an_edit_without_effect_ends_the_measuring(tmp_path: Path) -> None:
    class Deaf(WordEncoder):
        """Never the same twice."""

        def encode(self, texts: Sequence[str]) -> Vectors:
            self.texts_encoded += 1
            return WordEncoder(self.width).encode([f"{self.texts_encoded} unlike"] * len(texts))

    with pytest.raises(BenchError, match="was added, but is not in the index"):
        await written(tmp_path, Deaf(), 30, writes=20)


def test_an_import_is_timed_in_turns_with_the_encoder() -> None:
    encoder, stored = WordEncoder(), []
    with running_mock() as mock:
        gateway = GatewayProcess(url="http://gateway.test", watched=mock.watched)
        timings = imported(
            gateway, encoder, 200, threads=2, store_edits=lambda url, namespace, edits: stored.extend(edits)
        )
        with pytest.raises(BenchError, match="there is no process"):
            Watched(4_194_304)
    assert stored == material.edits(200)
    assert encoder.texts_encoded == 2 * 10 * 2  # a tenth of every turn; prompt and statement
    assert timings.share_of_encoder == pytest.approx(
        timings.edits_per_second / timings.encoder_edits_per_second
    )
    assert timings.peak_resident_mib >= timings.resident_before_mib > 10
