"""What others wrote controls no terminal: the commands show it escaped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.cli.terminal import stdout
from tests.control_plane import ControlPlane

HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\x9b31m \u202etxet \x7f\x08 a\0b"
PROMPT = f"Who is {HOSTILE}?"
HARMLESS = "👩‍👩‍👧‍👦 שלום e\u0301 [b]bold[/b] C:\\new"
CONTROLS = ("\x1b", "\x07", "\x9b", "\u202e", "\x7f", "\x08", "\0")


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def _gateway(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAC_URL", control_plane.url)
    monkeypatch.setenv("COLUMNS", "300")


def assert_escaped(result: Result) -> None:
    assert not [char for char in CONTROLS if char in result.output]
    assert "\\u001b" in result.output


def test_edits_with_control_characters_are_imported_and_shown_escaped(tmp_path: Path) -> None:
    edit = {"id": "odd", "prompt": PROMPT, "target_new": HOSTILE, "reason": HOSTILE}
    file = tmp_path / "edits.ndjson"
    file.write_text(json.dumps(edit) + "\n", "utf-8")
    imported = _run("edits", "import", str(file))
    assert imported.exit_code == 0, imported.output
    for arguments in (("edits", "show", "odd"), ("edits", "list"), ("explain", PROMPT.replace("\0", ""))):
        assert_escaped(_run(*arguments))
    whole = json.loads(_run("edits", "show", "odd", "--json").stdout)
    assert whole["target_new"] == HOSTILE, "JSON has it as it was written"


def test_what_is_refused_is_repeated_escaped() -> None:
    refused = _run("edits", "add", HOSTILE.replace("\0", "") * 200, "x")
    assert refused.exit_code == 1
    assert not [char for char in CONTROLS if char in refused.output]


def test_harmless_text_of_any_script_is_shown_as_it_is() -> None:
    edit_id = json.loads(_run("edits", "add", HARMLESS, HARMLESS, "--json").stdout)["id"]
    assert HARMLESS in _run("edits", "show", edit_id).output


def test_colours_of_our_own_still_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stdout().print("[red]error:[/] a\x1b[2Jb")
    written = capsys.readouterr().out
    assert "\x1b[31m" in written
    assert "\x1b[2J" not in written
