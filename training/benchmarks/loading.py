"""Reading benchmark files: gzipped JSON Lines of the shared data, or the JSON arrays that authors publish."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from serac_gateway.errors import ConfigError

DATA_VARIABLE = "SERAC_DATA"
_DEFAULT_DATA = Path("../shared/data")

T = TypeVar("T")

Row = Mapping[str, Any]
"""One decoded row, fields as their authors named them."""


def data_folder() -> Path:
    """The folder of the public data: `SERAC_DATA`, else ../shared/data.

    Raises:
        ConfigError: There is no such folder.
    """
    folder = Path(os.environ.get(DATA_VARIABLE, _DEFAULT_DATA))
    if not folder.is_dir():
        raise ConfigError(
            f"the data folder {str(folder)!r} does not exist; set {DATA_VARIABLE} to it, or give the"
            " benchmark's published file with --path"
        )
    return folder


def read_rows(path: Path) -> list[Row]:
    """All rows of a .jsonl or .json file (a JSON array), either of them gzipped or not.

    Raises:
        ConfigError: The file is missing, damaged, or holds no rows.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the data file {str(path)!r}: {exc}") from exc
    try:
        decoded = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
    except json.JSONDecodeError as exc:
        raise ConfigError(f"data file {str(path)!r} is neither a JSON array nor JSON Lines: {exc}") from exc
    if not decoded or not all(isinstance(row, dict) for row in decoded):
        raise ConfigError(f"data file {str(path)!r} holds no rows; expected a list of JSON objects")
    return decoded


def converted(rows: list[Row], convert: Callable[[int, Row], T], *, form: str) -> list[T]:
    """`convert` applied to every row and its position.

    Raises:
        ConfigError: A row lacks a field, named together with the form that was expected.
    """
    results = []
    for position, row in enumerate(rows):
        try:
            results.append(convert(position, row))
        except (KeyError, TypeError, IndexError, AttributeError) as exc:
            raise ConfigError(
                f"row {position} is not in the form of {form}: {type(exc).__name__} {exc};"
                f" it has the fields {sorted(row)}"
            ) from exc
    return results
