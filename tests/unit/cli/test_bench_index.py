"""The measure of the index by itself: that it compares with an exact search, and writes while it searches."""

from __future__ import annotations

import pytest
import typer

from serac_gateway.cli.bench.edit_index import SampleVectors, measured
from serac_gateway.cli.bench.storage_commands import _edit_count
from serac_gateway.config.model import IndexConfig
from serac_gateway.testing import WordEncoder

SETTINGS = IndexConfig(exact_vectors=3_000, delta_vectors=300, read_vectors=1_000, precision="fp32")


def test_an_exact_index_finds_all_and_lists_find_most() -> None:
    sample, steps = SampleVectors(WordEncoder()), list[str]()
    exact, approximate = measured([500, 2_000], SETTINGS, sample, steps.append, seconds=1.0)
    assert (exact.vectors, approximate.vectors) == (1_500, 6_000)
    assert (exact.recall.stored, exact.recall.neighbours) == (1.0, 1.0)
    assert 0.5 < approximate.recall.stored <= 1.0
    for size in (exact, approximate):
        assert size.quiet.count > 10
        assert size.writes_per_second > 10
        assert size.write.median_ms > 0
    assert any("comparing" in step for step in steps)


@pytest.mark.parametrize(("text", "count"), [("1k", 1_000), (" 250", 250), ("3M", 3_000_000)])
def test_sizes_are_numbers_with_a_unit(text: str, count: int) -> None:
    assert _edit_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "0", "1.5M", "-1k", "many"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 1000, 1k or 1M"):
        _edit_count(text)
