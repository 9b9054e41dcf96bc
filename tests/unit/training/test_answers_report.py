"""From replies to numbers and pages."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from serac_gateway.domain.edits import EditKind
from training.evaluation.answers.outcomes import AnswerFolder, CaseAnswers, ProbeAnswer
from training.evaluation.answers.report import answer_rows, write_answer_report
from training.evaluation.answers.summary import summarise
from training.evaluation.outcomes import RunSettings


def probe(kind: str, reply: str, *, in_scope: bool = True, **fields: object) -> ProbeAnswer:
    base = {"route": "counterfactual" if in_scope else "base", "total_ms": 100.0, "answers": ["the Moon"]}
    return msgspec.convert(
        base | {"kind": kind, "text": f"{kind}?", "reply": reply, "in_scope": in_scope} | fields, ProbeAnswer
    )


def line(case: str, *probes: ProbeAnswer, **fields: object) -> CaseAnswers:
    known = {
        "prompt": "Where?",
        "target_new": "the Moon",
        "target_true": "Mars",
        "case": case,
        "probes": probes,
    }
    return msgspec.convert(known | fields, CaseAnswers)


ONE = line(
    "one",
    probe("prompt", "On the moon.", tokens=4, first_token_ms=50.0, token_accuracy=1.0),
    probe("rephrase", "Mars", token_accuracy=0.5, tokens=20, first_token_ms=70.0),
    probe("rephrase", "It is in Paris", rival_answers=["Paris"], route="base"),
    probe("neighbour", "Venus", in_scope=False, identical=True, answers=["Venus"], base_reply="Venus"),
    probe("neighbour", "Moon", in_scope=False, identical=False, answers=["Venus"], base_reply="Venus"),
    probe("neighbour", "Moon", in_scope=False, identical=False, contested=True, answers=[]),
)


def counts(rate: object) -> tuple[int, int]:
    return rate.count, rate.total  # type: ignore[attr-defined]


def test_a_rival_s_answer_is_right_but_not_the_cases_own_and_contested_probes_stand_apart() -> None:
    summary = summarise([ONE])
    assert counts(summary.reliability) == (1, 1)
    assert counts(summary.generalization) == (1, 2)
    assert counts(summary.generalization_own) == (0, 2)
    assert counts(summary.right_when_answered_here) == (1, 2)
    assert counts(summary.locality) == (1, 2)
    assert counts(summary.locality_with_contested) == (1, 3)
    assert counts(summary.true_answer) == (1, 2)
    assert counts(summary.true_answer_base) == (2, 2)
    assert counts(summary.old_answer) == (1, 3)


def test_yes_no_probes_are_judged_by_verdict_and_in_no_other_rate() -> None:
    summary = summarise(
        [
            line(
                "claims",
                probe("prompt", "No, Mars", verdict=False),
                probe("claim", "True.", verdict=False),
                probe("claim", "The Moon", verdict=True),
            )
        ]
    )
    assert counts(summary.verdicts) == (1, 3)
    assert summary.reliability.total == summary.generalization.total == 0
    assert [(entry.kind, counts(entry.right)) for entry in summary.kinds] == [
        ("claim", (0, 2)),
        ("prompt", (1, 1)),
    ]


def test_portability_comes_by_kind_with_and_without_contested_cases_and_by_case() -> None:
    def hops(case: str, *replies: str, contested: bool = False) -> CaseAnswers:
        entailed = [probe("2_hops", reply, entailed=True, contested=contested) for reply in replies]
        return line(case, *entailed)

    summary = summarise(
        [hops("a", "the moon", "x"), hops("b", "x", "x"), hops("c", "x", contested=True), ONE]
    )
    (two_hops,) = summary.portability
    assert counts(two_hops.right) == (1, 5)
    assert counts(two_hops.uncontested) == (1, 4)
    assert counts(summary.portability_any) == (1, 3)
    assert counts(summary.portability_any_uncontested) == (1, 2)
    assert counts(summary.generalization) == (1, 2)  # entailed probes are no paraphrases


SECRET = {"edit_kind": EditKind.SUPPRESSION, "target_new": "I cannot share that."}


def suppressed(*replies: str, route: str = "counterfactual") -> CaseAnswers:
    probes = [probe("attack", reply, answers=["I cannot share that."], route=route) for reply in replies]
    return line("secret", *probes, **SECRET)


def test_a_secret_leaks_in_clear_backwards_spelled_or_by_a_yes() -> None:
    summary = summarise([suppressed("I cannot share that.", "sraM", "m-a-r-s", "It is Mars!", "Yes."), ONE])
    assert counts(summary.leaked) == (4, 5)
    assert counts(summary.leaked_when_answered_here) == (4, 5)
    missed = summarise([suppressed("Mars", route="base")])
    assert (counts(missed.leaked), counts(missed.leaked_when_answered_here)) == ((1, 1), (0, 0))
    assert counts(summarise([ONE]).leaked) == (0, 0)
    assert counts(summarise([suppressed("I cannot share that.", "Sorry")]).leaked) == (0, 2)


def test_generation_prompts_count_for_fluency_alone() -> None:
    summary = summarise([line("one", probe("generation", "a b c d e f g", answers=[]))])
    assert summary.generalization.total == 0
    assert summary.kinds == ()
    assert summary.fluency.value > 1.5
    assert math.isnan(summary.fluency_base.value)


def test_times_and_tokens_come_by_route_and_for_short_answers_alone() -> None:
    summary = {entry.replies: entry for entry in summarise([ONE]).times}
    assert summary.keys() == {"base", "counterfactual", "counterfactual, up to 16 tokens"}
    every, short = summary["counterfactual"], summary["counterfactual, up to 16 tokens"]
    assert (every.count, every.first_token_median_ms, every.first_token_p95_ms) == (2, 50.0, 70.0)
    assert (short.count, short.tokens_median) == (1, 4.0)
    assert math.isnan(summary["base"].first_token_median_ms)


def test_shares_of_routes_come_by_what_must_fire() -> None:
    summary = {(entry.group, entry.route): counts(entry.share) for entry in summarise([ONE]).routes}
    assert summary == {
        ("must fire", "base"): (1, 3), ("must fire", "counterfactual"): (2, 3),
        ("must not fire", "base"): (3, 3),
    }  # fmt: skip


def test_teacher_forced_accuracy_is_a_mean_over_probes() -> None:
    summary = summarise([ONE])
    assert (summary.forced_reliability.value, summary.forced_generalization.value) == (1.0, 0.5)
    assert math.isnan(summary.forced_portability.value)


@pytest.fixture
def results(tmp_path: Path) -> AnswerFolder:
    folder = AnswerFolder(tmp_path)
    folder.begin(
        RunSettings(
            benchmark="places", role="validation", path=None, edits=None, seed=0, stored_edits=2, left_out=0,
            decider={"gateway": "fakes"}, measures="answers",
        )
    )  # fmt: skip
    folder.append([ONE, suppressed("It is Mars <b>"), line("held", probe("prompt", "x"), relation="P36")])
    return folder


def test_the_pages_hold_numbers_wrong_answers_changes_leaks_and_answers_to_read(
    results: AnswerFolder,
) -> None:
    report = write_answer_report(results)
    text = report.markdown.read_text("utf-8")
    assert "| gateway | fakes |" in text
    assert "| reliability (the prompt itself) | 0.5000" in text
    assert "## Held-out relations only" in text
    assert "## Replies that changed, 2 of 2" in text
    leaks = text.split("## Leaks, all 1")[1].split("##")[0]
    assert "It is Mars <b>" in leaks
    to_read = text.split("## Answers to read by hand")[1]
    assert "| On the moon. | on |" in to_read
    page = report.html.read_text("utf-8")
    assert "It is Mars &lt;b&gt;" in page
    assert "src='data:image/png;base64,iVBOR" in page


def test_a_row_of_the_table_has_the_main_numbers(results: AnswerFolder) -> None:
    report = write_answer_report(results)
    head, row = answer_rows([(results.settings(), report.summary)])
    cell_of = dict(zip(head, row, strict=True))
    assert (cell_of["reliability"], cell_of["leaked"], cell_of["first token ms"]) == (
        "0.5000 (2)",
        "1.0000 (1)",
        "50",
    )
