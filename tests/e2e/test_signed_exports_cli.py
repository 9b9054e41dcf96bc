"""Exports that are signed, and what `serac verify-export` says of files that are not what was exported."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from tests.control_plane import ControlPlane

UNREACHABLE = "http://127.0.0.1:9"


def serac(*arguments: str | Path, code: int = 0, url: str = UNREACHABLE) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"SERAC_URL": url})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def key(tmp_path: Path) -> Path:
    serac("signing-key", "create", tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def exported(control_plane: ControlPlane, key: Path, tmp_path: Path) -> Path:
    """Four edits, signed; the gateway is not needed any more."""
    for name in ("a", "b", "c", "d"):
        control_plane.client.post(
            "/edits",
            json={"id": name, "prompt": f"Who is {name}?", "target_new": "Ada", "legal_basis": "§ 5"},
        )
    file = tmp_path / "edits.ndjson"
    serac("edits", "export", "-o", file, "--sign", key, url=control_plane.url)
    return file


def verify(file: Path, key: Path, *more: str | Path, code: int = 0) -> Result:
    return serac("verify-export", file, "--public-key", f"{key}.pub", *more, code=code)


def test_a_signed_export_is_verified_without_a_gateway_and_can_be_imported(
    control_plane: ControlPlane, exported: Path, key: Path
) -> None:
    """The manifest says what, how much, of whom, when, by which key; the export is as without a signature."""
    result = json.loads(verify(exported, key, "--json").stdout)
    manifest = result["manifest"]
    assert (result["valid"], manifest["kind"], manifest["namespace"]) == (True, "edits", "default")
    assert (manifest["lines"], manifest["bytes"]) == (4, exported.stat().st_size)
    assert exported.read_text("utf-8") == serac("edits", "export", url=control_plane.url).stdout
    assert f"signed with key {manifest['key_id']}" in verify(exported, key).stdout
    assert "4 lines of edits of namespace default" in verify(exported, key).stdout
    imported = serac("edits", "import", exported, "--namespace", "elsewhere", url=control_plane.url)
    assert "4 imported" in imported.stdout
    exported.with_name("edits.ndjson.sig").rename(exported.with_name("moved"))
    verify(exported, key, "--signature", exported.with_name("moved"))


def test_whatever_is_changed_in_an_export_is_detected(exported: Path, key: Path) -> None:
    """Lines and their order count; the message says what is wrong. Every bit: see test_attestation.py."""
    whole = exported.read_bytes()
    lines = whole.splitlines(keepends=True)

    def problem(content: bytes) -> str:
        exported.write_bytes(content)
        return str(json.loads(verify(exported, key, "--json", code=1).stdout)["problem"])

    assert "another order" in problem(b"".join([lines[1], lines[0], *lines[2:]]))
    assert "1 are missing" in problem(b"".join(lines[1:]))
    assert "1 are missing" in problem(b"".join(lines[:-1]))
    assert "1 are missing" in problem(whole[:-1])
    assert "1 are too many" in problem(whole + lines[0])
    assert "changed or cut" in problem(whole.replace(b"Ada", b"Adam", 1))
    assert "4 are missing" in problem(b"")
    assert "changed or cut" in problem(whole + b" ")
    assert "is not what was exported" in verify(exported, key, code=1).output
    exported.write_bytes(whole)
    verify(exported, key)


def test_whatever_is_changed_in_the_manifest_or_signature_is_detected(exported: Path, key: Path) -> None:
    """Also where it comes to the same, such as a space or another order of members."""
    signature = exported.with_name("edits.ndjson.sig")
    whole = signature.read_bytes()
    line, rest = whole.splitlines()
    manifest = json.loads(line)

    def problem(content: bytes) -> str:
        signature.write_bytes(content)
        return str(json.loads(verify(exported, key, "--json", code=1).stdout)["problem"])

    for name, value in (("namespace", "other"), ("lines", 3), ("exported_at", "2020-01-01T00:00:00Z")):
        assert "not the key's" in problem(json.dumps(manifest | {name: value}).encode() + b"\n" + rest)
    assert "not the key's" in problem(line.replace(b",", b", ", 1) + b"\n" + rest)
    assert "serac-export-9" in problem(line.replace(b"serac-export-1", b"serac-export-9") + b"\n" + rest)
    for nothing in (b"", line, line + b"\n{}", b"\xff", b"[]\n[]", whole + rest, whole * 400, b"[" * 60_000):
        assert "holds no manifest with its signature" in problem(nothing)
    signature.unlink()
    assert "No such file" in verify(exported, key, code=2).output


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("--namespace", "other", "default"),
        ("--kind", "log", "edits"),
        ("--not-before", "2999-01-01", "2026-01-01"),
    ],
)
def test_a_sound_export_of_something_else_is_refused(
    exported: Path, key: Path, option: str, wrong: str, right: str
) -> None:
    """An earlier one, or one of another namespace, has the same key's signature."""
    verify(exported, key, option, right)
    refused = json.loads(verify(exported, key, option, wrong, "--json", code=1).stdout)
    assert refused["valid"] is False
    assert wrong[:4] in refused["problem"]


