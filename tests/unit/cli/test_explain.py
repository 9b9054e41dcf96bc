"""Which messages `serac explain` decides on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serac_gateway.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "body", "problem"),
    [
        ((), None, "either a question or --request"),
        (("Who?",), "{}", "either a question or --request"),
        (("--system", "x"), '{"messages": []}', "--system goes with a question"),
        ((), "{}", "no chat request in JSON"),
        ((), "Who?", "no chat request in JSON"),
    ],
)
def test_what_names_no_request_is_refused(
    arguments: tuple[str, ...], body: str | None, problem: str, tmp_path: Path
) -> None:
    if body is not None:
        (tmp_path / "request.json").write_text(body, "utf-8")
        arguments = (*arguments, "--request", str(tmp_path / "request.json"))
    refused = CliRunner().invoke(app, ["explain", *arguments])
    assert refused.exit_code == 2
    assert problem in refused.stderr.replace("\n", " ")
