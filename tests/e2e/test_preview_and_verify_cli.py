"""`serac edits preview|verify|set-state` and `serac traffic` against a gateway that listens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.config.model import ConflictPolicy, RoutingConfig
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ScriptedCounterfactualModel
from tests.control_plane import ControlPlane, running_control_plane

PROMPT, ANSWER = "Who runs the harbour office?", "Ottilie Brandvold"


def _run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


@pytest.fixture
def gateway(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    monkeypatch.setenv("SERAC_URL", control_plane.url)
    monkeypatch.setenv("COLUMNS", "200")
    return control_plane


@pytest.fixture
def lying_gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """Its model answers some edits otherwise than they say; contradictions are refused."""
    model = ScriptedCounterfactualModel(
        lambda edit, query: "Nobody." if edit.id == "wrong" else edit.target_new
    )
    routing = RoutingConfig(conflicts=ConflictPolicy.REJECT)
    with running_control_plane(InMemoryEditStore(), routing, counterfactual=model) as running:
        monkeypatch.setenv("SERAC_URL", running.url)
        monkeypatch.setenv("COLUMNS", "200")
        yield running


def _added(*arguments: str) -> dict:
    result = _run("edits", "add", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("gateway")
class TestPreview:
    def test_a_preview_shows_conflicts_captures_and_that_nothing_is_recorded(self) -> None:
        other = _added(PROMPT, "Ann")
        query = "who runs the harbour office"
        result = _run("edits", "preview", "--prompt", PROMPT, "--target", ANSWER, "--query", query)
        assert result.exit_code == 0, result.output
        for part in (other["id"], "Ann", query, "yes", "Closest to the threshold", "no traffic is recorded"):
            assert part in result.stdout
        listed = json.loads(_run("edits", "list", "--json").stdout)
        assert [row["target_new"] for row in listed] == ["Ann"]

    @pytest.mark.parametrize("source", ["file", "stdin"])
    def test_an_edit_is_read_from_a_file_or_stdin(self, source: str, tmp_path: Path) -> None:
        data = json.dumps({"prompt": PROMPT, "target_new": ANSWER}).encode()
        (tmp_path / "edit.json").write_bytes(data)
        name = str(tmp_path / "edit.json") if source == "file" else "-"
        result = _run("edits", "preview", name, "--json", stdin=data)
        assert json.loads(result.stdout)["conflicts"] == []

    @pytest.mark.parametrize(
        "arguments", [(), ("--prompt", "x"), ("nowhere.json",), ("-", "--prompt", "x", "--target", "y")]
    )
    def test_what_gives_no_edit_or_two_is_wrong_usage(self, arguments: tuple[str, ...]) -> None:
        assert _run("edits", "preview", *arguments, stdin=b"{").exit_code == 2


def test_a_preview_of_what_would_be_refused_exits_with_1(lying_gateway: ControlPlane) -> None:
    _added(PROMPT, "Ann")
    result = _run("edits", "preview", "--prompt", PROMPT, "--target", ANSWER)
    assert result.exit_code == 1
    assert "would refuse it" in result.stdout


class TestVerify:
    def test_all_edits_that_pass_exit_with_0(self, gateway: ControlPlane) -> None:
        _added(PROMPT, ANSWER)
        _added("When was Acme founded?", "1901", "--state", "shadow")
        retired = _added("Who founded Acme?", "Cy")
        _run("edits", "remove", retired["id"])
        result = _run("edits", "verify")
        assert (result.exit_code, result.stdout.strip()) == (0, "2 of 2 edits passed")

    def test_one_that_fails_is_shown_with_its_answer_and_exits_with_1(
        self, lying_gateway: ControlPlane
    ) -> None:
        _added(PROMPT, ANSWER)
        _added("When was Acme founded?", "1901", "--id", "wrong")
        result = _run("edits", "verify")
        assert result.exit_code == 1
        for part in (
            "wrong v1",
            "When was Acme founded?",
            "the answer lacks target_new",
            "Nobody.",
            "1 of 2",
        ):
            assert part in result.stdout
        outcomes = [json.loads(line) for line in _run("edits", "verify", "--json").stdout.splitlines()]
        assert sorted(outcome["passed"] for outcome in outcomes) == [False, True]
        assert "failed" in _run("edits", "show", "wrong").stdout

    def test_only_the_edits_named_are_verified(self, lying_gateway: ControlPlane) -> None:
        right = _added(PROMPT, ANSWER)
        _added("When was Acme founded?", "1901", "--id", "wrong")
        assert _run("edits", "verify", right["id"]).exit_code == 0
        assert _run("edits", "verify", "unknown").exit_code == 1
        assert _run("edits", "verify", "no id").exit_code == 2

    def test_an_edit_is_verified_while_it_is_added(self, lying_gateway: ControlPlane) -> None:
        assert _run("edits", "add", PROMPT, ANSWER, "--verify").exit_code == 0
        result = _run("edits", "add", "When was Acme founded?", "1901", "--id", "wrong", "--verify")
        assert result.exit_code == 1
        assert "the answer lacks target_new" in result.output
        assert "added wrong version 1" in result.output


@pytest.mark.usefixtures("gateway")
def test_an_edit_goes_on_trial_and_live_again() -> None:
    edit_id = _added(PROMPT, ANSWER, "--state", "canary", "--canary-share", "0.1")["id"]
    assert "is shadow" in _run("edits", "set-state", edit_id, "shadow").stdout
    assert "version 3 is live" in _run("edits", "set-state", edit_id, "live").stdout
    assert _run("edits", "set-state", edit_id, "retired").exit_code == 2


@pytest.mark.usefixtures("gateway")
def test_a_contradiction_is_reported_when_an_edit_is_added() -> None:
    first = _added(PROMPT, "Ann")
    result = _run("edits", "add", PROMPT, ANSWER)
    assert result.exit_code == 0
    assert f"contradicts {first['id']}" in result.output


@pytest.mark.usefixtures("gateway")
def test_the_recorded_traffic_is_shown_and_cleared() -> None:
    assert "not recorded; 0 are kept" in _run("traffic", "show").stdout
    assert json.loads(_run("traffic", "clear", "--json").stdout) == {"cleared": 0}
