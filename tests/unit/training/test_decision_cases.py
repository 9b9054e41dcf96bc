"""Single decisions, each with its own edits: read, decided, counted by kind."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serac_gateway.domain.edits import EditDraft, EditKind
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import ConfigError
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from training.benchmarks.decision_cases import DecisionCase, field_cases, open_cases, written_cases
from training.cli import app
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.scope.case_decisions import decide_cases, rows, summary

ENCODER = WordEncoder()
MODELS = GatewayModels(
    encoder=ENCODER, classifier=ThresholdClassifier(0.7), make_index=lambda: FaissFlatIndex(ENCODER.width)
)
EDITS = (
    EditDraft(prompt="Who runs Acme?", target_new="Ada"),
    EditDraft(prompt="Where is Acme?", target_new="Turin"),
)


def case(text: str, *, in_scope: bool, **fields: object) -> DecisionCase:
    return DecisionCase(
        source="made", kind="made", edits=EDITS, messages=({"role": "user", "content": text},),
        in_scope=in_scope, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_case_is_right_by_the_target_of_the_edit_that_governs() -> None:
    request = case("who runs acme", in_scope=True, answers=("ada",))
    assert request.is_right("Ada")
    assert not request.is_right("Turin")
    assert not request.is_right(None)
    assert case("x", in_scope=True, may_pass=True).is_right(None)
    other = case("x", in_scope=False)
    assert other.is_right(None)
    assert not other.is_right("Ada")


def test_each_case_has_its_own_edits_in_force() -> None:
    alone = DecisionCase(
        source="made", kind="alone", edits=EDITS[1:], in_scope=False,
        messages=({"role": "user", "content": "who runs acme"},),
    )  # fmt: skip
    empty = DecisionCase(source="made", kind="empty", edits=EDITS, messages=(), in_scope=False)
    decisions = decide_cases(
        MODELS,
        [
            case("who runs acme", in_scope=True, answers=("Ada",)),
            case("who runs acme", in_scope=True, answers=("Turin",)),
            alone,
            empty,
        ],
    )
    assert [decision.is_right for decision in decisions] == [True, False, True, True]
    measured = summary(decisions)
    assert measured["right"] == 0.75
    assert measured["by_kind"]["made, in"] == {"right": 0.5, "cases": 2}
    assert measured["mean_over_kinds"] == pytest.approx((0.5 + 1 + 1) / 3, abs=1e-4)
    assert rows(measured)[1] == ["made, in", "0.500", "2"]


def test_field_cases_are_read_as_they_are_published(tmp_path: Path) -> None:
    row = {
        "kind": "C1", "source": "s",
        "edits": [{"prompt": "p", "target_new": "t"}, {"prompt": "q", "target_new": "u"}],
        "messages": [{"role": "user", "content": "p?"}], "expect": "in", "answer_contains": ["t"],
    }  # fmt: skip
    path = tmp_path / "cases.jsonl.gz"
    path.write_bytes(
        gzip.compress("\n".join(map(json.dumps, (row, {**row, "expect": "out"}))).encode(), mtime=0)
    )
    first, second = field_cases(path)
    assert (first.in_scope, first.answers, second.in_scope) == (True, ("t",), False)


def test_the_written_sets_are_many_in_thirteen_languages_and_of_both_sides() -> None:
    cases = written_cases()
    assert len(cases) > 2_000
    assert len({made.language for made in cases}) == 13
    assert 0.4 < sum(made.in_scope for made in cases) / len(cases) < 0.6
    assert not [made for made in cases if "[X]" in str(made.messages) or "[V]" in str(made.messages)]


def test_suppressions_are_refused_wherever_their_question_stands() -> None:
    """As in the gateway: a question put before, and not refused then, is read again with the latest words."""
    secret = EditDraft(prompt="Who runs Acme?", target_new="I cannot say.", kind=EditKind.SUPPRESSION)
    turns = [("user", "who runs acme"), ("assistant", "Which Acme?"), ("user", "the bakery in Turin")]
    messages = tuple({"role": role, "content": text} for role, text in turns)
    suppressed, harmless = (
        DecisionCase(source="made", kind=kind, edits=(secret,), messages=said, in_scope=kind == "suppressed")
        for kind, said in (("suppressed", messages), ("harmless", messages[2:]))
    )
    refused, passed = decide_cases(MODELS, [suppressed, harmless])
    assert (refused.target, passed.target) == ("I cannot say.", None)


@pytest.mark.parametrize("source", ["suppressions", "suppressions-calibration"])
def test_suppression_cases_have_suppressions_and_both_sides(source: str) -> None:
    cases = open_cases(source)
    assert {edit.kind for made in cases for edit in made.edits} == {EditKind.SUPPRESSION}
    assert len(cases) > 300
    assert 0.4 < sum(made.in_scope for made in cases) / len(cases) < 0.6


def test_an_unknown_source_is_one_line_and_exit_code_2() -> None:
    with pytest.raises(ConfigError, match="choose one of field, written"):
        open_cases("feild")
    result = CliRunner().invoke(app, ["evaluate", "cases", "feild"])
    assert result.exit_code == 2
