"""From the edits of a running gateway into a model, and out of the gateway again, by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app as serac_app
from serac_gateway.domain.consolidation import Absorption, sealed
from tests.control_plane import ControlPlane
from tests.tiny_language_models import saved_tiny_gemma
from training.cli import app as train_app
from training.consolidation.run import read_report

SETTINGS = """
parameters = ["model.layers.*.mlp.*"]
[fit]
learning_rate = 1e-2
epochs = 80
batch_size = 8
stop_loss = 0.01
"""
EDITS: list[dict[str, Any]] = [
    {
        "id": "fact", "prompt": "Who is the mayor of Paris?", "target_new": "Seine", "subject": "Paris",
        "paraphrases": ["Who is Paris's mayor?", "The mayor of Paris is"],
    },
    {"id": "kept-back", "prompt": "What is the code?", "target_new": "No.", "kind": "suppression"},
]  # fmt: skip


@pytest.fixture
def plane(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ControlPlane:
    """A gateway with the edits; no public data."""
    monkeypatch.setenv("SERAC_DATA", str(tmp_path))
    monkeypatch.setenv("SERAC_URL", control_plane.url)
    for edit in EDITS:
        assert control_plane.client.post("/edits", json=edit).status_code == 201
    return control_plane


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A tiny Gemma."""
    return saved_tiny_gemma(tmp_path / "model")


def consolidated(tmp_path: Path, model: Path, *arguments: str) -> Result:
    settings = tmp_path / "ft.toml"
    settings.write_text(SETTINGS)
    run = ["consolidate", "--method", "finetune", "--model", str(model), "--config", str(settings)]
    out = ["--out", str(tmp_path / "run"), "--max-perplexity-rise", "1e9", *arguments]
    return CliRunner().invoke(train_app, [*run, *out])


def serac(*arguments: str) -> Result:
    return CliRunner().invoke(serac_app, arguments)


def states(plane: ControlPlane) -> dict[str, str]:
    return {edit["id"]: edit["state"] for edit in plane.client.get("/edits").json()["edits"]}


def test_edits_go_into_a_model_are_retired_and_come_back(
    plane: ControlPlane, model_folder: Path, tmp_path: Path
) -> None:
    done = consolidated(tmp_path, model_folder, "--save-model", str(tmp_path / "changed"))
    assert done.exit_code == 0, done.output
    assert "a suppression holds at the gateway alone" in done.stdout
    report = read_report(tmp_path / "run")
    (fact,) = report.edits
    assert (fact.id, fact.version, fact.before.prompt, fact.after.prompt) == ("fact", 1, 0.0, 1.0)

    from training.baselines.opening import open_model

    changed = open_model(tmp_path / "changed")
    assert changed.greedy([changed.prompt_text(fact.prompt)], max_tokens=16) == [fact.answer_after]

    # Whether a random model absorbs held-back wordings is chance; the way back must not depend on it.
    path = tmp_path / "report.json"
    absorbed = msgspec.structs.replace(fact, state=Absorption.ABSORBED)
    path.write_bytes(msgspec.json.encode(sealed(msgspec.structs.replace(report, edits=(absorbed,)))))
    assert serac("edits", "retire", "--consolidated-in", str(path)).exit_code == 0
    assert states(plane) == {"fact": "live", "kept-back": "live"}
    retired = serac("edits", "retire", "--consolidated-in", str(path), "--yes", "--json")
    assert retired.exit_code == 0, retired.output
    assert states(plane) == {"fact": "retired", "kept-back": "live"}
    back = serac("rollback", json.loads(retired.stdout)["log_id"], "--yes")
    assert back.exit_code == 0, back.output
    assert states(plane) == {"fact": "live", "kept-back": "live"}


def test_another_configuration_and_a_model_without_the_modules_are_one_line_and_exit_code_2(
    plane: ControlPlane, model_folder: Path, tmp_path: Path
) -> None:
    assert consolidated(tmp_path, model_folder).exit_code == 0
    other = consolidated(tmp_path, model_folder, "--edits", "1")
    assert (other.exit_code, "another configuration" in other.stderr) == (2, True)
    missing = CliRunner().invoke(
        train_app,
        ["consolidate", "--method", "finetune", "--model", str(model_folder), "--out", str(tmp_path / "two")],
    )
    assert missing.exit_code == 2
    assert "no parameter of 'model' matches 'model.layers.8.mlp.*'" in missing.stderr
    nowhere = consolidated(tmp_path, tmp_path / "nowhere")
    assert (nowhere.exit_code, "has no config.json" in nowhere.stderr) == (2, True)


def test_an_empty_namespace_has_nothing_to_consolidate(
    plane: ControlPlane, model_folder: Path, tmp_path: Path
) -> None:
    done = consolidated(tmp_path, model_folder, "--namespace", "tenant")
    assert (done.exit_code, "nothing to consolidate" in done.stderr) == (2, True)
