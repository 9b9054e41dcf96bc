"""Runs of editing methods: rounds, resuming, undoing, costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from tests.unit.training.methods.conftest import Shifting
from training.baselines.base import EditingMethod
from training.baselines.causal_model import CausalModel
from training.baselines.context import InContext, Unedited
from training.benchmarks.base import Benchmark
from training.evaluation.answers.methods.outcomes import Group, MethodFolder
from training.evaluation.answers.methods.run import MethodOptions, run_method
from training.evaluation.answers.methods.summary import summarise
from training.evaluation.outcomes import CASES_FILE
from training.runs import TrainingError

OPTIONS = MethodOptions(edits=2, ask=4, max_tokens=3, open_texts=1)


def measured(
    benchmark: Benchmark,
    model: CausalModel,
    folder: Path,
    open_method: Callable[[CausalModel], EditingMethod] = Unedited,
    options: MethodOptions = OPTIONS,
) -> MethodFolder:
    return run_method(
        "fake", benchmark, folder, options=options, open_model=lambda: model, open_method=open_method,
        about={"model": "tiny"},
    )  # fmt: skip


def test_the_unedited_model_keeps_all_its_answers(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """Locality is 1 and the divergence 0 where nothing was edited, and costs are those of doing nothing."""
    results = measured(benchmark_of_places, model, tmp_path / "run")
    summary = summarise(list(results.outcomes()), results.rounds())
    assert summary.cases == 4
    assert summary.locality.value == 1.0
    assert summary.locality.probes == 4 * 2
    assert summary.kl_nats.value == pytest.approx(0, abs=1e-6)
    assert (summary.costs.edits, summary.costs.refused, summary.costs.bytes_an_edit) == (4, 0, 0)
    assert summary.fluency_bits.cases == 1


def test_edits_change_what_is_answered_and_are_taken_back(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """Each round begins on the untouched model, and replies differ from the unedited model's."""
    before = model.fingerprint()
    results = measured(benchmark_of_places, model, tmp_path / "run", Shifting)
    assert model.fingerprint() == before
    assert {line.weights for line in results.rounds()} == {before}
    assert [line.edits for line in results.rounds()] == [2, 2]
    summary = summarise(list(results.outcomes()), results.rounds())
    assert summary.locality.value < 1
    assert summary.kl_nats.value > 0.01
    assert summary.costs.bytes_an_edit > 0


def test_a_method_that_does_not_undo_is_caught(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """What would follow would be measured on an edited model."""

    class Forgetful(Shifting):
        forgets = True

    with pytest.raises(TrainingError, match=r"undoing the edits of 'shifting' the model is not what it was"):
        measured(benchmark_of_places, model, tmp_path / "run", Forgetful)


def test_a_finished_run_opens_no_model_and_a_torn_one_asks_what_is_left(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """The lines of finished cases stay as they are; the round of the torn line is made again."""
    results = measured(benchmark_of_places, model, tmp_path / "run", Shifting)
    whole = list(results.outcomes())
    opened: list[Shifting] = []

    def opens(edited: CausalModel) -> Shifting:
        opened.append(Shifting(edited))
        return opened[-1]

    measured(benchmark_of_places, model, tmp_path / "run", opens)
    assert opened == []
    lines = (tmp_path / "run" / CASES_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / CASES_FILE).write_bytes(b"".join(lines[:3]) + lines[3][:30])
    again = list(measured(benchmark_of_places, model, tmp_path / "run", opens).outcomes())
    assert [sorted(call[0] for call in method.calls) for method in opened] == [
        sorted(case.case for case in whole[2:])
    ]
    assert [case.case for case in again] == [case.case for case in whole]
    assert [probe.reply for probe in again[3].probes] == [probe.reply for probe in whole[3].probes]


def test_another_runs_folder_is_refused(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """A folder with other settings is not mixed with these."""
    measured(benchmark_of_places, model, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds another run"):
        measured(
            benchmark_of_places, model, tmp_path / "run", options=MethodOptions(edits=1, ask=4, max_tokens=3)
        )


def test_a_refused_edit_is_counted_and_asked_all_the_same(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """All methods are asked the same cases, whatever they can edit."""

    class Choosy(Shifting):
        refuses = "place-3"

    results = measured(
        benchmark_of_places, model, tmp_path / "run", Choosy, MethodOptions(edits=6, ask=6, max_tokens=2)
    )
    assert [case.case for case in results.outcomes() if case.was_refused] == ["place-3"]
    assert "no subject" in results.rounds()[0].refused[0]
    assert summarise(list(results.outcomes()), results.rounds()).cases == 6


def test_replies_directly_after_the_edit_stand_beside_those_at_the_end(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """All edits but the last are followed by others; ages count those."""
    results = measured(
        benchmark_of_places, model, tmp_path / "run", Shifting, MethodOptions(edits=6, ask=6, max_tokens=2)
    )
    cases = list(results.outcomes())
    assert sorted(case.age for case in cases) == [0, 1, 2, 3, 4, 5]
    assert [case.age for case in cases if case.just_after is None] == [0]


def test_edits_made_together_come_in_one_call(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """A method with batches gets the batch."""
    opened: list[Shifting] = []

    def opens(edited: CausalModel) -> Shifting:
        opened.append(Shifting(edited))
        return opened[-1]

    options = MethodOptions(edits=6, ask=2, max_tokens=2, together=4)
    measured(benchmark_of_places, model, tmp_path / "run", opens, options)
    assert [len(call) for call in opened[0].calls] == [4, 2]


def test_only_the_upper_row_is_let_know_which_edit_governs(
    benchmark_of_places: Benchmark, model: CausalModel, tmp_path: Path
) -> None:
    """In context the edit stands before what it governs, and neighbours are read alone."""
    seen: list[str] = []

    class Watched(InContext):
        def prompt_text(self, query: str) -> str:
            seen.append(super().prompt_text(query))
            return seen[-1]

    results = measured(benchmark_of_places, model, tmp_path / "run", Watched)
    edited = next(iter(results.outcomes()))
    assert f"Fact: {edited.prompt} {edited.target_new}\n{edited.prompt}" in seen
    assert "The mayor of Paris is" in seen
    assert not any(text.startswith("Fact") and text.endswith("mayor of Paris is") for text in seen)
    local = [p for case in results.outcomes() for p in case.probes if p.group is Group.LOCALITY]
    assert all(probe.reply == probe.base_reply for probe in local)
