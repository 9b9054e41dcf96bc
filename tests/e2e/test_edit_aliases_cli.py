"""`serac edits add --alias`, `serac edits change`, and the warnings that both print."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from tests.control_plane import ControlPlane

PROMPT = "Who runs the harbour of Marrowby today?"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def _gateway(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAC_URL", control_plane.url)
    monkeypatch.setenv("COLUMNS", "200")


def _added(*arguments: str) -> str:
    result = _run("edits", "add", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["id"])


def _aliases(edit_id: str) -> list[str]:
    return list(json.loads(_run("edits", "show", edit_id, "--json").stdout)["aliases"])


def test_aliases_are_added_replaced_and_cleared() -> None:
    edit_id = _added(PROMPT, "Ada", "--subject", "Marrowby", "--alias", "Maaseik", "--alias", "マロウビー")
    assert _aliases(edit_id) == ["Maaseik", "マロウビー"]
    changed = _run("edits", "change", edit_id, "--alias", "Marrow", "--target", "Bea", "--reason", "news")
    assert changed.exit_code == 0, changed.output
    assert f"changed {edit_id}, now version 2" in changed.stdout
    assert _aliases(edit_id) == ["Marrow"]
    assert "Bea" in _run("edits", "show", edit_id).stdout
    assert _run("edits", "change", edit_id, "--clear", "aliases").exit_code == 0
    assert _aliases(edit_id) == []


def test_a_change_of_nothing_or_of_a_field_two_ways_is_refused() -> None:
    edit_id = _added(PROMPT, "Ada")
    assert _run("edits", "change", edit_id).exit_code == 1
    contradiction = _run("edits", "change", edit_id, "--subject", "Marrowby", "--clear", "subject")
    assert contradiction.exit_code == 2
    assert "contradicts" in contradiction.output


def test_aliases_without_a_subject_are_refused_with_the_remedy() -> None:
    refused = _run("edits", "add", PROMPT, "Ada", "--alias", "Maaseik")
    assert refused.exit_code == 1
    assert "give subject" in refused.output


def test_an_edit_that_hardly_ever_fires_is_printed_with_the_remedy() -> None:
    added = _run("edits", "add", "Our window is now 30 days for all orders.", "30 days", "--id", "e")
    assert added.exit_code == 0
    assert "warning" in added.output
    assert "add paraphrases" in added.output
    assert "add paraphrases" in _run("edits", "change", "e", "--reason", "as it is").output


def test_a_preview_shows_how_the_prompt_is_read_and_what_is_searched() -> None:
    printed = _run("edits", "preview", "--prompt", "Elsevier is in Seattle.", "--target", "Seattle",
                 "--subject", "Elsevier", "--alias", "エルゼビア").stdout  # fmt: skip
    for part in ("read as statement", "Elsevier is in …", "エルゼビア is in Seattle.", "Where is Elsevier?"):
        assert part in printed
