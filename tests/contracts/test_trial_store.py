"""Every store's record of canaries: counts by version and arm, bounded, and texts that can be deleted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from serac_gateway.domain.trials import Arm, Outcome, TrialObservation
from serac_gateway.errors import InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.trials import MAX_ANSWERS, MAX_LATENCIES, ArmRecord
from tests.contracts.served_stores import ServedStore


def observed(
    number: int = 0, arm: Arm = Arm.TREATMENT, outcome: Outcome = Outcome.ANSWERED, answer: str | None = None
) -> TrialObservation:
    return TrialObservation(
        arm=arm,
        caller=f"user{number % 3}",
        outcome=outcome,
        total_ms=float(number),
        at=datetime(2026, 12, 1, tzinfo=UTC),
        query=None if answer is None else "Wer?",
        answer=answer,
    )


async def test_requests_are_counted_by_version_and_arm(edit_store: EditStore) -> None:
    trials = edit_store.trials()
    first = [observed(number) for number in range(4)]
    failures = [
        observed(outcome=Outcome.FAILED, arm=Arm.CONTROL),
        observed(outcome=Outcome.LEFT, arm=Arm.CONTROL),
    ]
    await trials.add("default", "one", 2, first, answers_ttl_s=60)
    await trials.add("default", "one", 2, [*failures, observed(9)], answers_ttl_s=60)
    read = await trials.read("default", "one", 2)
    treatment, control = read[Arm.TREATMENT], read[Arm.CONTROL]
    assert (treatment.requests, treatment.failed, treatment.left, treatment.callers) == (5, 0, 0, 3)
    assert sorted(treatment.latencies_ms) == [0.0, 1.0, 2.0, 3.0, 9.0]
    assert (control.requests, control.failed, control.left, control.callers) == (2, 1, 1, 1)
    assert control.latencies_ms == ()
    for other in (("default", "one", 3), ("default", "two", 2), ("legal", "one", 2)):
        assert set((await trials.read(*other)).values()) == {ArmRecord()}
    assert await edit_store.namespaces() == []


async def test_latencies_and_answers_are_bounded_and_newest_first(edit_store: EditStore) -> None:
    trials = edit_store.trials()
    many = [observed(number, answer=f"Zoë {number}") for number in range(MAX_LATENCIES + 10)]
    for start in range(0, len(many), 200):
        await trials.add("default", "one", 1, many[start : start + 200], answers_ttl_s=60)
    record = (await trials.read("default", "one", 1))[Arm.TREATMENT]
    assert record.requests == len(many)
    assert sorted(record.latencies_ms) == [float(number) for number in range(10, len(many))]
    assert list(record.answers) == many[: -MAX_ANSWERS - 1 : -1]


async def test_texts_end_with_their_time_and_with_a_purge_and_counts_stay(edit_store: EditStore) -> None:
    trials = edit_store.trials()
    await trials.add("default", "one", 1, [observed(answer="a")], answers_ttl_s=60)
    await trials.add("default", "two", 1, [observed(answer="b")], answers_ttl_s=1)
    assert [answer.answer for answer in (await trials.read("default", "one", 1))[Arm.TREATMENT].answers] == [
        "a"
    ]
    assert (await trials.read("default", "one", 2))[Arm.TREATMENT].answers == ()
    await trials.forget_answers("default", "one")
    await trials.forget_answers("default", "none")
    await asyncio.sleep(1.1)
    for edit_id in ("one", "two"):
        record = (await trials.read("default", edit_id, 1))[Arm.TREATMENT]
        assert (record.requests, record.answers) == (1, ())


async def test_a_later_text_keeps_no_earlier_one_beyond_its_time(edit_store: EditStore) -> None:
    trials = edit_store.trials()
    await trials.add("default", "one", 1, [observed(answer="old")], answers_ttl_s=1)
    await trials.add("default", "one", 1, [observed(answer="new")], answers_ttl_s=60)
    await asyncio.sleep(1.1)
    read = await trials.read("default", "one", 1)
    assert [answer.answer for answer in read[Arm.TREATMENT].answers] == ["new"]
    await trials.add("default", "one", 1, [observed(answer="newest")], answers_ttl_s=60)
    read = await trials.read("default", "one", 1)
    assert [answer.answer for answer in read[Arm.TREATMENT].answers] == ["newest", "new"]


async def test_names_that_break_the_rules_reach_no_key(edit_store: EditStore) -> None:
    for namespace, edit_id in (("../x", "one"), ("default", "a:b")):
        with pytest.raises(InvalidRequestError):
            await edit_store.trials().add(namespace, edit_id, 1, [observed()], answers_ttl_s=60)
        with pytest.raises(InvalidRequestError):
            await edit_store.trials().read(namespace, edit_id, 1)


async def test_a_lost_server_is_an_error_of_the_store(served: ServedStore) -> None:
    served.kill()
    with pytest.raises(StoreUnavailableError):
        await served.store.trials().add("default", "one", 1, [observed()], answers_ttl_s=60)
