"""`--sign` of the commands that export, and `serac verify-export`, which needs no gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serac_gateway.cli.attestation import (
    Exported,
    ExportKind,
    Manifest,
    NotAttestedError,
    attested,
    verified_export,
)
from serac_gateway.cli.log_evidence import EvidenceReader, LogNotVerifiedError
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.signing_keys import read_private_key, read_public_key
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, stderr, stdout

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from serac_gateway.stores.log_chain import LogHead

SignOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        help="Sign the file with this key, into FILE.sig; see `serac signing-key`.",
        rich_help_panel="Output",
    ),
]


class Signing:
    """The key of an export that is to be signed, read before anything is written; none: nothing is signed."""

    def __init__(self, key_file: Path | None, output: Path | None) -> None:
        """Ends the command if there is nothing to sign, or the key cannot be used."""
        self._key: Ed25519PrivateKey | None = None
        if key_file is None:
            return
        if output is None:
            fail("--sign needs --output FILE: the signature lies beside it, as FILE.sig", EXIT_USAGE)
        self._key = read_private_key(key_file)
        self._beside = signature_file_of(output)
        if key_file.resolve() in (output.resolve(), self._beside.resolve()):
            fail(
                f"the export would overwrite its own key {str(key_file)!r}; give another --output", EXIT_USAGE
            )
        # What an earlier export left would vouch for another file.
        self._beside.unlink(missing_ok=True)

    def sign(self, exported: Exported, kind: ExportKind) -> None:
        """Write the signature, where there is a key."""
        if self._key is None:
            return
        try:
            self._beside.write_bytes(attested(exported, kind, self._key))
        except OSError as error:
            fail(f"cannot write the signature {str(self._beside)!r}: {error.strerror}", EXIT_REFUSED)
        stderr().print(f"signed in {self._beside}", soft_wrap=True, markup=False)


def signature_file_of(file: Path) -> Path:
    """Where the signature of `file` lies."""
    return file.with_name(f"{file.name}.sig")


def verify_export(
    file: Annotated[Path, typer.Argument(help="The exported file.")],
    public_key: Annotated[Path, typer.Option(help="The public key of who exported it.")],
    signature: Annotated[Path | None, typer.Option(help="The signature.", show_default="FILE.sig")] = None,
    of_namespace: Annotated[
        str | None, typer.Option("--namespace", help="Of which it has to be.", show_default="(any)")
    ] = None,
    kind: Annotated[
        ExportKind | None, typer.Option(help="What it has to hold.", show_default="(anything)")
    ] = None,
    not_before: Annotated[
        datetime | None,
        typer.Option(
            help="The earliest time, in UTC, at which it may have been exported.", show_default="(any)"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify that an export is, byte for byte, what was signed. No gateway is called.

    An earlier export, or one of another namespace, verifies too: say which one it has to be. Of a log with
    evidence, the chain is verified too. Exit code 1 if anything is not as it was exported.
    """
    key = read_public_key(public_key)
    beside = signature_file_of(file) if signature is None else signature
    head: LogHead | None = None
    try:
        manifest = verified_export(file, beside, key)
        _expect_of(manifest, of_namespace, kind, not_before)
        if manifest.kind is ExportKind.LOG_EVIDENCE:
            head = _verified_chain(file, manifest)
    except OSError as error:
        fail(f"cannot read {str(error.filename)!r}: {error.strerror}", EXIT_USAGE)
    except NotAttestedError as error:
        if not as_json:
            fail(f"{str(file)!r} is not what was exported: {error}", EXIT_REFUSED)
        print_json({"valid": False, "problem": str(error)})
        raise typer.Exit(EXIT_REFUSED) from error
    if as_json:
        print_json({"valid": True, "manifest": manifest, "log_digest": None if head is None else head.digest})
        return
    stdout().print(
        f"valid: {manifest.lines:,} lines of {manifest.kind} of namespace {manifest.namespace},"
        f" exported {manifest.exported_at:%Y-%m-%d %H:%M:%S} UTC, signed with key {manifest.key_id}",
        soft_wrap=True,
        markup=False,
    )
    if head is not None:
        stdout().print(f"the log's chain holds: {head.length:,} entries\ndigest {head.digest}")


def _expect_of(
    manifest: Manifest, namespace: str | None, kind: ExportKind | None, not_before: datetime | None
) -> None:
    """Raises NotAttestedError where it is a sound export of something else."""
    if namespace not in (None, manifest.namespace):
        raise NotAttestedError(f"it is of namespace {manifest.namespace!r}, not of {namespace!r}")
    if kind not in (None, manifest.kind):
        raise NotAttestedError(f"it holds {manifest.kind}, not {kind}")
    if not_before is not None and manifest.exported_at < not_before.replace(tzinfo=UTC):
        raise NotAttestedError(
            f"it was exported at {manifest.exported_at:%Y-%m-%dT%H:%M:%S} UTC, before {not_before}"
        )


def _verified_chain(file: Path, manifest: Manifest) -> LogHead:
    reader = EvidenceReader(manifest.namespace)
    try:
        with file.open("rb") as lines:
            for line in lines:
                reader.take(line)
        return reader.head()
    except LogNotVerifiedError as error:
        raise NotAttestedError(f"it is what was signed, and the log in it is not sound: {error}") from error
