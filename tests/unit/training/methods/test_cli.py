"""`serac-train evaluate answers --method` and `serac-train report`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.tiny_language_models import saved_tiny_gemma, saved_tiny_llama
from training.cli import app

METHODS = "unedited,in-context"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of zsRE, two models, and a run of two methods on one of them."""
    folder = tmp_path_factory.mktemp("methods")
    rows = [
        {
            "subject": place, "src": f"Who built {place}?", "rephrase": f"Who was it that built {place}?",
            "alt": "Ben", "answers": ["Ana"], "loc": "nq question: how deep is a lake", "loc_ans": "12 m",
            "portability": {"New Question": f"Where was {place}'s builder born?", "New Answer": "Deep"},
        }
        for place in ("Oru", "Ketti", "Moss")
    ]  # fmt: skip
    (folder / "zsre.json").write_text(json.dumps(rows), "utf-8")
    saved_tiny_gemma(folder / "gemma")
    saved_tiny_llama(folder / "llama")
    result = CliRunner().invoke(app, measured(folder, METHODS, "gemma", "runs", "--json"))
    assert result.exit_code == 0, result.output
    (folder / "summary.json").write_text(result.stdout, "utf-8")
    return folder


def measured(folder: Path, methods: str, model: str, out: str, *options: str) -> list[str]:
    return [
        "evaluate", "answers", "--method", methods, "--benchmark", "zsre",
        "--path", str(folder / "zsre.json"), "--model", str(folder / model), "--edits", "2", "--ask", "2",
        "--max-tokens", "3", "--open-texts", "1", "--out", str(folder / out), *options,
    ]  # fmt: skip


def run_folders(folder: Path, out: str) -> list[str]:
    return sorted(str(path.parent) for path in (folder / out).glob("*/run.json"))


def test_several_methods_are_measured_on_a_model_of_ones_own(folder: Path) -> None:
    """The unedited model keeps its answers; the numbers say how many cases and probes they rest on."""
    compared = json.loads((folder / "summary.json").read_text("utf-8"))
    unedited, in_context = compared["rows"]
    assert (unedited["method"], in_context["method"]) == ("unedited", "in-context")
    assert unedited["summary"]["cases"] == 2
    assert unedited["summary"]["locality"] == {"value": 1.0, "low": 1.0, "high": 1.0, "probes": 2, "cases": 2}
    assert unedited["summary"]["product"]["value"] == 0.0
    assert in_context["summary"]["costs"]["bytes_an_edit"] > 0
    assert compared["protocols"]["zsre"]["model"] == str(folder / "gemma")


def test_methods_measured_one_after_another_lie_side_by_side(folder: Path) -> None:
    """--out gets a folder of each method, whether they were named together or alone."""
    for method in METHODS.split(","):
        assert CliRunner().invoke(app, measured(folder, method, "gemma", "alone")).exit_code == 0
    names = [[Path(run).name for run in run_folders(folder, out)] for out in ("runs", "alone")]
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_the_report_is_one_page_that_needs_nothing_else(folder: Path) -> None:
    """Markdown and HTML with the plots inside, and what went wrong."""
    result = CliRunner().invoke(app, ["report", *run_folders(folder, "runs"), "--out", str(folder / "page")])
    assert result.exit_code == 0, result.output
    page = (folder / "page" / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "http://" not in page
    assert "https://" not in page
    for text in ("Costs", "in-context", "Who built", "bootstrap intervals", "quality against the time"):
        assert text in page, text
    markdown = (folder / "page" / "report.md").read_text("utf-8")
    assert "| zsre | 2 | unedited | 2 |" in markdown
    assert "## Failures" in markdown


def test_runs_that_were_measured_differently_stand_in_no_table_together(folder: Path) -> None:
    """The error names both folders and what differs."""
    longer = measured(folder, "unedited", "gemma", "longer", "--max-tokens", "4")
    assert CliRunner().invoke(app, longer).exit_code == 0
    other = measured(folder, "unedited", "llama", "other")
    assert CliRunner().invoke(app, other).exit_code == 0
    first = run_folders(folder, "runs")[0]
    for out, difference in (("longer", "max_tokens is '4' and '3'"), ("other", "model is ")):
        result = CliRunner().invoke(app, ["report", first, *run_folders(folder, out)])
        assert result.exit_code == 2
        assert difference in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--method": "magic"}, "no editing method is named 'magic'; choose one of unedited, in-context"),
        ({"--model": "/nowhere"}, "--model '/nowhere' has no config.json"),
        ({"--benchmark": "magic"}, "--path goes with"),
        ({"--url": "http://127.0.0.1:9"}, "are of a gateway's answers"),
    ],
)
def test_what_is_wrong_is_a_line_and_exit_code_2(folder: Path, changes: dict[str, str], message: str) -> None:
    """Names and folders are named, with what is allowed."""
    arguments = measured(folder, "unedited", "gemma", "wrong")
    for option, value in changes.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
        else:
            arguments += [option, value]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([{"src": "Who?"}]).encode(), "row 0 is not in the form of zsRE"),
        (json.dumps([{"src": "Who?"}]).encode("utf-16"), "is not in UTF-8 (byte 0xff at 0)"),
        (b'{"src": "Who?"\n', "line 1 is"),
        (b"", "holds no rows"),
    ],
)
def test_a_file_in_another_form_is_named_with_what_is_wrong(
    folder: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    """Missing fields, another encoding, no JSON, nothing at all."""
    (tmp_path / "rows.jsonl").write_bytes(content)
    arguments = measured(folder, "unedited", "gemma", "wrong")
    arguments[arguments.index("--path") + 1] = str(tmp_path / "rows.jsonl")
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert message in result.stderr
    assert "rows.jsonl" in result.stderr


def test_a_run_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    """A folder without a run says so."""
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run" in result.stderr
