"""`serac feedback` against a gateway that listens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from tests.control_plane import running_whole_gateway

PROMPT, ANSWER = "Who runs the harbour office?", "Ottilie Brandvold"


@pytest.fixture
def request_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A request that an edit answered."""
    with running_whole_gateway(lambda prompt: " I do not know.") as url:
        monkeypatch.setenv("SERAC_URL", url)
        assert _run("edits", "add", PROMPT, ANSWER).exit_code == 0
        reply = httpx.post(
            f"{url}/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": PROMPT}]},
        )
        yield reply.headers["x-request-id"]


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_report_says_what_was_decided_and_is_exported_both_ways(request_id: str, tmp_path: Path) -> None:
    result = _run("feedback", request_id, "should_not_have_fired", "--query", PROMPT)
    assert result.exit_code == 0, result.output
    assert "reported: route counterfactual, edit ed_" in result.stdout
    assert _run("feedback", request_id, "right", "--query", PROMPT, "--json").exit_code == 0
    exported = [json.loads(line) for line in _run("feedback", "export").stdout.splitlines()]
    assert [report["verdict"] for report in exported] == ["should_not_have_fired", "right"]
    file = tmp_path / "traffic.jsonl"
    assert _run("feedback", "export", "--training", "--output", str(file)).exit_code == 0
    assert json.loads(file.read_text("utf-8"))["query"] == PROMPT


def test_a_request_that_is_not_known_ends_with_code_1_and_a_wrong_verdict_with_2(request_id: str) -> None:
    refused = _run("feedback", "req_unknown", "right")
    assert (refused.exit_code, "not among the latest" in refused.stderr) == (1, True)
    assert _run("feedback", request_id, "meh").exit_code == 2


def test_reports_are_cleared(request_id: str) -> None:
    _run("feedback", request_id, "right")
    assert "1 reports deleted" in _run("feedback", "clear").stdout
    assert _run("feedback", "export").stdout == ""
