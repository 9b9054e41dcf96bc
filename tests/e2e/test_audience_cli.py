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
