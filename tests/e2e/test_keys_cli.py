"""`serac keys …`, and a gateway that will not listen beyond loopback without a key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from serac_gateway.auth.api_keys import presented_key
from serac_gateway.cli.main import app
from serac_gateway.config.loading import load_config
from tests.e2e.gateway_process import GatewayProcess
from tests.locked_gateway import Locked, running_locked_gateway


def serac(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def in_process_of_its_own(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serac_gateway", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Locked]:
    """A gateway that demands keys; the environment names it and holds its admin's key."""
    with running_locked_gateway() as gateway:
        monkeypatch.setenv("SERAC_URL", gateway.url)
        monkeypatch.setenv("SERAC_API_KEY", gateway.admin)
        yield gateway


def test_a_key_is_made_used_listed_and_revoked_through_a_gateway(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = serac("keys", "create", "--role", "edit", "--name", "CI", "--namespace", "acme",
                 "--requests-per-minute", "60", "--expires", "90d")  # fmt: skip
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert presented_key(key.encode()) is not None
    assert "not shown again" in made.stderr

    monkeypatch.setenv("SERAC_API_KEY", key)
    added = serac("edits", "add", "Who is the mayor?", "Ilse", "--json")
    assert json.loads(added.stdout)["namespace"] == "acme"  # the key's own, which no option names
    refused = serac("keys", "list")
    assert (refused.exit_code, "'admin'" in refused.stderr) == (1, True)
    assert "acme" in serac("edits", "list", "--namespace", "umbra").stderr

    monkeypatch.setenv("SERAC_API_KEY", locked.admin)
    listed = json.loads(serac("keys", "list", "--json").stdout)
    assert [row["name"] for row in listed] == ["Root", "CI"]
    assert listed[1]["requests_per_minute"] == 60
    expires_in = datetime.fromisoformat(listed[1]["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < expires_in < timedelta(days=91)
    table = serac("keys", "list").stdout
    assert "CI" in table
    assert key.rpartition("-")[2] not in table
    assert serac("keys", "revoke", listed[1]["id"]).stdout == f"revoked {listed[1]['id']}\n"
    assert "revoked" in serac("keys", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--role", "edit", "--expires", "soon"), "'soon'"),
        (("create", "--role", "edit", "--expires", "2027-01-01"), "2027-01-01"),
        (("create", "--role", "edit", "--expires", "999999w"), "999999w"),
        (("revoke", "../keys"), "'../keys'"),
        (("create", "--role", "edit", "--offline", "--config", "/nowhere.toml"), "/nowhere.toml"),
    ],
)
def test_wrong_usage_is_named_with_exit_code_2(
    locked: Locked, arguments: tuple[str, ...], words: str
) -> None:
    result = serac("keys", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("bad", ["nonsense", "sk-serac-x", "a\r\nx-evil: 1", "caf\u00e9"])
def test_an_environment_key_that_is_none_is_refused_here_and_not_shown(
    locked: Locked, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("SERAC_API_KEY", bad)
    result = serac("edits", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "SERAC_API_KEY holds no API key and no token" in result.stderr
    assert bad not in result.stderr


def test_the_store_itself_gets_keys_while_no_gateway_runs(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path))
    made = in_process_of_its_own("keys", "create", "--role", "admin", "--json", *data)
    assert made.returncode == 0, made.stderr
    record = json.loads(made.stdout)
    assert presented_key(record["text"].encode()) is not None
    assert record["key"]["namespaces"] == ["*"]
    assert record["key"]["created_by"] == "serac keys --offline"
    listed = json.loads(in_process_of_its_own("keys", "list", "--json", *data).stdout)
    assert listed == [record["key"]]
    revoked = in_process_of_its_own("keys", "revoke", record["key"]["id"], *data)
    assert revoked.stdout == f"revoked {record['key']['id']}\n"
    unknown = in_process_of_its_own("keys", "revoke", "AAAAAAAAAAAA", *data)
    assert (unknown.returncode, "there is no API key" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("option", ["--offline", "--data-dir"])
def test_a_store_that_cannot_be_opened_is_reported_in_one_line(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    where = ("--data-dir", str(tmp_path / "file")) if option == "--data-dir" else (
        "--offline", "--redis", "redis://:secret@127.0.0.1:1/0")  # fmt: skip
    done = in_process_of_its_own("keys", "list", *where)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_gateway_that_demands_keys_does_not_start_without_one_and_names_the_remedy(tmp_path: Path) -> None:
    start = ("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))
    refused = in_process_of_its_own(*start)
    assert refused.returncode == 2
    last = refused.stderr.strip().splitlines()[-1]
    assert "serac keys create --offline --role admin" in last
    revoked = in_process_of_its_own("keys", "create", "--role", "admin", "--expires", "1m", "--json",
                                    "--data-dir", str(tmp_path))  # fmt: skip
    key_id = json.loads(revoked.stdout)["key"]["id"]
    in_process_of_its_own("keys", "revoke", key_id, "--data-dir", str(tmp_path))
    assert in_process_of_its_own(*start).returncode == 2  # a revoked one opens no door


def test_with_a_key_it_starts_on_every_address_and_lets_that_key_in_alone(
    tmp_path: Path, converted_models: Path
) -> None:
    made = in_process_of_its_own("keys", "create", "--role", "chat", "--data-dir", str(tmp_path))
    with GatewayProcess(tmp_path, converted_models, "--host", "0.0.0.0") as gateway:
        models = f"{gateway.url}/v1/models"
        assert httpx.get(models).status_code == 401
        key = made.stdout.strip()
        assert httpx.get(models, headers={"authorization": f"Bearer {key}"}).status_code == 200
        in_use = in_process_of_its_own("keys", "list", "--data-dir", str(tmp_path))
        assert (in_use.returncode, "in use by another gateway" in in_use.stderr) == (2, True)
        assert gateway.terminate() == 0
        assert key.rpartition("-")[2] not in "".join(gateway.errors)


@pytest.mark.parametrize(
    ("host", "required", "demanded"),
    [
        ("127.0.0.1", None, False),
        ("127.8.8.8", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("", None, True),
        ("10.0.0.7", None, True),
        ("gateway.internal", None, True),
        ("127.0.0.1.evil.example", None, True),
        ("127.0.0.1", True, True),
        ("0.0.0.0", False, False),
    ],
)
def test_keys_are_demanded_beyond_loopback_unless_the_config_says_otherwise(
    host: str, required: bool | None, demanded: bool
) -> None:
    overrides = {"server": {"host": host}, "access": {"required": required}}
    assert load_config(environment={}, overrides=overrides).demands_keys is demanded