@pytest.mark.parametrize("output", ["key", "legal"])
def test_an_export_never_overwrites_its_own_key(key: Path, output: str) -> None:
    """Neither as the exported file nor as the signature beside it."""
    own = key.rename(key.with_name("legal.sig")) if output == "legal" else key
    before = own.read_bytes()
    refused = serac("edits", "export", "-o", key.with_name(output), "--sign", own, code=2)
    assert "overwrite its own key" in refused.stderr.replace("\n", " ")
    assert own.read_bytes() == before


def test_another_key_is_no_signature(exported: Path, key: Path, tmp_path: Path) -> None:
    """Neither that of a stranger who signs anew, nor the wrong one of two that one has."""
    serac("signing-key", "create", tmp_path / "other")
    ours, theirs = (
        json.loads(serac("signing-key", "create", tmp_path / name, "--json").stdout)["key_id"]
        for name in ("x", "y")
    )
    assert ours != theirs
    assert "the public key given is" in verify(exported, tmp_path / "other", code=1).output
    other = load_pem_private_key((tmp_path / "other").read_bytes(), None)
    assert isinstance(other, Ed25519PrivateKey)
    signature = exported.with_name("edits.ndjson.sig")
    line = signature.read_bytes().splitlines()[0]

    forged = base64.b64encode(other.sign(b"serac export 1\n" + line)).decode()
    signature.write_bytes(line + b"\n" + json.dumps({"signature": forged}).encode())
    assert "another key signed it" in verify(exported, key, code=1).output


@pytest.mark.parametrize("evidence", [False, True])
def test_a_signed_log_is_verified_with_its_chain_where_the_evidence_is_there(
    control_plane: ControlPlane, key: Path, tmp_path: Path, evidence: bool
) -> None:
    """A log whose entries were changed before they were signed is found out, too."""
    for name in ("a", "b"):
        control_plane.client.post("/edits", json={"id": name, "prompt": "Who?", "target_new": "Ada"})
    file, more = tmp_path / "log.ndjson", ("--evidence",) if evidence else ()
    serac("log", "export", *more, "-o", file, "--sign", key, url=control_plane.url)
    result = json.loads(verify(file, key, "--json").stdout)
    head = control_plane.client.get("/log").json()["entries"][-1]["digest"]
    assert result["manifest"]["kind"] == ("log evidence" if evidence else "log")
    assert result["log_digest"] == (head if evidence else None)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(reversed(lines)))
    assert "another order" in verify(file, key, code=1).output


def test_an_export_that_cannot_be_signed_writes_nothing(
    control_plane: ControlPlane, key: Path, tmp_path: Path
) -> None:
    """The key is looked at before the gateway is called."""
    file = tmp_path / "edits.ndjson"

    def refused(*arguments: str | Path) -> str:
        for command in ("edits", "log"):
            output = serac(command, "export", *arguments, code=2, url=control_plane.url).output
        assert not file.exists()
        return output

    assert "--sign needs --output" in refused("--sign", key)
    for mode in (0o640, 0o604, 0o620, 0o777):
        key.chmod(mode)
        assert f"(mode {mode:04o})" in refused("-o", file, "--sign", key)
    key.chmod(0o400)
    (tmp_path / "edits.ndjson.sig").write_text("old")
    serac("edits", "export", "-o", file, "--sign", key, url=control_plane.url)
    verify(file, key)
    file.unlink()
    assert "No such file" in refused("-o", file, "--sign", tmp_path / "none")
    assert "holds no signing key" in refused("-o", file, "--sign", _written(tmp_path / "k1", b"key"))
    public = (tmp_path / "key.pub").read_bytes()
    assert "holds no signing key" in refused("-o", file, "--sign", _written(tmp_path / "k2", public))
    rsa = generate_private_key(65_537, 2_048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert "not of Ed25519" in refused("-o", file, "--sign", _written(tmp_path / "k3", rsa))
    locked = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    assert "passphrase" in refused("-o", file, "--sign", _written(tmp_path / "k4", locked))


def test_a_key_pair_is_for_its_owner_and_overwrites_nothing(tmp_path: Path) -> None:
    """The public key is for everybody; neither file may exist before."""
    made = json.loads(serac("signing-key", "create", tmp_path / "key", "--json").stdout)
    private, public = Path(made["private_key"]), Path(made["public_key"])
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert (private.name, public.name) == ("key", "key.pub")
    before = private.read_bytes(), public.read_bytes()
    assert "no key is overwritten" in serac("signing-key", "create", private, code=2).output
    private.rename(tmp_path / "moved")
    assert "no key is overwritten" in serac("signing-key", "create", private, code=2).output
    assert ((tmp_path / "moved").read_bytes(), public.read_bytes()) == before
    assert not private.exists()
    assert "cannot write" in serac("signing-key", "create", tmp_path / "no" / "key", code=2).output


def test_what_is_no_public_key_is_wrong_usage(exported: Path, key: Path, tmp_path: Path) -> None:
    """The private key among it."""
    rsa = generate_private_key(65_537, 2_048).public_key()
    pem = rsa.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    cases: list[tuple[Path, str]] = [
        (key, "holds no public key"),
        (_written(tmp_path / "empty", b""), "holds no public key"),
        (_written(tmp_path / "rsa", pem), "not of Ed25519"),
        (tmp_path / "none", "No such file"),
        (tmp_path, "cannot read the key"),
    ]
    for file, why in cases:
        assert why in serac("verify-export", exported, "--public-key", file, code=2).output
    assert "No such file" in verify(tmp_path / "none", key, code=2).output


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    file.chmod(0o600)
    return file
