"""What is signed of an export, and how it is shown that a file is the one that was exported.

The export stays as it is, so that it can be imported. Beside it lies a file of two lines of JSON:

    {"format":"serac-export-1","kind":"edits","namespace":"default","lines":2,"bytes":310,"sha256":"…",
     "exported_at":"2026-12-01T09:30:00.123456Z","key_id":"…"}          (one line: the manifest)
    {"signature":"…"}

The signature (base64) is Ed25519's (RFC 8032) over ``serac export 1``, a line feed and the manifest's bytes
without the line feed behind them. The manifest is canonical: these members in this order, without spaces. The
key's id is the beginning of the SHA-256 digest of its 32 bytes, in hexadecimal digits.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from serac_gateway.domain.edits import AwareDatetime

if TYPE_CHECKING:  # imported by the functions that use it: most commands sign nothing
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_FORMAT = "serac-export-1"
_SIGNED_FIRST = b"serac export 1\n"
"""Before the manifest, so that no other signature of the key can be taken for one of an export."""
_MAX_BYTES = 65_536
"""Of the file with manifest and signature."""
_CHUNK_BYTES = 1 << 20


class ExportKind(StrEnum):
    """What was exported."""

    EDITS = "edits"
    LOG = "log"
    LOG_EVIDENCE = "log evidence"


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway sent, as it was written."""

    namespace: str
    lines: int
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the signature vouches for."""

    format: str
    kind: ExportKind
    namespace: str
    lines: int
    bytes: int
    sha256: str
    exported_at: AwareDatetime
    """By the clock of who exported."""
    key_id: str


class _Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    signature: str


class NotAttestedError(Exception):
    """A file is not the one that was exported, or nobody knows."""


def key_id(key: Ed25519PublicKey) -> str:
    """16 hexadecimal digits that are another key's only by an accident that does not happen."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def attested(
    exported: Exported, kind: ExportKind, key: Ed25519PrivateKey, *, now: datetime | None = None
) -> bytes:
    """The content of the file beside the export."""
    manifest = Manifest(
        format=_FORMAT,
        kind=kind,
        namespace=exported.namespace,
        lines=exported.lines,
        bytes=exported.size_bytes,
        sha256=exported.sha256,
        exported_at=now or datetime.now(UTC),
        key_id=key_id(key.public_key()),
    )
    line = msgspec.json.encode(manifest)
    signature = base64.b64encode(key.sign(_SIGNED_FIRST + line)).decode()
    return line + b"\n" + msgspec.json.encode(_Signature(signature=signature)) + b"\n"


def verified_export(file: Path, attestation: Path, key: Ed25519PublicKey) -> Manifest:
    """What is known of `file` after all of it was compared with what `key` signed.

    Raises:
        NotAttestedError: It is not what was signed, or the signature is not the key's.
        OSError: A file cannot be read.
    """
    manifest = _signed_manifest(attestation, key)
    there = _read(file)
    if there.lines != manifest.lines:
        fate = "missing, or the file was cut" if there.lines < manifest.lines else "too many"
        raise NotAttestedError(
            f"it has {there.lines:,} lines, and {manifest.lines:,} were exported:"
            f" {abs(there.lines - manifest.lines):,} are {fate}"
        )
    if there.size_bytes != manifest.bytes:
        raise NotAttestedError(
            f"it has {there.size_bytes:,} bytes, and {manifest.bytes:,} were exported: it was changed or cut"
        )
    if there.sha256 != manifest.sha256:
        raise NotAttestedError(
            "it is as long as what was exported, and its digest is another one: bytes were changed, or lines"
            " have another order"
        )
    return manifest


def _signed_manifest(attestation: Path, key: Ed25519PublicKey) -> Manifest:
    from cryptography.exceptions import InvalidSignature

    with attestation.open("rb") as opened:
        content = opened.read(_MAX_BYTES + 1)
    line, _, rest = content.partition(b"\n")
    try:
        manifest = msgspec.json.decode(line, type=Manifest)
        signature = base64.b64decode(msgspec.json.decode(rest, type=_Signature).signature, validate=True)
    except (ValueError, RecursionError) as exc:
        raise NotAttestedError(f"{str(attestation)!r} holds no manifest with its signature ({exc})") from exc
    if manifest.format != _FORMAT:
        raise NotAttestedError(
            f"the manifest is of format {manifest.format[:40]!r}, and this release knows {_FORMAT!r}"
        )
    if manifest.key_id != key_id(key):
        raise NotAttestedError(
            f"it was signed with key {manifest.key_id[:40]!r}, and the public key given is {key_id(key)!r}"
        )
    try:
        key.verify(signature, _SIGNED_FIRST + line)
    except InvalidSignature as exc:
        raise NotAttestedError(
            "the signature is not the key's: the manifest was changed, or another key signed it"
        ) from exc
    again = msgspec.json.encode(_Signature(signature=base64.b64encode(signature).decode()))
    if msgspec.json.encode(manifest) != line or again != rest.removesuffix(b"\n"):
        raise NotAttestedError("manifest or signature is not canonical: `--sign` writes them otherwise")
    return manifest


def _read(file: Path) -> Exported:
    digest, lines, size_bytes = hashlib.sha256(), 0, 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            lines += chunk.count(b"\n")
            size_bytes += len(chunk)
    return Exported(namespace="", lines=lines, size_bytes=size_bytes, sha256=digest.hexdigest())
