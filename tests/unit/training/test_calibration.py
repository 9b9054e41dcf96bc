"""From observations to a threshold: fitting, choosing, numbers, plots, worst errors, the command."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.cross_encoder import (
    CERTAIN_LOGIT,
    Evidence,
    ScopeCalibration,
    Stack,
)
from training.cli import app
from training.runs import save_records
from training.scope import calibration, observations
from training.scope.calibration import Outcome
from training.scope.observations import Observation, Reading
from training.scope.plots import write_plots
from training.scope.run import worst


def evidence(logit: float, similarity: float = 0.0) -> Evidence:
    return Evidence(logit=logit, similarity=similarity)


def stack_of(**fields: float) -> Stack:
    return Stack(**({"logit_weight": 1.0, "intercept": 0.0} | fields))


def observed(count: int = 400, *, seed: int = 1) -> list[Observation]:
    """Logits of right candidates near +3, of wrong ones near -3, with some noise."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        in_scope = number % 2 == 0
        readings = tuple(
            Reading(
                prompt=f"p{number}-{place}", target="t", right=in_scope and place == 0,
                evidence=evidence(
                    rng.gauss(3.0 if in_scope and place == 0 else -3.0, 1.5),
                    0.8 - 0.1 * place + rng.gauss(0, 0.05),
                ),
            )
            for place in range(3)
        )  # fmt: skip
        made.append(
            Observation(
                benchmark="made", kind="rephrase" if in_scope else "neighbour", text=f"q{number}", context=(),
                in_scope=in_scope, readings=readings,
            )
        )  # fmt: skip
    return made


def calibrated(observations_made: list[Observation]) -> ScopeCalibration:
    stack = calibration.fitted_stack(observations_made)
    point = calibration.chosen_threshold(calibration.outcomes(observations_made, stack))
    return ScopeCalibration(
        encoder_fingerprint="e", stack=stack, scope_threshold=point.threshold, similarity_floor=0.1,
        max_tokens=64,
    )  # fmt: skip


def test_the_fitted_probabilities_are_those_that_happen() -> None:
    observations_made = observed()
    stack = calibration.fitted_stack(observations_made)
    fresh = observed(seed=2)
    assert calibration.at_threshold(calibration.outcomes(fresh, stack), 0.5).harmonic > 0.93
    assert stack.logit_weight > 0


def test_a_lower_limit_on_false_fires_raises_the_threshold_and_is_kept() -> None:
    observations_made = observed()
    made = calibration.outcomes(observations_made, calibration.fitted_stack(observations_made))
    loose = calibration.chosen_threshold(made, max_false_fire_rate=0.2)
    strict = calibration.chosen_threshold(made, max_false_fire_rate=0.01)
    assert strict.threshold > loose.threshold
    assert 1 - strict.no_fire <= 0.01
    assert strict.hit <= loose.hit


def test_a_limit_that_cannot_be_kept_is_said() -> None:
    always = [Outcome(benchmark="b", set_name="s", in_scope=False, probability=1.0, right=False)] * 4
    with pytest.raises(ConfigError, match=r"within 0\.1; the least is 1\.0"):
        calibration.chosen_threshold(always, max_false_fire_rate=0.1)


def test_one_sided_observations_are_refused() -> None:
    negatives = [observation for observation in observed() if not observation.in_scope]
    with pytest.raises(ConfigError, match="no positive readings"):
        calibration.fitted_stack(negatives)


def test_a_hit_needs_the_right_edit() -> None:
    made = [
        Outcome(benchmark="b", set_name="s", in_scope=True, probability=0.9, right=right)
        for right in (True, False)
    ]
    assert calibration.at_threshold(made, 0.5).hit == 0.5
    assert calibration.at_threshold(made, 0.95).hit == 0.0


def test_the_calibration_error_is_the_gap_between_promise_and_fact() -> None:
    observations_made = observed(2_000)
    stack = calibration.fitted_stack(observations_made)
    bins = calibration.reliability(observations_made, stack)
    assert sum(observation.count for observation in bins) == 6_000
    assert calibration.expected_calibration_error(bins) < 0.1
    sure = stack_of(logit_weight=1e-3, intercept=20.0)
    assert calibration.expected_calibration_error(
        calibration.reliability(observations_made, sure)
    ) == pytest.approx(5 / 6, abs=0.01)


def test_the_floor_lies_under_the_right_similarities() -> None:
    observations_made = observed()
    right = [
        r.evidence.similarity for observation in observations_made for r in observation.readings if r.right
    ]
    assert calibration.similarity_floor(observations_made) < min(right)
    assert calibration.similarity_floor([]) == -1.0


