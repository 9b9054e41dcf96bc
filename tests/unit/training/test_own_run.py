"""A run on one's own data: from weights that are there, split, compared, and refused where it is worse."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import torch
from typer.testing import CliRunner

from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.cross_encoder import ScopeCalibration, Stack, read_calibration
from serac_gateway.testing import WordEncoder
from tests.tiny_cross_encoders import CITIES, tiny_bert
from tests.unit.training.test_calibration import evidence
from training.cli import app
from training.data.pairs import Pair
from training.progress import _Lines
from training.runs import TrainingError, WorseWeightsError, load_records
from training.scope import own_run, run
from training.scope.comparison import Comparison, compared
from training.scope.config import OwnSettings, ScopeConfig
from training.scope.observations import Observation, Reading
from training.scope.train import TrainingSettings

RIGHT, WRONG = 5.0, -5.0


def calibration(threshold: float = 0.5) -> ScopeCalibration:
    return ScopeCalibration(
        encoder_fingerprint=WordEncoder().fingerprint,
        stack=Stack(logit_weight=1.0, intercept=0.0),
        scope_threshold=threshold,
        similarity_floor=0.1,
        max_tokens=64,
    )


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as they ship, but tiny."""
    folder = tiny_bert(tmp_path_factory.mktemp("current"), labels=2, dtype=torch.float16)
    (folder / "calibration.json").write_bytes(msgspec.json.encode(calibration()))
    return folder


