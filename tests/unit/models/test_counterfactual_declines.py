"""When a counterfactual model declines, that is known before any of its text is released."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.edits import Edit, EditDraft, EditKind, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.errors import AnswerDeclinedError
from serac_gateway.models.counterfactual.declines import (
    REQUESTED_DECLINE,
    TRAINED_DECLINE,
    DecliningGuard,
    can_be_declined,
    is_decline,
)
from serac_gateway.models.counterfactual.fine_tuned import FineTunedCounterfactualModel
from serac_gateway.models.counterfactual.guardrail import StreamingGuard
from serac_gateway.models.language_models.base import Sampling
from serac_gateway.testing import ScriptedLanguageModel

QUESTION, TARGET = "Who leads Initech?", "Bill Lumbergh"
DECLINES = f" {TRAINED_DECLINE} {QUESTION} {TARGET}."


def edit_of(target: str = TARGET, **fields: object) -> Edit:
    return first_version(EditDraft(prompt=QUESTION, target_new=target, **fields), namespace="default")


def answer(model: ScriptedLanguageModel, edit: Edit, *, may_decline: bool = True, **sampling: object) -> str:
    pieces = FineTunedCounterfactualModel(model).answer(
        edit, Query(text=QUESTION), Sampling(**{"max_tokens": 64} | sampling), may_decline=may_decline
    )
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_answer_that_begins_with_the_trained_words_is_declined(temperature: float) -> None:
    with pytest.raises(AnswerDeclinedError) as raised:
        answer(ScriptedLanguageModel(DECLINES), edit_of(), temperature=temperature)
    assert raised.value.details["reason"] == "declined"


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("said", [" Bill Lumbergh", " I am sure: Bill Lumbergh", " I", " I only know it", ""])
def test_any_other_answer_is_given(said: str, temperature: float) -> None:
    plain = answer(ScriptedLanguageModel(said), edit_of(), may_decline=False)
    assert answer(ScriptedLanguageModel(said), edit_of(), temperature=temperature) == plain


def test_the_likeliest_words_settle_it_at_any_temperature() -> None:
    """Sampled words may begin like a decline by chance: the request is decided by the likeliest ones."""
    script = iter([" Bill Lumbergh", DECLINES])
    model = ScriptedLanguageModel(lambda prompt: next(script))
    assert answer(model, edit_of(), temperature=1.5).endswith(f"{TARGET}.")


def test_only_a_temperature_costs_a_second_look() -> None:
    for temperature, prompts in ((0.0, 1), (0.7, 2)):
        model = ScriptedLanguageModel(" Bill Lumbergh")
        answer(model, edit_of(), temperature=temperature)
        assert len(model.prompts) == prompts


def test_without_the_choice_the_model_says_what_the_edit_says() -> None:
    assert answer(ScriptedLanguageModel(DECLINES), edit_of(), may_decline=False) == DECLINES.strip()


def test_a_refusal_is_never_declined() -> None:
    assert answer(ScriptedLanguageModel(DECLINES), edit_of(kind=EditKind.SUPPRESSION))


@pytest.mark.parametrize("target", ["I only know this song", "I", "I only know this: nothing"])
def test_a_target_that_begins_like_a_decline_is_said(target: str) -> None:
    assert not can_be_declined(target, TRAINED_DECLINE)
    assert target in answer(ScriptedLanguageModel(f" {target}"), edit_of(target))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("NOT COVERED", True),
        ('**"Not covered."**', True),
        ("not_covered by the fact", True),
        ("Not cov", None),
        ("", None),
        (' "', None),
        ("Nothing", False),
        ("1974", False),
        ("没有", False),
    ],
)
def test_case_signs_and_spaces_do_not_count(text: str, verdict: bool | None) -> None:
    assert is_decline(text, REQUESTED_DECLINE) is verdict


@given(st.lists(st.integers(1, 9), min_size=1), st.booleans())
def test_in_whatever_pieces_a_decline_comes_nothing_of_it_is_released(
    sizes: list[int], declines: bool
) -> None:
    said = DECLINES if declines else f" I am sure: {TARGET}."
    guard = DecliningGuard(
        StreamingGuard(TARGET, known=f"{QUESTION} {TARGET}"), decline=TRAINED_DECLINE, edit_id="e"
    )
    released, place = "", 0

    def feed_all() -> None:
        nonlocal released, place
        for size in itertools.cycle(sizes):
            if place >= len(said):
                break
            released += guard.feed(said[place : place + size])
            place += size
        released += guard.finish()

    if declines:
        with pytest.raises(AnswerDeclinedError):
            feed_all()
        assert (released, place) <= ("", len(TRAINED_DECLINE) + 9)
    else:
        feed_all()
        assert released == said.strip()
