"""The measuring commands, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.control_plane import ControlPlane
from training.evaluation.cli import app


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "zsre.json"
    path.write_text(
        json.dumps(
            [
                {
                    "subject": place, "src": f"Who built {place}?", "rephrase": f"Who built {place} town?",
                    "alt": "Ben", "answers": ["Ana"], "loc": "nq question: how deep is a lake",
                }
                for place in ("Oru", "Ketti", "Moss")
            ]
        )
    )  # fmt: skip
    return path


def test_a_running_gateway_is_measured_and_a_report_is_written(
    rows: Path, tmp_path: Path, control_plane: ControlPlane
) -> None:
    arguments = [
        "scope",
        "--benchmark",
        "zsre",
        "--path",
        str(rows),
        "--edits",
        "2",
        "--url",
        control_plane.url,
    ]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["edit_success"]["count"], summary["hit"]["total"], summary["no_fire"]["total"]) == (
        2,
        2,
        2,
    )
    assert (tmp_path / "run" / "report.html").exists()

    table = CliRunner().invoke(app, ["report", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert table.exit_code == 0
    assert control_plane.url in table.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scope", "--benchmark", "nothing"], "no benchmark is named 'nothing'"),
        (["scope", "--benchmark", "zsre", "--path", "/nowhere.json"], "cannot read the data file"),
        (["report", "/nowhere"], "holds no run"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_gateway_that_is_not_there_is_one_line_and_exit_code_3(rows: Path, tmp_path: Path) -> None:
    arguments = ["scope", "--benchmark", "zsre", "--path", str(rows), "--url", "http://127.0.0.1:9"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == 3
    assert "no gateway answers" in result.stderr
