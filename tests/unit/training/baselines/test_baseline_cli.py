"""`serac-train baseline`, as a user types it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.tiny_language_models import saved_tiny_gemma
from training.cli import app

SETTINGS = """
layers = [2]
[training]
steps = 1
edits_a_step = 1
statistics_edits = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Public data of three rows a file, a model, and settings."""
    places = ("Oru", "Ketti", "Moss")
    zsre = [
        {
            "subject": place, "src": f"Who built {place}?", "rephrase": f"Who was it that built {place}?",
            "alt": "Ben", "answers": ["Ana"], "loc": "nq question: how deep is a lake", "loc_ans": "12 m",
        }
        for place in places
    ]  # fmt: skip
    counterfact = [
        {
            "subject": place, "prompt": f"{place} is in", "target_new": "Rome", "ground_truth": "Oslo",
            "rephrase_prompt": f"See it. {place} lies in", "locality_prompt": "Tam is in",
        }
        for place in places
    ]  # fmt: skip
    for path, rows in {
        "zsre/zsre_mend_eval_portability_gpt4.jsonl": zsre[:1],
        "zsre/zsre_mend_train_10000.jsonl": zsre,
        "counterfact/counterfact_500_full_prompts.jsonl": counterfact[:1],
        "counterfact/counterfact-train.jsonl": counterfact,
    }.items():
        written = tmp_path / "data" / f"{path}.gz"
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    monkeypatch.setenv("SERAC_DATA", str(tmp_path / "data"))
    saved_tiny_gemma(tmp_path / "model")
    (tmp_path / "settings.toml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.parametrize("method", ["mend", "ke"])
def test_a_network_is_trained_and_its_run_goes_on(folder: Path, method: str) -> None:
    """The command writes the weights and names them; called again it is done; other settings are refused."""
    command = [
        "baseline", method, "--config", str(folder / "settings.toml"), "--run", str(folder / "run"),
        "--model", str(folder / "model"),
    ]  # fmt: skip
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert "1 steps" in result.stdout
        assert str(folder / "run" / "hyper.safetensors") in result.stdout
    (folder / "settings.toml").write_text(SETTINGS.replace("steps = 1", "steps = 2", 1))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "another configuration" in result.output
