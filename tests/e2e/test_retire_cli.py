"""`serac edits retire` against a gateway that listens: first as a dry run, then made, then taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.domain.consolidation import Absorption
from tests.control_plane import ControlPlane
from tests.made_consolidations import report_of

ANY = {"if-match": "*"}
Retire = Callable[..., Result]


@pytest.fixture
def edits(control_plane: ControlPlane) -> list[dict[str, Any]]:
    """Edits a to d, live."""
    return [
        control_plane.client.post(
            "/edits", json={"id": name, "prompt": f"Who runs pier {name}?", "target_new": f"Ottilie {name}"}
        ).json()
        for name in "abcd"
    ]


@pytest.fixture
def report(edits: list[dict[str, Any]], tmp_path: Path) -> Path:
    """A report: a, b and c are absorbed, d needs the gateway."""
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(report_of(edits, {"d": Absorption.NEEDS_GATEWAY})))
    return path


@pytest.fixture
def retire(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Retire:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SERAC_URL", control_plane.url)

    def run(report: Path, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["edits", "retire", "--consolidated-in", str(report), *arguments])

    return run


def states(plane: ControlPlane) -> dict[str, str]:
    return {edit["id"]: edit["state"] for edit in plane.client.get("/edits").json()["edits"]}


def test_without_yes_nothing_changes_with_it_one_commit_does_and_a_rollback_takes_it_back(
    control_plane: ControlPlane, report: Path, retire: Retire
) -> None:
    dry = retire(report)
    assert (dry.exit_code, states(control_plane)) == (0, dict.fromkeys("abcd", "live"))
    assert "Who runs pier a?" in dry.stdout
    assert "3 would be retired, 0 kept; 1 more" in dry.stderr
    assert "repeat it with --yes" in dry.stderr

    done = retire(report, "--yes", "--author", "Ann")
    assert done.exit_code == 0, done.output
    assert states(control_plane) == {**dict.fromkeys("abc", "retired"), "d": "live"}
    last = control_plane.client.get("/log?limit=1000").json()["entries"][-3:]
    assert {(entry["action"], entry["author"]) for entry in last} == {("retire", "Ann")}
    assert {entry["reason"] for entry in last} == {
        f"consolidated by lora into gemma, report {json.loads(report.read_bytes())['digest'][:16]}"
    }
    again = retire(report, "--yes", "--json")
    assert (again.exit_code, json.loads(again.stdout)["retired"]) == (0, [])

    back = done.stderr.partition("serac rollback ")[2].split()[0]
    undone = CliRunner().invoke(app, ["rollback", back, "--yes"])
    assert undone.exit_code == 0, undone.output
    assert states(control_plane) == dict.fromkeys("abcd", "live")


def test_an_edit_that_was_changed_since_is_kept_and_the_exit_code_says_so(
    control_plane: ControlPlane, report: Path, retire: Retire
) -> None:
    control_plane.client.patch("/edits/b", json={"target_new": "Bea"}, headers=ANY)
    done = retire(report, "--yes")
    assert done.exit_code == 1
    assert "it is version 2 now, and the weights hold version 1" in done.stdout
    assert states(control_plane) == {"a": "retired", "b": "live", "c": "retired", "d": "live"}


def test_the_report_of_another_gateway_retires_nothing_though_ids_and_versions_are_the_same(
    control_plane: ControlPlane, edits: list[dict[str, Any]], tmp_path: Path, retire: Retire
) -> None:
    theirs = [{**edit, "created_at": "2026-01-02T03:04:05Z"} for edit in edits]
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(report_of(theirs, {})))
    done = retire(path, "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)["retired"]) == (1, [])
    assert {kept["code"] for kept in json.loads(done.stdout)["kept"]} == {"other_version"}
    assert states(control_plane) == dict.fromkeys("abcd", "live")


def test_the_report_of_another_namespace_and_a_changed_one_and_none_are_refused(
    control_plane: ControlPlane, report: Path, tmp_path: Path, retire: Retire
) -> None:
    other = retire(report, "--yes", "--namespace", "tenant")
    assert (other.exit_code, "of namespace 'default', not 'tenant'" in other.stderr) == (2, True)
    changed = tmp_path / "changed.json"
    changed.write_bytes(report.read_bytes().replace(b"needs_gateway", b"absorbed"))
    refused = retire(changed, "--yes")
    assert (refused.exit_code, "changed after it was written" in refused.stderr) == (2, True)
    missing = retire(tmp_path / "nowhere.json")
    assert (missing.exit_code, "nowhere.json" in missing.stderr) == (2, True)
    assert states(control_plane) == dict.fromkeys("abcd", "live")


def test_a_report_in_which_nothing_is_absorbed_retires_nothing(
    control_plane: ControlPlane, edits: list[dict[str, Any]], tmp_path: Path, retire: Retire
) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(report_of(edits, dict.fromkeys("abcd", Absorption.PARTIAL))))
    done = retire(path, "--yes")
    assert (done.exit_code, "of 4 edits of the report none is absorbed" in done.stderr) == (1, True)
    assert states(control_plane) == dict.fromkeys("abcd", "live")
