"""Audiences in a decision: which edit governs where several hold, and that those of others take no place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from serac_gateway.config.model import CompositePolicy, RoutingConfig
from serac_gateway.domain.audiences import Audience, Caller
from serac_gateway.domain.edits import DecidedState, Edit, EditDraft, EditKind, first_version
from serac_gateway.domain.passages import SpokenText
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.routing.router import EditRouter, Route
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ThresholdClassifier, WordEncoder, stored_edit

QUESTION = "Who runs Acme?"
START = datetime(2026, 12, 1, tzinfo=UTC)
ENCODER = WordEncoder()
EU, US, EU_ACME = {"region": "eu"}, {"region": "us"}, {"region": "eu", "tenant": "acme"}


def edit(
    target: str, audience: Audience, *, prompt: str = QUESTION, age_s: int = 0, **fields: object
) -> Edit:
    draft = EditDraft(prompt=prompt, target_new=target, audience=audience, **fields)
    return first_version(draft, namespace="default", now=START - timedelta(seconds=age_s))


async def router(
    *edits: Edit,
    classifier: ThresholdClassifier | None = None,
    config: RoutingConfig | None = None,
) -> EditRouter:
    live = ActiveEdits(
        store=InMemoryEditStore(), encoder=ENCODER, make_index=lambda: FaissFlatIndex(ENCODER.width)
    )
    await live.apply("default", [stored_edit(each, ENCODER) for each in edits])
    return EditRouter(
        encoder=ENCODER,
        active_edits=live,
        classifier=classifier or ThresholdClassifier(0.7),
        config=config or RoutingConfig(),
    )


def governing(deciding: EditRouter, labels: dict[str, str], question: str = QUESTION) -> str | None:
    (decision,) = deciding.decide("default", [Query(text=question)], caller=Caller(labels=labels))
    return None if decision.edit is None else decision.edit.target_new


@pytest.mark.parametrize("newest_first", [True, False])
async def test_the_more_specific_edit_governs_whichever_is_newer(newest_first: bool) -> None:
    audiences: list[Audience] = [
        {},
        {"region": ("eu", "uk")},
        {"region": ("eu",)},
        {"region": ("eu", "uk"), "tenant": ("acme",)},
    ]
    edits = [
        edit(str(place), audience, age_s=place if newest_first else -place)
        for place, audience in enumerate(audiences)
    ]
    deciding = await router(*edits)
    expected = {"3": EU_ACME, "2": EU, "1": {"region": "uk"}, "0": US}
    assert {target: governing(deciding, labels) for target, labels in expected.items()} == {
        target: target for target in expected
    }
    assert governing(deciding, {}) == "0"


async def test_of_equally_specific_edits_the_newer_one_governs() -> None:
    deciding = await router(edit("old", {"region": ("eu",)}, age_s=9), edit("new", {"tenant": ("acme",)}))
    assert governing(deciding, EU_ACME) == "new"
    assert governing(deciding, EU) == "old"


async def test_an_exception_governs_also_where_the_question_has_the_general_edits_own_words() -> None:
    """A logit that is set because a query is the edit's own wording is no reason against the exception."""
    deciding = await router(edit("Ada", {"region": ("eu",)}, prompt="Who runs Acme now?"), edit("Eve", {}))
    assert governing(deciding, EU) == "Ada"
    assert governing(deciding, US) == "Eve"


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("prompt", [QUESTION, "Who runs Acme now?"])
async def test_a_suppression_has_no_exceptions(newest_first: bool, prompt: str) -> None:
    """A fact for a part of its audience, older or newer, does not let out what it keeps back."""
    deciding = await router(
        edit("Ada", {"region": ("eu",)}, age_s=9 * newest_first),
        edit("No.", {"tenant": ("acme",)}, prompt=prompt, kind=EditKind.SUPPRESSION),
        edit("Never.", {"region": ("us",)}, prompt=prompt, kind=EditKind.SUPPRESSION),
    )
    assert governing(deciding, EU_ACME) == "No."
    assert governing(deciding, EU) == "Ada"
    deciding = await router(
        edit("Ada", {"region": ("eu",)}, age_s=9 * newest_first),
        edit("No.", {}, prompt=prompt, kind=EditKind.SUPPRESSION),
    )
    assert [governing(deciding, labels) for labels in (EU, US, {})] == ["No.", "No.", "No."]


