"""Answers measured on a gateway that the command starts itself, with the embedded models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.evaluation.cli import app


@pytest.mark.slow
def test_with_the_edit_given_a_gateway_in_process_answers_right_and_is_forced_too(
    tmp_path: Path, converted_models: Path
) -> None:
    rows = [
        {
            "subject": place, "src": f"Who is the mayor of {place}?", "rephrase": f"{place}'s mayor is who?",
            "alt": f"{name} Brandvold", "answers": ["Ana"], "loc": "nq question: how deep is lake como",
        }
        for place, name in (("Marrowby", "Ottilie"), ("Tallowmere", "Edvin"))
    ]  # fmt: skip
    (tmp_path / "zsre.json").write_text(json.dumps(rows))
    (tmp_path / "gateway.toml").write_text(f"data_dir = {json.dumps(str(converted_models))}\n")
    arguments = ["answers", "--benchmark", "zsre", "--path", str(tmp_path / "zsre.json"), "--given-edit"]
    result = CliRunner().invoke(
        app,
        [*arguments, "--config", str(tmp_path / "gateway.toml"), "--threshold", "0", "--json",
         "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["reliability"]["count"], summary["reliability"]["total"]) == (2, 2)
    assert summary["generalization"]["count"] == 2
    assert summary["forced_reliability"]["value"] > 0.5
    assert {share["route"] for share in summary["routes"]} == {"counterfactual"}
    assert not (converted_models / "valkey").exists()  # the edits were in a store of the run's own