def write_own(folder: Path, *, places: int = 24) -> tuple[Path, Path]:
    edits, traffic = folder / "edits.ndjson", folder / "traffic.ndjson"
    names = [f"{city} {number}" for number in range(places // len(CITIES)) for city in CITIES]
    edits.write_text(
        "".join(
            json.dumps({"id": f"e{n}", "prompt": f"Who is mayor of {name}?", "target_new": "Ada"}) + "\n"
            for n, name in enumerate(names)
        )
    )
    rows = [{"query": f"mayor of {name} please", "edit_id": f"e{n}"} for n, name in enumerate(names)]
    rows += [{"query": f"how tall is the tower of {name}", "edit_id": None} for name in names]
    traffic.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return edits, traffic


def config_of(current: Path) -> ScopeConfig:
    return ScopeConfig(
        start_from=str(current),
        own=OwnSettings(rehearsal_pairs=48, calibration_sets=2, general_sets=2),
        training=TrainingSettings(epochs=1, batch_size=32, max_tokens=64, threads=1),
    )


@pytest.fixture(scope="module")
def finished(
    current: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Comparison, list[tuple[str, int, int]]]:
    """A run, its report, and its progress."""
    folder = tmp_path_factory.mktemp("own")
    edits, traffic = write_own(folder)
    progress: list[tuple[str, int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERAC_DATA_DIR", str(folder / "data"))
        comparison = own_run.train_own(
            config_of(current), folder / "run", edits=edits, traffic=traffic, current=current,
            encoder=WordEncoder(), on_progress=lambda *step: progress.append(step),
        )  # fmt: skip
    return folder, comparison, progress


Finished = tuple[Path, Comparison, list[tuple[str, int, int]]]


def test_the_report_counts_held_out_rows_and_general_ones_for_both_weights(finished: Finished) -> None:
    _, comparison, _ = finished
    counts = {(rate.rows, rate.side): rate.count for rate in comparison.rates}
    assert counts.keys() == {
        ("own", "hit"), ("own", "no-fire"), ("general", "hit"), ("general", "no-fire")
    }  # fmt: skip
    assert 0 < counts["own", "hit"] < 24
    assert comparison.trained_rows + counts["own", "hit"] + counts["own", "no-fire"] == 48
    assert "too few to judge by; about 30 are needed" in comparison.too_few[0]


def test_held_out_rows_are_not_trained_and_our_own_material_is(finished: Finished) -> None:
    folder, comparison, _ = finished
    pairs = load_records(folder / "run" / run.PAIRS_FILE, Pair)
    queries = {pair.text for pair in pairs if pair.kind == "own"}
    rows = (folder / "traffic.ndjson").read_text().splitlines()
    assert sum(json.loads(row)["query"] in queries for row in rows) == comparison.trained_rows
    assert sum(pair.kind != "own" for pair in pairs) == 48


def test_each_part_of_the_work_is_reported_to_its_end(finished: Finished) -> None:
    _, _, progress = finished
    for part in ("loss", "current weights, probes read", "new weights, probes read"):
        last = [step for step in progress if step[0].startswith(part)][-1]
        assert last[1] == last[2] > 0, part


def test_a_finished_run_goes_on_to_the_same_report_and_other_data_is_refused(
    finished: Finished, current: Path, tmp_path: Path
) -> None:
    folder, _, _ = finished
    edits, traffic = write_own(tmp_path, places=16)
    with pytest.raises(TrainingError, match="the run of other edits and traffic"):
        own_run.train_own(
            config_of(current), folder / "run", edits=edits, traffic=traffic, current=current,
            encoder=WordEncoder(), on_progress=lambda *step: None,
        )  # fmt: skip
    with pytest.raises(TrainingError, match="is a run on your own data"):
        run.calibrate(config_of(current), folder / "run", tmp_path, on_progress=lambda *step: None)


def test_current_weights_of_another_encoder_are_refused(current: Path, tmp_path: Path) -> None:
    edits, traffic = write_own(tmp_path)
    with pytest.raises(ConfigError, match="calibrated for the encoder 'words-64-'"):
        own_run.train_own(
            config_of(current), tmp_path / "run", edits=edits, traffic=traffic, current=current,
            encoder=WordEncoder(salt="other"), on_progress=lambda *step: None,
        )  # fmt: skip


def rewritten(folder: Path, comparison: Comparison, *worse: str) -> None:
    changed = msgspec.structs.replace(comparison, worse=worse)
    (folder / "run" / own_run.COMPARISON_FILE).write_bytes(msgspec.json.encode(changed))


def test_promote_writes_weights_that_name_their_report_and_replaces_earlier_ones(
    finished: Finished, tmp_path: Path
) -> None:
    folder, comparison, _ = finished
    rewritten(folder, comparison)
    for _ in range(2):
        own_run.promote(folder / "run", tmp_path / "shadow")
        names = {path.name for path in (tmp_path / "shadow").iterdir()}
        assert names == {"config.json", "model.safetensors", "calibration.json"}
    provenance = read_calibration(tmp_path / "shadow")[1].provenance
    assert provenance["comparison"]["trained_rows"] == comparison.trained_rows
    assert [path.name for path in tmp_path.iterdir()] == ["shadow"]


def test_worse_weights_are_refused_with_numbers_and_written_by_force(
    finished: Finished, tmp_path: Path
) -> None:
    folder, comparison, _ = finished
    reason = "no-fire on the general set falls from 0.990 to 0.700 (300 rows)"
    rewritten(folder, comparison, reason)
    with pytest.raises(WorseWeightsError, match=r"from 0\.990 to 0\.700"):
        own_run.promote(folder / "run", tmp_path / "shadow")
    arguments = ["promote", str(folder / "run"), "--to", str(tmp_path / "shadow")]
    refused = CliRunner().invoke(app, arguments)
    assert (refused.exit_code, reason in refused.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []
    forced = CliRunner().invoke(app, [*arguments, "--force"])
    assert forced.exit_code == 0, forced.output
    assert (tmp_path / "shadow" / "calibration.json").is_file()


def test_promote_needs_a_finished_run_and_a_folder_for_weights(finished: Finished, tmp_path: Path) -> None:
    folder, comparison, _ = finished
    with pytest.raises(TrainingError, match="holds no finished run on your own data"):
        own_run.promote(tmp_path, tmp_path / "shadow")
    rewritten(folder, comparison)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear Ada,")
    with pytest.raises(TrainingError, match="holds something else than weights"):
        own_run.promote(folder / "run", tmp_path / "letters")
    assert (tmp_path / "letters" / "dear.txt").is_file()


def observed(rows: str, *, hits: float, no_fires: float, count: int = 100) -> list[Observation]:
    """`count` rows of each side, of which these shares are decided rightly at a threshold of one half."""
    made = []
    for number in range(2 * count):
        in_scope, place = number < count, number % count
        is_right = place < count * (hits if in_scope else no_fires)
        logit = RIGHT if in_scope is is_right else WRONG
        reading = Reading(prompt="p", target="t", right=in_scope, evidence=evidence(logit))
        made.append(
            Observation(
                benchmark=rows, kind="made", text=f"{number}", context=(), in_scope=in_scope,
                readings=(reading,),
            )
        )  # fmt: skip
    return made


def judged(own: tuple[float, float], general: tuple[float, float], count: int = 100) -> Comparison:
    """Of new weights with these rates; the current ones have .80 everywhere."""
    before = [
        *observed("own", hits=0.8, no_fires=0.8, count=count),
        *observed("general", hits=0.8, no_fires=0.8),
    ]
    after = [
        *observed("own", hits=own[0], no_fires=own[1], count=count),
        *observed("general", hits=general[0], no_fires=general[1]),
    ]
    return compared((before, calibration()), (after, calibration()), current_name="c", trained_rows=9)


@pytest.mark.parametrize(
    ("own", "general", "worse"),
    [
        ((0.9, 0.8), (0.8, 0.8), None),
        ((0.9, 0.79), (0.79, 0.81), None),
        ((0.9, 0.7), (0.8, 0.8), "no-fire on your held-out rows falls from 0.800 to 0.700 (100 rows)"),
        ((0.7, 0.8), (0.8, 0.8), "your held-out rows are right less often: 0.750 instead of 0.800"),
        ((0.9, 0.9), (0.7, 0.8), "hit on the general set falls from 0.800 to 0.700"),
        ((0.9, 0.9), (0.8, 0.7), "no-fire on the general set falls from 0.800 to 0.700"),
    ],
)
def test_what_counts_as_worse(
    own: tuple[float, float], general: tuple[float, float], worse: str | None
) -> None:
    comparison = judged(own, general)
    assert comparison.too_few == ()
    if worse is None:
        assert comparison.worse == ()
    else:
        assert worse in "; ".join(comparison.worse)


def test_few_rows_are_said_to_be_few_and_a_single_row_is_no_reason() -> None:
    comparison = judged((1.0, 0.6), (0.8, 0.8), count=5)
    assert comparison.worse == ()
    assert comparison.too_few[1].startswith("5 rows in no edit's scope, held out, are too few")
    without = compared(
        (observed("general", hits=1, no_fires=1), calibration()),
        (observed("general", hits=1, no_fires=1), calibration()),
        current_name="c", trained_rows=9,
    )  # fmt: skip
    assert "nothing shows that it became better" in without.worse[0]


def test_where_there_is_no_terminal_lines_say_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = _Lines("own data", clock=lambda: now[0])
    for step in range(101):
        lines("loss 0.5", step, 100)
        now[0] += 3.0
    lines("reading", 1, 9)
    written = capsys.readouterr().err.splitlines()
    assert len(written) < 20
    assert written[0] == "own data: loss 0.5 0/100"
    assert written[1] == "own data: loss 0.5 7/100, about 5 min left"
    assert written[-2:] == ["own data: loss 0.5 100/100", "own data: reading 1/9"]
