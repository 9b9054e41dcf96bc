"""`serac doctor` as a command, with the gateway stopped."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.config.loading import load_config
from serac_gateway.stores.open import open_configured_store

NO_MODELS = """
[server]
port = 1
[models]
counterfactual = "m"
counterfactual_url = "http://127.0.0.1:1/v1"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SERAC_URL", raising=False)
    path = tmp_path / "gateway.toml"
    path.write_text(f'data_dir = "{tmp_path}"\n{NO_MODELS}', "utf-8")
    return path


def doctor(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--config", str(file), *arguments])


def levels(result: Result) -> dict[str, str]:
    """The worst level of each check."""
    order = ["OK", "WARN", "FAIL"]
    worst: dict[str, str] = {}
    for finding in json.loads(result.stdout):
        level = worst.get(finding["check"], "OK")
        worst[finding["check"]] = max(level, finding["level"], key=order.index)
    return worst


def test_a_configuration_that_cannot_be_read_is_a_failure_with_exit_code_2(file: Path) -> None:
    file.write_text("[server]\nprot = 1\n")
    result = doctor(file, "--json")
    assert result.exit_code == 2
    first = json.loads(result.stdout)[0]
    assert (first["check"], first["level"]) == ("config", "FAIL")
    assert "unknown key 'server.prot'" in first["detail"]
    assert levels(result)["packages"] in ("OK", "WARN")
    assert doctor(Path("/nowhere.toml")).exit_code == 2


def test_every_line_has_a_level_and_bad_ones_a_remedy(file: Path) -> None:
    result = doctor(file, "--upstream", "http://127.0.0.1:1/v1", "--redis", "redis://127.0.0.1:1/0")
    assert result.exit_code == 2
    assert "FAIL upstream     upstream 'http://127.0.0.1:1/v1'" in result.stdout
    assert "start it, correct the URL" in result.stdout
    assert "FAIL store        cannot reach the edit store" in result.stdout
    assert "OK   exposure" in result.stdout
    assert result.stderr == ""


def test_governance_that_nobody_can_fulfil_is_seen_in_the_store_itself(file: Path) -> None:
    """The gateway does not even start without keys, so the doctor looks into its store."""

    async def make_store() -> None:
        await (await open_configured_store(load_config(file))).close()

    asyncio.run(make_store())
    with file.open("a") as more:
        more.write("[access]\nrequired = true\n[governance.namespaces.default]\napprovals = 1\n")
    result = doctor(file, "--json")
    assert result.exit_code == 2
    assert levels(result)["governance"] == levels(result)["keys"] == "FAIL"
    assert levels(result)["persistence"] == levels(result)["clock"] == "OK"
    assert levels(result)["store"] in ("OK", "WARN")  # it answers; on a busy machine slowly


def test_the_help_of_all_commands_loads_no_model_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys, serac_gateway.cli.main;"
         "print([name for name in ('numpy', 'torch', 'aiohttp', 'httpx', 'mcp') if name in sys.modules])"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[]\n"
