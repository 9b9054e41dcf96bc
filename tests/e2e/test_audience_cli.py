"""`--audience` and `--label` of the commands, against a gateway that maps labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.config.model import AudienceSource, RoutingConfig
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import running_control_plane
from tests.locked_gateway import running_locked_gateway

QUESTION = "How long is the cooling-off period?"
SOURCES = {"region": AudienceSource(header="x-region"), "tenant": AudienceSource(key=True)}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def _gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with running_control_plane(InMemoryEditStore(), RoutingConfig(audience_from=SOURCES)) as control_plane:
        monkeypatch.setenv("SERAC_URL", control_plane.url)
        monkeypatch.setenv("COLUMNS", "200")
        yield


def added(answer: str, *arguments: str) -> dict[str, object]:
    result = run("edits", "add", QUESTION, answer, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_an_audience_is_added_shown_listed_changed_and_cleared() -> None:
    edit = added("14 days", "--audience", "region=EU, uk", "--audience", "tenant=acme")
    added("7 days")
    assert edit["audience"] == {"region": ["eu", "uk"], "tenant": ["acme"]}
    assert "region=eu,uk tenant=acme" in run("edits", "show", str(edit["id"])).stdout
    listed = json.loads(run("edits", "list", "--audience", "region=uk", "--json").stdout)
    assert [each["id"] for each in listed] == [edit["id"]]
    assert "region=eu,uk tenant=acme" in run("edits", "list").stdout
    changed = run("edits", "change", str(edit["id"]), "--audience", "region=us", "--json")
    assert json.loads(changed.stdout)["audience"] == {"region": ["us"]}
    cleared = run("edits", "change", str(edit["id"]), "--clear", "audience", "--json")
    assert json.loads(cleared.stdout)["audience"] == {}


def test_what_is_no_audience_ends_the_command_with_how_to_write_one() -> None:
    for option in ("region", "region=", "=eu", "region=e u", "region=" + "e" * 65):
        refused = run("edits", "add", QUESTION, "14 days", "--audience", option)
        assert refused.exit_code == 2, option
        assert "is not allowed; give" in refused.output.replace("\n", " ")
    unknown = run("edits", "add", QUESTION, "14 days", "--audience", "plan=gold")
    assert unknown.exit_code == 1
    assert "are: region, tenant" in unknown.output.replace("\n", " ")


def test_an_explanation_takes_labels_and_names_what_holds_elsewhere() -> None:
    edit = added("14 days", "--audience", "region=eu")
    inside = json.loads(run("explain", QUESTION, "--label", "region=eu", "--json").stdout)
    assert inside["edit_id"] == edit["id"]
    outside = run("explain", QUESTION, "--label", "region=us")
    assert f"in scope of {edit['id']}, which holds for region=eu alone" in outside.stdout
    assert run("explain", QUESTION, "--label", "region=eu,us").exit_code == 2


def test_a_preview_takes_audience_and_labels() -> None:
    options = ("--prompt", QUESTION, "--target", "14 days", "--audience", "region=eu", "--query", QUESTION)
    captured = [
        json.loads(run("edits", "preview", *options, *labels, "--json").stdout)["queries"][0]["captured"]
        for labels in ((), ("--label", "region=us"))
    ]
    assert captured == [True, False]


def test_an_export_is_imported_with_its_audiences(tmp_path: Path) -> None:
    added("14 days", "--audience", "region=eu,uk", "--audience", "tenant=acme")
    file = tmp_path / "edits.ndjson"
    assert run("edits", "export", "-o", str(file)).exit_code == 0
    imported = run("edits", "import", str(file), "--namespace", "copy")
    assert "1 imported" in imported.output
    (copy,) = json.loads(run("edits", "list", "--namespace", "copy", "--json").stdout)
    assert copy["audience"] == {"region": ["eu", "uk"], "tenant": ["acme"]}


def test_a_key_is_made_with_labels() -> None:
    made = run("keys", "create", "--role", "chat", "--label", "tenant=ACME", "--json")
    assert json.loads(made.stdout)["key"]["labels"] == {"tenant": "acme"}
    assert "tenant=acme" in run("keys", "list").stdout
    assert run("keys", "create", "--role", "chat", "--label", "tenant").exit_code == 2


def test_a_question_is_sent_with_the_headers_and_the_user_that_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So also where a label is required, and to see who is in a canary."""
    source = AudienceSource(header="x-region", values=("eu", "us"), required=True)
    with running_locked_gateway(routing=RoutingConfig(audience_from={"region": source})) as locked:
        monkeypatch.setenv("SERAC_URL", locked.url)
        monkeypatch.setenv("SERAC_API_KEY", locked.admin)
        added("14 days", "--audience", "region=eu", "--state", "canary", "--canary-share", "0.5", "--id", "c")

        def answered(user: str, region: str) -> tuple[str, str]:
            sent = ("--user", user, "--header", f"x-region: {region}", "--header", "x-request-id:mine")
            result = run("ask", QUESTION, *sent, "--json")
            assert result.exit_code == 0, result.output
            reply = json.loads(result.stdout)
            assert reply["request_id"] == "mine"
            return reply["route"], reply["reason"]

        users = [f"user-{number}" for number in range(20)]
        in_canary = {user for user in users if answered(user, "eu")[0] == "counterfactual"}
        assert 0 < len(in_canary) < 20
        for user in users[:6]:
            decision = json.loads(
                run("explain", QUESTION, "--user", user, "--label", "region=eu", "--json").stdout
            )
            assert decision["in_scope"] == (user in in_canary)
        assert answered(min(in_canary), "us")[0] == "base"
        without = run("ask", QUESTION)
        assert (without.exit_code, "x-region" in without.output) == (1, True)


def test_what_is_no_header_ends_the_command() -> None:
    for text in ("x-region", "x-region:", ": eu", "x region: eu", "x-region: e\nu", "x-region: ü"):
        refused = run("ask", QUESTION, "--header", text)
        assert (refused.exit_code, "is no header" in refused.output) == (2, True), text