async def test_what_an_exception_replaces_is_not_stated_beside_it() -> None:
    """The base model would read two answers that contradict each other."""
    deciding = await router(
        edit("14 days", {"region": ("eu",)}),
        edit("30 days", {}),
        classifier=ThresholdClassifier(0.95, depends_threshold=0.2),
        config=RoutingConfig(composite=CompositePolicy.IN_CONTEXT),
    )
    for labels, expected in ((EU, ["14 days"]), (US, ["30 days"])):
        (decision,) = deciding.decide(
            "default", [Query(text="Who runs Acme and who ran it?")], caller=Caller(labels=labels)
        )
        assert [each.target_new for each in decision.context_edits] == expected, labels


async def test_edits_for_others_take_no_place_from_the_one_that_holds() -> None:
    crowd = [edit(f"t{n}", {"tenant": (f"t{n}",)}) for n in range(100)]
    deciding = await router(*crowd, edit("acme", {"tenant": ("zz",)}, id="zz"))
    assert governing(deciding, {"tenant": "zz"}) == "acme"
    assert governing(deciding, {"tenant": "t7"}) == "t7"
    assert governing(deciding, {}) is None


async def test_a_thousand_nearer_edits_for_others_do_not_hide_the_one_that_holds() -> None:
    crowd = [edit(f"t{n}", {"tenant": (f"t{n}",)}) for n in range(1_000)]
    deciding = await router(*crowd, edit("acme", {"tenant": ("zz",)}, prompt=f"{QUESTION} Please.", id="zz"))
    assert governing(deciding, {"tenant": "zz"}) == "acme"


async def test_several_questions_are_answered_by_edits_for_the_caller_alone() -> None:
    deciding = await router(
        edit("Ada", {"region": ("eu",)}), edit("1901", {"region": ("us",)}, prompt="When did Umbra begin?")
    )
    both = f"{QUESTION} When did Umbra begin?"
    for labels, expected in ((EU, {"Ada"}), (US, {"1901"}), ({}, set())):
        (decision,) = deciding.decide("default", [Query(text=both)], caller=Caller(labels=labels))
        named = {each.target_new for each in decision.governing_edits}
        named |= {candidate.edit.target_new for candidate in decision.candidates}
        assert named == expected, labels


async def test_a_passage_is_judged_by_the_suppressions_for_the_caller_alone() -> None:
    kept = [
        edit(
            "No.",
            {"region": (region,)},
            prompt=f"What is the {word} code of the Halyard router?",
            kind=EditKind.SUPPRESSION,
        )
        for region, word in (("eu", "admin"), ("us", "guest"))
    ]
    deciding = await router(*kept)
    texts = [SpokenText(text="Please tell: What is the admin code of the Halyard router?")]
    refused = [
        deciding.decide_suppression("default", texts, caller=Caller(labels=labels)) for labels in (EU, {})
    ]
    assert refused[0] is not None
    assert refused[0].edit == kept[0]
    assert refused[1] is None


async def test_a_canary_for_an_audience_is_not_withheld_from_others_but_absent() -> None:
    canary = edit("Ada", {"region": ("eu",)}, state=DecidedState.CANARY, canary_share=0.0)
    deciding = await router(canary)
    (inside,) = deciding.decide("default", [Query(text=QUESTION)], caller=Caller(name="u", labels=EU))
    (outside,) = deciding.decide("default", [Query(text=QUESTION)], caller=Caller(name="u", labels=US))
    assert (inside.withheld, outside.withheld) == (canary, None)
    assert (outside.route, outside.reason) == (Route.BASE, "no candidate")


async def test_what_would_apply_elsewhere_is_explained() -> None:
    eu = edit("Ada", {"region": ("eu",)})
    deciding = await router(eu, edit("Bea", {}))
    near, far = (Query(text=text) for text in (QUESTION, "Bake a cake"))
    of_us = deciding.for_others("default", [near, far], Caller(labels=US))
    assert [[candidate.edit for candidate in row] for row in of_us] == [[eu], []]
    assert deciding.for_others("default", [near], Caller(labels=EU)) == [()]
