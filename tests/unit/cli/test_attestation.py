"""Whatever is changed in a signed export or its manifest is detected, bit by bit."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serac_gateway.cli.attestation import Exported, ExportKind, NotAttestedError, attested, verified_export

KEY = Ed25519PrivateKey.generate()
CONTENT = b'{"id":"a","prompt":"Who?"}\n{"id":"b","prompt":"Why?"}\n{"id":"c","prompt":"How?"}\n'


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """An export and what lies beside it."""
    file, beside = tmp_path / "e.ndjson", tmp_path / "e.ndjson.sig"
    file.write_bytes(CONTENT)
    exported = Exported(
        namespace="legal",
        lines=3,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    beside.write_bytes(attested(exported, ExportKind.EDITS, KEY))
    return file, beside


def test_every_bit_of_the_export_counts(signed: tuple[Path, Path]) -> None:
    """And every length to which it can be cut, and every order of its lines."""
    file, beside = signed
    manifest = verified_export(file, beside, KEY.public_key())
    assert (manifest.namespace, manifest.lines, manifest.kind) == ("legal", 3, ExportKind.EDITS)
    a, b, c = CONTENT.splitlines(keepends=True)
    changed = [CONTENT[:length] for length in range(len(CONTENT))]
    changed += [_flipped(CONTENT, bit) for bit in range(8 * len(CONTENT))]
    changed += [b + a + c, a + c + b, c + b + a, CONTENT + a, CONTENT + b" "]
    for content in changed:
        file.write_bytes(content)
        with pytest.raises(NotAttestedError):
            verified_export(file, beside, KEY.public_key())


def test_every_bit_of_manifest_and_signature_counts(signed: tuple[Path, Path]) -> None:
    """But the line feed at the end, which says nothing."""
    file, beside = signed
    whole = beside.read_bytes().rstrip(b"\n")
    for bit in range(8 * len(whole)):
        beside.write_bytes(_flipped(whole, bit))
        with pytest.raises(NotAttestedError):
            verified_export(file, beside, KEY.public_key())
    beside.write_bytes(whole)
    verified_export(file, beside, KEY.public_key())


def test_another_key_is_detected_also_where_it_claims_the_name(signed: tuple[Path, Path]) -> None:
    """The key's id only says which key to take; the signature is what counts."""
    file, beside = signed
    other = Ed25519PrivateKey.generate()
    with pytest.raises(NotAttestedError, match="the public key given is"):
        verified_export(file, beside, other.public_key())
    line = beside.read_bytes().splitlines()[0]
    signature = base64.b64encode(other.sign(b"serac export 1\n" + line))
    beside.write_bytes(line + b'\n{"signature":"' + signature + b'"}\n')
    with pytest.raises(NotAttestedError, match="another key signed it"):
        verified_export(file, beside, KEY.public_key())


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
