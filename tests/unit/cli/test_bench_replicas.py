"""The measure of replicas: real followers in processes of their own, and how lags are counted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from serac_gateway.cli.bench.follower_process import RandomEncoder, digest
from serac_gateway.cli.bench.replicas import lags, replicated
from serac_gateway.domain.edits import EditDraft, first_version, forms
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Change, Commit, FormVectors

NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("per_commit", [1, 5])
async def test_replicas_end_equal_to_the_store_and_every_write_is_counted(
    per_commit: int, tmp_path: Path
) -> None:
    result = await replicated(
        tmp_path / "valkey", replicas=2, per_second=100, per_commit=per_commit, seconds=2.0, quiet_s=0.5
    )
    assert result.all_equal
    assert result.writes == result.commit.count
    assert 50 <= result.writes <= 200
    assert result.lag.count == 2 * result.writes
    assert 0 <= result.lag.median_ms <= result.longest_lag_ms < 60_000
    assert 0 < result.edits < result.writes + per_commit + 1
    assert min(result.quiet_search.count, result.busy_search.count) >= 2
    assert result.replica_cpu_ms > 0


def test_a_lag_is_the_time_until_the_entry_or_a_later_one_was_in_force() -> None:
    applied = [("5-0", 1.0), ("9-3", 2.0)]
    acknowledged = [("4-0", 0.5), ("5-0", 1.5), ("9-2", 1.25), ("10-0", 1.0)]
    assert lags(acknowledged, applied) == [500.0, 0.0, 750.0, float("inf")]


async def test_the_digest_differs_where_a_vector_or_an_edit_does() -> None:
    encoder = RandomEncoder(16)

    async def of(target: str, scale: float) -> str:
        store = InMemoryEditStore()
        for number in range(20):
            draft = EditDraft(id=f"edit-{number}", prompt=f"Question {number}?", target_new=target)
            edit = first_version(draft, namespace="n", now=NOW)
            vectors_FD = encoder.encode(forms(edit)) * (scale if number % 2 else 1.0)
            vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=vectors_FD)
            change = Change(action=Action.ADD, edit=edit, vectors=vectors)
            await store.commit("n", Commit(changes=(change,)))
        edits = ActiveEdits(store=store, encoder=encoder, make_index=index_maker(16))
        await edits.load()
        assert edits.count("n") == 20
        return digest(edits, encoder, "n")

    first, other_vectors, other_edits = await of("a", 1.0), await of("a", -1.0), await of("b", 1.0)
    assert len({first, other_vectors, other_edits}) == 3
    assert await of("a", 1.0) == first
