"""The recorder of canaries: what it keeps, what it must not, and a store that is lost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from typing_extensions import override

from serac_gateway.config.model import TrafficConfig
from serac_gateway.domain.queries import Query
from serac_gateway.domain.trials import Arm, Trial, TrialObservation
from serac_gateway.errors import StoreUnavailableError
from serac_gateway.observability import trials as recording
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.observability.trials import TrialRecorder
from serac_gateway.routing.router import Route
from serac_gateway.stores.memory.side_stores import InMemoryTrafficStore
from serac_gateway.stores.memory.trials import InMemoryTrialStore
from serac_gateway.stores.traffic_recorder import TrafficRecorder

TRIAL = Trial(edit_id="one", edit_version=1, arm=Arm.CONTROL, caller="abc")
REQUEST = FinishedRequest(
    request_id="req", method="POST", path="/chat/completions", key_id=None, namespace="default",
    route=Route.BASE, reason="not in the canary's share", decision=None,
    query=Query(text="Write to bo@example.org"), status=200, client_left=False, decide_s=None,
    overhead_s=None, upstream_s=None, first_byte_s=None, upstream_error=None, speculation=None, failure=None,
    key_store_failed=False, model=None, trial=TRIAL, answer="Call +49 30 1234567", answer_tokens=0,
    streamed=False, total_s=0.25, bytes_in=1, bytes_out=1,
)  # fmt: skip


class LostStore(InMemoryTrialStore):
    @override
    async def add(
        self,
        namespace: str,
        edit_id: str,
        version: int,
        observations: Sequence[TrialObservation],
        *,
        answers_ttl_s: int,
    ) -> None:
        raise StoreUnavailableError("lost")


def recorder(store: InMemoryTrialStore, *, recorded: bool = True, is_current: bool = True) -> TrialRecorder:
    traffic = TrafficRecorder(
        InMemoryTrafficStore(), TrafficConfig(namespaces=("default",) if recorded else ())
    )
    return TrialRecorder(store, traffic, is_current=lambda namespace, trial: is_current)


async def kept(trials: TrialRecorder, store: InMemoryTrialStore, *requests: FinishedRequest) -> object:
    for request in requests:
        trials.add(request)
    await trials.close()
    return (await store.read("default", "one", 1))[Arm.CONTROL]


async def test_texts_are_kept_redacted() -> None:
    store = InMemoryTrialStore()
    record = await kept(recorder(store), store, REQUEST)
    assert record.latencies_ms == (250.0,)  # type: ignore[attr-defined]
    (observation,) = record.answers  # type: ignore[attr-defined]
    assert (observation.query, observation.answer) == ("Write to [redacted]", "Call [redacted]")


async def test_no_text_without_recording_nor_of_an_edit_that_went_meanwhile() -> None:
    for settings in ({"recorded": False}, {"is_current": False}):
        store = InMemoryTrialStore()
        record = await kept(recorder(store, **settings), store, REQUEST)
        assert (record.requests, record.answers) == (1, ())  # type: ignore[attr-defined]


async def test_failures_and_clients_that_left_have_no_latency_and_others_are_no_trial() -> None:
    store = InMemoryTrialStore()
    failed = msgspec.structs.replace(REQUEST, status=502)
    left = msgspec.structs.replace(REQUEST, client_left=True)
    other = msgspec.structs.replace(REQUEST, trial=None)
    record = await kept(recorder(store), store, failed, left, other)
    assert (record.requests, record.failed, record.left) == (2, 1, 1)  # type: ignore[attr-defined]
    assert record.latencies_ms == ()  # type: ignore[attr-defined]


async def test_a_lost_store_and_a_full_queue_drop_and_count_and_fail_no_request() -> None:
    lost = recorder(LostStore())
    lost.add(REQUEST)
    await lost.close()
    assert lost.dropped == 1
    store = InMemoryTrialStore()
    full = recorder(store)
    record = await kept(full, store, *[REQUEST] * (recording.MAX_WAITING + 5))
    assert (full.dropped, record.requests) == (5, recording.MAX_WAITING)  # type: ignore[attr-defined]
