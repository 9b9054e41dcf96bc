"""What a configuration puts at risk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serac_gateway.config.model import GatewayConfig
from serac_gateway.doctor.configuration import config_findings
from serac_gateway.doctor.findings import Finding, Level, exit_code, failure, fine, warning

PEPPER = "p" * 32


def findings_of(
    tmp_path: Path, *, file: Path | None = None, environment: dict[str, str] | None = None, **sections: object
) -> list[Finding]:
    tmp_path.chmod(0o700)
    config = msgspec.convert({"data_dir": str(tmp_path), **sections}, GatewayConfig)
    return config_findings(config, file=file, environment=environment or {})


def test_the_defaults_put_nothing_at_risk(tmp_path: Path) -> None:
    """Loopback, the embedded store and the embedded model."""
    assert exit_code(findings_of(tmp_path)) == 0


def test_a_public_gateway_with_keys_behind_a_named_proxy_is_fine(tmp_path: Path) -> None:
    server = {"host": "0.0.0.0", "trusted_proxies": ["10.0.0.0/8"]}
    assert exit_code(findings_of(tmp_path, server=server)) == 0


@pytest.mark.parametrize(
    ("sections", "environment", "level", "words"),
    [
        ({"server": {"host": "0.0.0.0"}, "access": {"required": False}}, {}, Level.FAIL, "can change edits"),
        ({"server": {"host": "gateway.example.org"}}, {}, Level.WARN, "travel in clear"),
        ({"server": {"host": "::"}, "metrics": {"open": True}}, {}, Level.WARN, "can read /metrics"),
        ({"server": {"cors_origins": ["*"]}}, {}, Level.WARN, "every web page"),
        ({"server": {"allowed_hosts": ["*"]}}, {}, Level.WARN, "rebind"),
        ({"store": {"url": "redis://u:hush@10.1.2.3:6379/0"}}, {}, Level.WARN, "edits travel in clear"),
        ({"store": {"url": "redis+cluster://10.1.2.3,127.0.0.1"}}, {}, Level.WARN, "edits travel in clear"),
        (
            {"upstream": {"url": "http://10.1.2.3/v1"}},
            {"SERAC_UPSTREAM_API_KEY": "sk-hush"},
            Level.WARN,
            "SERAC_UPSTREAM_API_KEY travels in clear",
        ),
        ({}, {"SERAC_KEY_PEPPER": "hush"}, Level.FAIL, "needs 32 or more"),
        (
            {"access": {"required": True}, "store": {"url": "rediss://10.1.2.3/0"}},
            {},
            Level.WARN,
            "can forge API keys",
        ),
    ],
)
def test_each_risk_is_named_with_its_remedy_and_without_a_secret(
    tmp_path: Path, sections: dict[str, object], environment: dict[str, str], level: Level, words: str
) -> None:
    (bad,) = [
        finding
        for finding in findings_of(tmp_path, environment=environment, **sections)
        if words in finding.detail
    ]
    assert bad.level is level
    assert bad.remedy
    assert "hush" not in bad.detail + bad.remedy


@pytest.mark.parametrize(
    "sections",
    [
        {"store": {"url": "redis://user:pass@127.0.0.1:6379/0"}},
        {"store": {"url": "unix:///run/valkey.sock"}},
        {"store": {"url": "rediss+sentinel://10.1.2.3/name/0"}},
        {"upstream": {"url": "http://localhost:8000/v1"}},
    ],
)
def test_loopback_sockets_and_tls_are_no_risk(tmp_path: Path, sections: dict[str, object]) -> None:
    environment = {"SERAC_UPSTREAM_API_KEY": "k", "SERAC_KEY_PEPPER": PEPPER}
    assert exit_code(findings_of(tmp_path, environment=environment, **sections)) == 0


def test_files_that_others_can_change_or_read_are_named(tmp_path: Path) -> None:
    """The config file, the embedded store, a private key, and a file with a password in it."""
    file, key, store = tmp_path / "c.toml", tmp_path / "key.pem", tmp_path / "valkey"
    file.touch(0o600)
    key.touch(0o600)
    store.mkdir(0o700)
    sections = {"store": {"url": "rediss://u:pw@localhost/0", "cert_file": "c.pem", "key_file": str(key)}}
    assert exit_code(findings_of(tmp_path, file=file, **sections)) == 0
    for path in (file, key, store):
        path.chmod(path.stat().st_mode | 0o044)
    bad = [finding for finding in findings_of(tmp_path, file=file, **sections) if finding.level is Level.WARN]
    assert [repr(str(path)) in finding.detail for finding, path in zip(bad, (store, key, file), strict=True)]
    file.chmod(0o622)
    (worse,) = [
        finding for finding in findings_of(tmp_path, file=file, **sections) if finding.level is Level.FAIL
    ]
    assert (repr(str(file)) in worse.detail, worse.remedy) == (True, f"run `chmod go-w {file}`")


def test_the_exit_code_is_that_of_the_worst_finding() -> None:
    good, doubtful, bad = fine("a", "b"), warning("a", "b", "c"), failure("a", "b", "c")
    assert [exit_code(some) for some in ([], [good], [good, doubtful], [bad, doubtful])] == [0, 0, 1, 2]
