"""`serac proposals`, and what the commands that write print where others must agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from tests.http.four_eyes import People, running_people


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    with running_people() as running:
        monkeypatch.setenv("SERAC_URL", running.locked.url)
        monkeypatch.setenv("SERAC_NAMESPACE", "default")
        monkeypatch.setenv("COLUMNS", "300")
        yield running


def run(key: str, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, env={"SERAC_API_KEY": key})
    assert result.exit_code == code, result.output
    return result


def proposed(result: Result) -> str:
    """The id in what a write printed."""
    match = re.search(r"proposed (pr_[0-9a-f]{22}): nothing is changed until 2 others agree", result.stdout)
    assert match, result.stdout
    return match[1]


def test_a_proposal_goes_its_way_by_commands_alone(people: People) -> None:
    """Made, listed, shown, agreed to by two; then the edit is there, and the log names them."""
    proposal_id = proposed(
        run(people.ann, "edits", "add", "Who runs Marrowby?", "Ottilie [b]", "--id", "harbour", "--verify")
    )
    assert proposal_id in run(people.bo, "proposals", "list").stdout
    details = run(people.bo, "proposals", "show", proposal_id).stdout
    assert "Ottilie [b]" in details
    assert "Ann Lee (key" in details
    assert "paraphrases captured" in details
    refused = run(people.ann, "proposals", "approve", proposal_id, "--reason", "Mine", code=1)
    assert "approve" in refused.output
    assert "1 of 2 agree" in run(people.bo, "proposals", "approve", proposal_id, "--reason", "Checked").stdout
    done = run(people.cy, "proposals", "approve", proposal_id, "--reason", "Checked [i]")
    assert f"{proposal_id} is accepted" in done.stdout
    assert "Checked [i]" in run(people.bo, "proposals", "show", proposal_id).stdout
    assert "approved by Bo (key" in run(people.ann, "log", "list").stdout
    assert "harbour" in run(people.ann, "edits", "list").stdout
    assert json.loads(run(people.bo, "proposals", "list", "--json").stdout) == []
    (listed,) = json.loads(run(people.bo, "proposals", "list", "--all", "--json").stdout)
    assert listed["state"] == "accepted"


def test_every_command_that_writes_prints_the_proposal(people: People, tmp_path: Path) -> None:
    """And changes nothing."""
    people.accepted(id="harbour")
    before = people.log()
    lines = tmp_path / "edits.ndjson"
    lines.write_text('{"prompt": "Who is a?", "target_new": "A"}\n', "utf-8")
    for arguments in (
        ("edits", "change", "harbour", "--target", "Ilse"),
        ("edits", "remove", "harbour"),
        ("edits", "rollback", "harbour", "1"),
        ("edits", "set-state", "harbour", "shadow", "--reason", "Trial"),
        ("rollback", "0-0", "--yes"),
    ):
        proposal_id = proposed(run(people.ann, *arguments))
        assert "withdrawn" in run(people.ann, "proposals", "withdraw", proposal_id, "--reason", "No").stdout
    imported = run(people.ann, "edits", "import", str(lines))
    assert "0 imported, 1 proposed, 0 refused" in imported.stdout
    proposal_id = proposed(imported)
    assert "rejected" in run(people.bo, "proposals", "reject", proposal_id, "--reason", "No").stdout
    outcomes = run(people.ann, "edits", "import", str(lines), "--json").stdout.splitlines()
    assert [sorted(json.loads(line))[-1] for line in outcomes] == ["version", "proposal"]
    assert people.log() == before


def test_an_id_is_printed_whole_on_a_narrow_terminal(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a proposal and of an entry of the log: they are copied into the next command."""
    monkeypatch.setenv("COLUMNS", "80")
    proposal = people.propose(author="Somebody of a long name", reason="A reason of several words")
    assert proposal["id"] in run(people.bo, "proposals", "list").stdout
    people.accepted(id="harbour", reason="A reason of several words")
    (entry,) = people.log()
    assert entry["log_id"] in run(people.ann, "log", "list").stdout


def test_what_is_no_id_of_a_proposal_is_wrong_usage(people: People) -> None:
    """Before the gateway is called."""
    for verb in ("show", "approve", "reject", "withdraw"):
        more = () if verb == "show" else ("--reason", "R")
        assert "proposals list" in run(people.bo, "proposals", verb, "harbour", *more, code=2).output
