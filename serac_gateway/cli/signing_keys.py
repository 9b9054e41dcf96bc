"""`serac signing-key create`, and how key files are read: PEM, the private one for its owner's eyes only."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, stdout

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

signing_key_app = typer.Typer(no_args_is_help=True, help="Make keys that sign exports.")

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 65_536


@signing_key_app.command()
def create(
    file: Annotated[
        Path, typer.Argument(help="Where the private key is to lie; FILE.pub is the public one.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a key pair that signs exports (Ed25519). Nothing that exists is overwritten.

    Keep FILE secret; give FILE.pub to whoever is to verify exports, by a way that nobody else controls.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    from serac_gateway.cli.attestation import key_id

    key, public_file = Ed25519PrivateKey.generate(), public_file_of(file)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if public_file.exists():
        fail(f"{str(public_file)!r} exists, and no key is overwritten; give another FILE", EXIT_USAGE)
    _write_new(file, private, mode=0o600)
    _write_new(public_file, public, mode=0o644)
    made = {"key_id": key_id(key.public_key()), "private_key": str(file), "public_key": str(public_file)}
    if as_json:
        print_json(made)
    else:
        from rich.markup import escape

        stdout().print(
            f"key {made['key_id']}: {escape(str(file))}, {escape(str(public_file))}", soft_wrap=True
        )


def public_file_of(file: Path) -> Path:
    """Where the public key of the private one in `file` lies."""
    return file.with_name(f"{file.name}.pub")


def read_private_key(file: Path) -> Ed25519PrivateKey:
    """The key in `file`; ends the command if it is none, or others may read it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content, mode = _read(file)
    if mode & _OF_OTHERS:
        fail(
            f"the signing key {str(file)!r} may be read by others (mode {stat.S_IMODE(mode):04o}), who could"
            " sign in your name; make a new one, or `chmod 600` it if nobody has read it",
            EXIT_USAGE,
        )
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        fail(f"the signing key {str(file)!r} has a passphrase; give one without", EXIT_USAGE)
    except (ValueError, UnsupportedAlgorithm):
        fail(f"{str(file)!r} holds no signing key; `serac signing-key create FILE` makes one", EXIT_USAGE)
    if not isinstance(key, Ed25519PrivateKey):
        fail(
            f"the key in {str(file)!r} is not of Ed25519; `serac signing-key create FILE` makes one",
            EXIT_USAGE,
        )
    return key


def read_public_key(file: Path) -> Ed25519PublicKey:
    """The key in `file`; ends the command if it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content, _ = _read(file)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        fail(
            f"{str(file)!r} holds no public key; give the .pub file that `serac signing-key create` made",
            EXIT_USAGE,
        )
    if not isinstance(key, Ed25519PublicKey):
        fail(f"the public key in {str(file)!r} is not of Ed25519, so it signed no export", EXIT_USAGE)
    return key


def _read(file: Path) -> tuple[bytes, int]:
    """Content and mode, of the same file."""
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_BYTES), os.fstat(opened.fileno()).st_mode
    except OSError as error:
        fail(f"cannot read the key {str(file)!r}: {error.strerror}", EXIT_USAGE)


def _write_new(file: Path, content: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    except FileExistsError:
        fail(f"{str(file)!r} exists, and no key is overwritten; give another FILE", EXIT_USAGE)
    except OSError as error:
        fail(f"cannot write the key {str(file)!r}: {error.strerror}", EXIT_USAGE)
