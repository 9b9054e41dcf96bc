"""A consolidation into a tiny model, from the edits to the report; finished steps are not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from serac_gateway.domain.consolidation import Absorption, ConsolidationReport
from serac_gateway.domain.edits import Edit
from serac_gateway.errors import ConfigError
from tests.unit.training.consolidation.conftest import FittedMatrices
from tests.unit.training.consolidation.test_live_edits import edit
from training.baselines.causal_model import CausalModel
from training.consolidation.recipes import Recipe
from training.consolidation.run import ConsolidationConfig, consolidate, read_report
from training.runs import TrainingError

EDITS = [
    edit("a", prompt="Who is the mayor of Paris?", target_new="Seine", paraphrases=["Paris?", "Who, Paris?"]),
    edit("b", prompt="Who runs the river?", target_new="is", source="a letter"),
    edit("c", kind="suppression", target_true="4711"),
]
Run = Callable[..., ConsolidationReport]


def no_edits() -> Sequence[Edit]:
    raise AssertionError("the edits are read once")


@pytest.fixture
def run(new_model: Callable[[], CausalModel], recipe: Recipe, tmp_path: Path) -> Run:
    def made(
        read_edits: Callable[[], Sequence[Edit]] = lambda: EDITS,
        *,
        taken: Recipe = recipe,
        model: CausalModel | None = None,
        **settings: Any,  # noqa: ANN401 - any setting
    ) -> ConsolidationReport:
        model = model or new_model()
        config = ConsolidationConfig(
            gateway="http://127.0.0.1:1", namespace="", method="fitted", settings={"rate": 0.03},
            model=model.name, base_digest=model.fingerprint(),
            **{"unrelated": 3, "questions": 0, "max_perplexity_rise": 1e9, **settings},
        )  # fmt: skip
        return consolidate(model, taken, config, tmp_path / "run", read_edits=read_edits)

    return made


def test_the_report_says_of_every_edit_what_it_was_and_what_became_of_it(run: Run, tmp_path: Path) -> None:
    report = run()
    assert [(of_edit.id, of_edit.version, of_edit.source) for of_edit in report.edits] == [
        ("a", 1, None),
        ("b", 1, "a letter"),
    ]
    first = report.edits[0]
    assert (first.before.prompt, first.after.prompt) == (0.0, 1.0)
    assert first.answer_after.startswith("Seine")
    assert [left.id for left in report.left_out] == ["c"]
    assert read_report(tmp_path / "run") == report
    page = (tmp_path / "run" / "report.md").read_text()
    card = (tmp_path / "run" / "card.md").read_text()
    assert "| a | 1 |" in page
    assert "holds at the gateway alone" in page
    for text in (report.base_digest, report.artefact_digest, '{"rate":0.03}', "| b | 1 |"):
        assert text in card


def test_the_wordings_that_are_held_back_are_never_given_to_the_method(
    run: Run, opened: list[FittedMatrices]
) -> None:
    run()
    trained = {draft.prompt for draft in opened[0].edits}
    assert {"Who is the mayor of Paris?", "Who runs the river?"} < trained
    assert len(trained & {"Paris?", "Who, Paris?"}) == 1


def test_what_is_judged_is_the_base_model_with_the_files_tensors(
    run: Run, new_model: Callable[[], CausalModel], tmp_path: Path
) -> None:
    model, fresh = new_model(), new_model()
    report = run(model=model)
    tensors = load_file(tmp_path / "run" / "changed.safetensors")
    assert sorted(tensors) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)]
    with torch.no_grad():
        for name, tensor in tensors.items():
            dict(fresh.network.named_parameters())[name].copy_(tensor)
    assert fresh.fingerprint() == model.fingerprint() != report.base_digest
    (reply,) = fresh.greedy([fresh.prompt_text("Who is the mayor of Paris?")], max_tokens=16)
    assert reply == report.edits[0].answer_after


def test_a_run_goes_on_where_it_was_and_reads_the_edits_once(
    run: Run, opened: list[FittedMatrices], tmp_path: Path
) -> None:
    first = run()
    (tmp_path / "run" / "after.json").unlink()
    again = run(no_edits)
    assert again.edits == first.edits
    assert len(opened) == 1, "the weights were there"


def test_a_folder_of_another_configuration_and_a_damaged_file_are_refused(run: Run, tmp_path: Path) -> None:
    run()
    with pytest.raises(TrainingError, match="another configuration"):
        run(no_edits, max_tokens=5)
    (tmp_path / "run" / "before.json").write_text("{")
    with pytest.raises(TrainingError, match=r"before\.json' is damaged"):
        run(no_edits)
    (tmp_path / "run" / "report.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"cannot read .*report\.json"):
        read_report(tmp_path / "run")


def test_a_damaged_file_of_weights_and_one_of_another_model_are_refused(run: Run, tmp_path: Path) -> None:
    run()
    weights = tmp_path / "run" / "changed.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(TrainingError, match="delete it to make it anew"):
        run(no_edits)
    from safetensors.torch import save_file

    save_file({"model.layers.9.mlp.down_proj.weight": torch.zeros(1)}, weights)
    with pytest.raises(TrainingError, match="of another model"):
        run(no_edits)


def test_no_edit_is_absorbed_by_a_model_that_lost_too_much(run: Run) -> None:
    report = run(max_perplexity_rise=-1.0)
    assert report.refusal is not None
    assert "perplexity" in report.refusal
    assert Absorption.ABSORBED not in {of_edit.state for of_edit in report.edits}


def test_an_edit_without_what_the_method_needs_is_not_trained_and_the_others_are(
    run: Run, recipe: Recipe, opened: list[FittedMatrices]
) -> None:
    needy = msgspec.structs.replace(recipe, needs_subject=True, trains_wordings=False)
    with_subject = edit("d", prompt="Who is the mayor of Paris?", target_new="is", subject="Paris")
    other = edit("e", prompt="Who leads Rome?", target_new="the", subject="Milan")
    report = run(lambda: [EDITS[1], with_subject, other], taken=needy)
    assert [draft.prompt for draft in opened[0].edits] == ["Who is the mayor of Paris?"]
    reasons = {of_edit.id: (of_edit.state, of_edit.why) for of_edit in report.edits}
    assert reasons["b"][0] is Absorption.NEEDS_GATEWAY
    assert "needs the edit's subject" in reasons["b"][1]
    assert "does not contain its subject 'Milan'" in reasons["e"][1]


def test_contradicting_facts_are_not_trained(run: Run, opened: list[FittedMatrices]) -> None:
    other = edit("z", prompt="who runs the river", target_new="the")
    report = run(lambda: [*EDITS, other])
    assert {draft.prompt for draft in opened[0].edits}.isdisjoint({"Who runs the river?", other.prompt})
    states = {of_edit.id: of_edit.state for of_edit in report.edits}
    assert (states["b"], states["z"]) == (Absorption.CONFLICTING, Absorption.CONFLICTING)


def test_with_no_fact_there_is_nothing_to_do_and_strange_probes_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to consolidate"):
        run(lambda: [EDITS[2]])
    probes = tmp_path / "probes.jsonl"
    probes.write_text(json.dumps({"edit_id": "nowhere"}))
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ConfigError, match="'nowhere', which is not live"):
        run(probes=str(probes))
