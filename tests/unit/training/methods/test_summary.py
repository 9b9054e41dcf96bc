"""The numbers of a run, by hand."""

from __future__ import annotations

import math

import pytest

from training.evaluation.answers.methods.outcomes import CaseOutcome, Group, ProbeOutcome, RoundOutcome
from training.evaluation.answers.methods.summary import (
    is_exact,
    is_likelier,
    is_right,
    measured,
    stays_right,
    summarise,
)
from training.evaluation.answers.metrics import first_sentence, repetition


def probe(group: Group, reply: str, **fields: object) -> ProbeOutcome:
    made: dict[str, object] = {
        "kind": "k",
        "text": "t",
        "answers": ("Ann Lee",),
        "base_reply": "Bob",
        **fields,
    }
    return ProbeOutcome(group=group, reply=reply, **made)  # type: ignore[arg-type]


def case(*probes: ProbeOutcome, name: str = "a", **fields: object) -> CaseOutcome:
    return CaseOutcome(
        case=name, round=0, prompt="p", target_new="Ann Lee", age=0, probes=probes, **fields  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "right", "exact"),
    [
        ("Ann Lee", 1.0, 1.0),
        ("ann lee. She was born", 1.0, 1.0),
        ("Ann Lee, who was born", 1.0, 0.0),
        ("the mayor is Ann Lee", 1.0, 0.0),
        ("Ann", 0.0, 0.0),
        ("Annlee", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_exact_is_nothing_else_and_right_is_contained(reply: str, right: float, exact: float) -> None:
    """A base model goes on after its answer: that is right and not exact, but for a new sentence."""
    outcome = probe(Group.RELIABILITY, reply)
    assert (is_right(outcome), is_exact(outcome)) == (right, exact)


def test_a_rivals_answer_is_right_and_a_verdict_is_judged_as_such() -> None:
    """Of two edits that ask the same either may answer."""
    assert is_right(probe(Group.RELIABILITY, "Cy", rival_answers=("Cy",))) == 1.0
    assert is_right(probe(Group.RELIABILITY, "No, it is Ann Lee", verdict=True)) == 0.0
    assert is_exact(probe(Group.RELIABILITY, "Yes", verdict=True)) is None


def test_the_new_answer_is_likelier_by_its_mean_log_probability() -> None:
    """Without a former answer nothing is said."""
    assert is_likelier(probe(Group.RELIABILITY, "", mean_log_prob=-1.0, true_mean_log_prob=-2.0)) == 1.0
    assert is_likelier(probe(Group.RELIABILITY, "", mean_log_prob=-3.0, true_mean_log_prob=-2.0)) == 0.0
    assert is_likelier(probe(Group.RELIABILITY, "", mean_log_prob=-3.0)) is None


def test_only_what_the_unedited_model_knew_can_be_kept_right() -> None:
    """Where it was wrong a change loses nothing."""
    assert stays_right(probe(Group.LOCALITY, "Cy", base_reply="Ann Lee")) == 0.0
    assert stays_right(probe(Group.LOCALITY, "It is Ann Lee", base_reply="Ann Lee")) == 1.0
    assert stays_right(probe(Group.LOCALITY, "Cy", base_reply="Bob")) is None


def test_the_product_is_of_the_three_means_and_ambiguous_probes_count_nowhere() -> None:
    """One of two reliable, all paraphrases right, two of four texts unchanged."""
    cases = [
        case(
            probe(Group.RELIABILITY, reply),
            probe(Group.GENERALIZATION, "Ann Lee"),
            probe(Group.LOCALITY, "Bob"),
            probe(Group.LOCALITY, "Ann Lee"),
            probe(Group.LOCALITY, "Ann Lee", is_ambiguous=True),
            name=reply,
        )
        for reply in ("Ann Lee", "nobody")
    ]
    summary = summarise(cases, [])
    assert summary.reliability.contained.value == 0.5
    assert summary.generalization.contained.value == 1.0
    assert (summary.locality.value, summary.locality.probes) == (0.5, 4)
    assert summary.product.value == 0.25
    assert summary.product.low <= 0.25 <= summary.product.high
    assert summary.consistency.value == 0.5
    assert math.isnan(summary.portability.contained.value)


def test_a_mean_is_over_probes_and_its_interval_over_edits() -> None:
    """A case with many probes weighs as much as it has; one case alone has no spread."""
    value = measured([[1.0, 1.0, 1.0], [0.0]], seed=0)
    assert (value.value, value.probes, value.cases) == (0.75, 4, 2)
    assert (value.low, value.high) == (0.0, 1.0)
    alone = measured([[1.0, 0.0]], seed=0)
    assert (alone.low, alone.high) == (0.5, 0.5)


def test_what_an_edit_forgets_is_seen_between_just_after_and_the_end() -> None:
    """Only edits that others follow count in either."""
    cases = [
        case(probe(Group.RELIABILITY, "nobody"), just_after="Ann Lee", name="early"),
        case(probe(Group.RELIABILITY, "Ann Lee"), name="last"),
    ]
    summary = summarise(cases, [])
    assert (summary.just_after.value, summary.at_the_end.value, summary.at_the_end.cases) == (1.0, 0.0, 1)


def test_costs_are_of_all_rounds_together() -> None:
    """Seconds and bytes are shared among the edits; times are compared query by query."""
    rounds = [
        RoundOutcome(
            round=number, weights="w", edits=2, refused=("no",) * number, prepare_s=3.0, edit_s=1.0,
            peak_bytes=5_000_000, held_bytes=10, base_query_ms=times, query_ms=tuple(t + 4 for t in times),
        )
        for number, times in enumerate([(10.0, 30.0), ()])
    ]  # fmt: skip
    costs = summarise([], rounds).costs
    assert (costs.prepare_s, costs.seconds_an_edit, costs.bytes_an_edit) == (3.0, 0.5, 5.0)
    assert (costs.edits, costs.refused, costs.peak_mb, costs.added_ms_a_query) == (4, 1, 5.0, 4.0)


def test_the_first_sentence_ends_at_a_mark_or_a_line() -> None:
    """Not at a decimal point, and at full stops of other scripts."""
    assert first_sentence("Ann Lee. She") == "Ann Lee"
    assert first_sentence("3.5 km\nmore") == "3.5 km"
    assert first_sentence("巴黎。他") == "巴黎"


def test_repetition_counts_trigrams_seen_before() -> None:
    """0 for a text without any, near 1 for a loop."""
    assert repetition("one two three four five") == 0.0
    assert repetition("a b c " * 20) > 0.9
    assert repetition("") == 0.0