def test_what_lies_nearer_than_nearly_all_unrelated_questions_is_not_unlikely() -> None:
    def unrelated(similarity: float) -> Observation:
        reading = Reading(prompt="p", target="t", right=False, evidence=evidence(-3.0, similarity))
        return Observation(
            benchmark="made", kind="unrelated", text="q", context=(), in_scope=False, readings=(reading,)
        )

    made = [unrelated(0.3 + 0.002 * number) for number in range(100)]
    assert calibration.unlikely_similarity([*made, *observed()]) == pytest.approx(0.496, abs=0.002)
    assert calibration.unlikely_similarity(observed()) == -1.0


def test_probabilities_do_not_overflow() -> None:
    stack = stack_of(logit_weight=1e6)
    readings = [
        Reading(prompt="p", target="t", evidence=evidence(logit), right=False) for logit in (1e6, -1e6)
    ]
    assert calibration.probabilities(stack, readings).tolist() == pytest.approx([1.0, 0.0])


def test_the_weights_that_are_fitted_are_those_of_the_gateway() -> None:
    observations_made = observed()
    stack = calibration.fitted_stack(observations_made)
    readings = [reading for observation in observations_made for reading in observation.readings]
    logits_N = calibration.features(readings)[:, 0]
    expected_N = 1 / (1 + np.exp(-(logits_N * stack.logit_weight + stack.intercept)))
    assert calibration.probabilities(stack, readings) == pytest.approx(expected_N)


def test_an_edits_own_prompt_does_not_shape_the_fit() -> None:
    """Its logit is set, not read: a thousand of it would flatten the curve."""
    observations_made = observed()
    certain = Observation(
        benchmark="made", kind="prompt", text="q", context=(), in_scope=True,
        readings=(Reading(prompt="p", target="t", evidence=evidence(CERTAIN_LOGIT), right=True),),
    )  # fmt: skip
    assert calibration.fitted_stack([*observations_made, *[certain] * 99]) == calibration.fitted_stack(
        observations_made
    )


def test_the_second_question_is_calibrated_like_the_first() -> None:
    observations_made = [
        msgspec.structs.replace(
            observation,
            readings=tuple(
                msgspec.structs.replace(r, depends_logit=r.evidence.logit, depends=r.right, right=False)
                for r in observation.readings
            ),
        )
        for observation in observed()
    ]
    turned = calibration.depended_on(observations_made)
    assert calibration.fitted_stack(turned) == calibration.fitted_stack(observed())
    unclear = [
        msgspec.structs.replace(
            observation, readings=(msgspec.structs.replace(observation.readings[0], depends=None),)
        )
        for observation in observations_made
    ]
    assert calibration.depended_on(unclear) == []
    assert calibration.depended_on(observed()) == []


def test_the_plots_are_written(tmp_path: Path) -> None:
    observations_made = observed()
    paths = write_plots(observations_made, calibrated(observations_made), tmp_path)
    assert [path.name for path in paths] == [
        "roc.png",
        "precision_recall.png",
        "reliability.png",
        "histograms.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_worst_errors_come_first(tmp_path: Path) -> None:
    observations_made = observed()
    made = calibrated(observations_made)
    rows = worst(observations_made, made, 5)
    fires = [row.scope_probability for row in rows if row.error == "false fire"]
    misses = [row.scope_probability for row in rows if row.error == "miss"]
    assert fires == sorted(fires, reverse=True)
    assert misses == sorted(misses)
    assert all(value >= made.scope_threshold for value in fires)
    assert all(value < made.scope_threshold for value in misses)


def test_the_command_explains_errors_as_a_table_and_as_json(tmp_path: Path) -> None:
    import msgspec

    observations_made = observed()
    save_records(tmp_path / "observations.jsonl", observations_made)
    (tmp_path / "calibration.json").write_bytes(msgspec.json.encode(calibrated(observations_made)))
    arguments = ["explain-errors", "--run", str(tmp_path), "--weights", str(tmp_path), "--count", "3"]
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert rows
    assert {"error", "query", "edit", "scope_probability"} <= rows[0].keys()
    assert "false fire" in CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}).stdout
    assert observations.load(tmp_path) == observations_made


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["explain-errors", "--run", str(tmp_path), "--weights", str(tmp_path)])
    assert result.exit_code == 2
    assert "run serac-train calibrate" in result.stderr
    result = CliRunner().invoke(app, ["scope", "--config", str(tmp_path / "no.toml"), "--run", str(tmp_path)])
    assert result.exit_code == 2
    assert "cannot read the configuration" in result.stderr
    result = CliRunner().invoke(app, ["scope", "--edits", "e.ndjson", "--run", str(tmp_path)])
    assert result.exit_code == 2
    assert "go together" in result.stderr


def test_a_floor_above_which_right_edits_do_not_lie_is_refused() -> None:
    """As when the encoder changes and the configuration still has the floor of the former one."""
    seen = observed(100)
    calibration.check_floor(seen, 0.1)
    unread = [msgspec.structs.replace(o, readings=()) for o in seen if o.in_scope][:10]
    with pytest.raises(ConfigError, match=r"10 of 60 probes in scope .*floor 0\.75.*lower validation\.floor"):
        calibration.check_floor([*seen, *unread], 0.75)
