"""The comparison of a canary's arms beside the requests of others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from serac_gateway.control_plane import comparison
from serac_gateway.domain.edits import DecidedState, EditDraft, first_version
from serac_gateway.domain.intervals import Interval, median
from serac_gateway.domain.trials import Arm, Outcome, TrialObservation
from serac_gateway.stores.memory.store import InMemoryEditStore


async def test_the_intervals_are_computed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling 1,000 latencies 2,000 times would keep all other requests waiting."""
    threads: set[threading.Thread] = set()

    def noted(values: Sequence[float]) -> Interval | None:
        threads.add(threading.current_thread())
        return median(values)

    monkeypatch.setattr(comparison, "median", noted)
    draft = EditDraft(prompt="Who?", target_new="Ada", id="one", state=DecidedState.CANARY, canary_share=0.5)
    edit = first_version(draft, namespace="default")
    store = InMemoryEditStore()
    observations = [
        TrialObservation(
            arm=arm, caller=str(number), outcome=Outcome.ANSWERED, total_ms=number, at=datetime.now(UTC)
        )
        for arm in Arm
        for number in range(1, 31)
    ]
    await store.trials().add("default", "one", 1, observations, answers_ttl_s=60)
    compared = await comparison.compare(store, "default", edit, is_current=True)
    assert compared.treatment.median_ms is not None
    assert compared.treatment.median_ms.estimate == 15.5
    assert threads
    assert threading.current_thread() not in threads
