"""An edit is absorbed only by what was never trained on."""

from __future__ import annotations

import pytest

from serac_gateway.domain.consolidation import Absorption
from tests.unit.training.consolidation.test_live_edits import edit
from training.consolidation.judging import gives, judged
from training.consolidation.probes import EditProbes
from training.consolidation.replies import Replies

TEXTS = ("Who runs a?", "trained", "held back", "neighbour")


def replies(*said: str) -> Replies:
    return Replies(by_text=dict(zip(TEXTS, said, strict=True)), perplexity=1.0)


def state(
    said: tuple[str, ...],
    *,
    before: tuple[str, ...] = ("", "", "", "Jo"),
    held_back: tuple[str, ...] = ("held back",),
    conflict: str | None = None,
    refusal: str | None = None,
) -> tuple[Absorption, str]:
    probes = EditProbes(edit=edit("a"), trained=("trained",), held_back=held_back, neighbours=("neighbour",))
    done = judged(probes, replies(*before), replies(*said), conflict=conflict, refusal=refusal)
    return done.state, done.why


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("Ann", "Ann.", "it is Ann", "Jo"), Absorption.ABSORBED),
        (("Ann", "Ann", "Ann", "Jim"), Absorption.ABSORBED),
        (("Ann", "Ann", "Bea", "Jo"), Absorption.PARTIAL),
        (("Ann", "Bea", "Ann", "Jo"), Absorption.PARTIAL),
        (("Bea", "Ann", "Ann", "Jo"), Absorption.PARTIAL),
        (("Ann", "Ann", "Ann", "Ann"), Absorption.PARTIAL),
        (("Bea", "Bea", "Bea", "Jo"), Absorption.NEEDS_GATEWAY),
    ],
)
def test_every_wording_gets_the_answer_and_no_neighbour_does(
    said: tuple[str, ...], expected: Absorption
) -> None:
    assert state(said)[0] is expected


def test_a_neighbour_that_had_the_answer_before_takes_nothing_away() -> None:
    assert state(("Ann",) * 4, before=("", "", "", "Ann"))[0] is Absorption.ABSORBED


def test_with_nothing_held_back_nothing_is_absorbed() -> None:
    absorption, why = state(("Ann", "Ann", "", "Jo"), held_back=())
    assert (absorption, "give it paraphrases" in why) == (Absorption.PARTIAL, True)


def test_what_was_not_trained_is_never_absorbed_even_if_it_is_answered() -> None:
    all_right = ("Ann", "Ann", "Ann", "Jo")
    assert state(all_right, conflict="b") == (
        Absorption.CONFLICTING,
        "b answers it differently; it was not trained",
    )
    assert state(all_right, refusal="no subject")[0] is Absorption.NEEDS_GATEWAY


@pytest.mark.parametrize(
    ("reply", "is_given"),
    [
        ("St. Gallen", True), ("st. gallen, since 1803", True), ("It is St. Gallen", False), ("", False),
        ("Bern. St. Gallen", False), ("St. Gallenberg", False),
    ],
)  # fmt: skip
def test_an_answer_stands_at_the_beginning_or_in_the_first_sentence(reply: str, is_given: bool) -> None:
    assert gives(reply, "St. Gallen") is is_given
