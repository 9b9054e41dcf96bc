"""Edits on trial (shadow, canary) and edits with a window: to whom they apply, and when."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from serac_gateway.control_plane.search import EditSearch
from serac_gateway.domain.audiences import UNKNOWN_CALLER, Caller
from serac_gateway.domain.edits import (
    DecidedState,
    Edit,
    EditDraft,
    EditPatch,
    EditState,
    first_version,
    patched,
)
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import InvalidRequestError
from serac_gateway.observability.counts import EditCount, RouteCounts
from serac_gateway.routing.router import EditRouter, Route, RouteDecision
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ThresholdClassifier, WordEncoder, stored_edit

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
QUESTION = "Who runs Acme?"
ENCODER = WordEncoder()


def edit(
    target: str, state: DecidedState = DecidedState.LIVE, *, age_s: float = 60, **fields: object
) -> Edit:
    draft = EditDraft(prompt=QUESTION, target_new=target, state=state, **fields)
    return first_version(draft, namespace="default", now=START - timedelta(seconds=age_s))


async def active_edits(*edits: Edit, clock: Callable[[], datetime] = lambda: START) -> ActiveEdits:
    live = ActiveEdits(
        store=InMemoryEditStore(),
        encoder=ENCODER,
        make_index=lambda: FaissFlatIndex(ENCODER.width),
        clock=clock,
    )
    await live.apply("default", [stored_edit(edit, ENCODER) for edit in edits])
    return live


async def decided(*edits: Edit, caller: Caller = UNKNOWN_CALLER) -> RouteDecision:
    router = EditRouter(
        encoder=ENCODER, active_edits=await active_edits(*edits), classifier=ThresholdClassifier(0.7)
    )
    (decision,) = router.decide("default", [Query(text=QUESTION)], caller=caller)
    return decision


async def test_a_shadow_goes_to_the_base_model_and_is_named() -> None:
    shadow = edit("Ada", DecidedState.SHADOW)
    decision = await decided(shadow)
    assert (decision.route, decision.reason, decision.edit) == (Route.BASE, "shadow edit", None)
    assert decision.withheld == shadow


async def test_a_newer_shadow_leaves_the_live_edit_in_its_place() -> None:
    live, shadow = edit("Ada"), edit("Bea", DecidedState.SHADOW, age_s=10)
    decision = await decided(live, shadow)
    assert (decision.route, decision.edit, decision.withheld) == (Route.COUNTERFACTUAL, live, shadow)


async def test_a_shadow_that_would_not_govern_is_not_named() -> None:
    live, shadow = edit("Ada", age_s=10), edit("Bea", DecidedState.SHADOW, age_s=60)
    assert (await decided(live, shadow)).withheld is None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
async def test_a_canary_is_applied_to_its_share_of_the_callers(share: float) -> None:
    canary = edit("Ada", DecidedState.CANARY, canary_share=share)
    applied = sum(canary.is_applied_to(Caller(name=f"user:{number}")) for number in range(2_000))
    assert applied == pytest.approx(2_000 * share, abs=80)


async def test_a_canary_answers_the_same_caller_the_same_way_and_others_differently() -> None:
    canary = edit("Ada", DecidedState.CANARY, canary_share=0.5)
    callers = [Caller(name=f"user:{n}") for n in range(100)]
    inside = next(caller for caller in callers if canary.is_applied_to(caller))
    outside = next(caller for caller in callers if not canary.is_applied_to(caller))
    for _ in range(3):
        assert (await decided(canary, caller=inside)).edit == canary
    refused = await decided(canary, caller=outside)
    assert (refused.route, refused.reason) == (Route.BASE, "not in the canary's share")
    assert refused.withheld == canary
    assert (await decided(canary)).edit is None


def test_whoever_is_in_a_canary_stays_in_when_its_share_grows_and_its_content_changes() -> None:
    small = edit("Ada", DecidedState.CANARY, canary_share=0.2)
    large = patched(small, EditPatch(canary_share=0.4, target_new="Bea"))
    callers = [f"user:{number}" for number in range(500)]
    inside = [
        {name for name in callers if canary.is_applied_to(Caller(name=name))} for canary in (small, large)
    ]
    assert inside[0] < inside[1]


def test_two_canaries_do_not_take_in_the_same_callers() -> None:
    first, other = (edit("Ada", DecidedState.CANARY, canary_share=0.5) for _ in range(2))
    callers = [Caller(name=f"u{n}") for n in range(1_000)]
    both = sum(first.is_applied_to(caller) and other.is_applied_to(caller) for caller in callers)
    assert 150 < both < 350


def test_a_canary_without_a_share_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidRequestError, match=r"needs canary_share.*such as 0\.1") as refused:
        edit("Ada", DecidedState.CANARY)
    assert refused.value.field == "canary_share"
    live = edit("Ada")
    with pytest.raises(InvalidRequestError, match="needs canary_share"):
        patched(live, EditPatch(state=DecidedState.CANARY))
    assert patched(live, EditPatch(state=DecidedState.SHADOW)).state is EditState.SHADOW


@pytest.mark.parametrize("state", [EditState.SHADOW, EditState.CANARY, "expired"])
async def test_edits_that_do_not_apply_take_no_place_from_the_one_that_does(state: str) -> None:
    if state == "expired":
        crowd = [edit(f"old {n}", valid_until=START - timedelta(days=n)) for n in range(40)]
    else:
        crowd = [edit(f"trial {n}", DecidedState(state), canary_share=0.0, age_s=9_000) for n in range(40)]
    # All lie equally near; ids settle it, and the live edit's comes last.
    live = edit("Ada", id="zz")
    decision = await decided(*crowd, live)
    assert decision.edit == live


async def test_a_window_opens_and_closes_by_the_clock_alone() -> None:
    now = [START - timedelta(seconds=1)]
    live = await active_edits(
        edit("Ada", valid_from=START, valid_until=START + timedelta(hours=1)), clock=lambda: now[0]
    )
    router = EditRouter(encoder=ENCODER, active_edits=live, classifier=ThresholdClassifier(0.7))
    in_scope = []
    for moment in (now[0], START, START + timedelta(minutes=59), START + timedelta(hours=1)):
        now[0] = moment
        (decision,) = router.decide("default", [Query(text=QUESTION)])
        in_scope.append(decision.in_scope)
    assert in_scope == [False, True, True, False]


async def test_a_price_for_every_month_is_answered_with_this_month_s() -> None:
    months = [
        edit(
            f"{number} euros",
            valid_from=START + timedelta(days=30 * (number - 30)),
            valid_until=START + timedelta(days=30 * (number - 29)),
        )
        for number in range(60)
    ]
    decision = await decided(*months)
    assert decision.edit is not None
    assert decision.edit.target_new == "30 euros"


def test_edits_are_counted_by_what_became_of_them() -> None:
    counts = RouteCounts()
    for applied in (True, False, False):
        counts.add_edit("default", "one", applied=applied)
    counts.add_edit("other", "two", applied=True)
    assert counts.edits() == [
        EditCount(namespace="default", edit_id="one", applied=1, withheld=2),
        EditCount(namespace="other", edit_id="two", applied=1, withheld=0),
    ]
    assert [edit.edit_id for edit in counts.edits(["other"])] == ["two"]


async def test_a_search_by_meaning_gives_no_more_than_asked_for_whatever_their_states() -> None:
    edits = [edit(f"answer {n}", state, canary_share=0.5) for n in range(4) for state in DecidedState]
    with ThreadPoolExecutor(1) as pool:
        search = EditSearch(
            store=InMemoryEditStore(), active_edits=await active_edits(*edits), encoder=ENCODER, pool=pool
        )
        matches = await search.by_meaning("default", QUESTION, limit=3)
    assert len(matches) == 3
