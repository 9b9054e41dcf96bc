"""The folder of the public data, and its files: JSON Lines or the JSON arrays that authors publish."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serac_gateway.errors import ConfigError

DATA_VARIABLE = "SERAC_DATA"
_DEFAULT_DATA = Path("../shared/data")

Row = dict[str, Any]
"""One decoded row, fields as their authors named them."""


def data_folder() -> Path:
    """The folder of the public data: `SERAC_DATA`, else ../shared/data.

    Raises:
        ConfigError: There is no such folder.
    """
    folder = Path(os.environ.get(DATA_VARIABLE, _DEFAULT_DATA))
    if not folder.is_dir():
        raise ConfigError(
            f"the data folder {str(folder)!r} does not exist; set {DATA_VARIABLE} to it, or evaluate a"
            " benchmark's published file with --path"
        )
    return folder


def read_rows(path: Path) -> list[Row]:
    """All rows of a .jsonl or .json file (a JSON array), either of them gzipped or not; at least one.

    Raises:
        ConfigError: The file is missing, damaged, or holds no rows.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"data file {str(path)!r} is not in UTF-8 (byte {exc.object[exc.start]:#04x} at {exc.start:,});"
            " convert it, for instance with iconv -f UTF-16 -t UTF-8"
        ) from exc
    except (OSError, EOFError) as exc:
        raise ConfigError(f"cannot read the data file {str(path)!r}: {exc}") from exc
    rows: list[Row]
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ConfigError(f"data file {str(path)!r} is no JSON array: {exc}") from exc
    else:
        rows = list(_lines(text, path))
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"data file {str(path)!r} holds no rows; expected a list of JSON objects")
    return rows


def _lines(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as exc:
            raise ConfigError(
                f"data file {str(path)!r} is neither a JSON array nor JSON Lines: line {number} is"
                f" {line[:60]!r}: {exc}"
            ) from exc
        if not isinstance(row, dict):
            raise ConfigError(f"data file {str(path)!r}: line {number} is no JSON object: {line[:60]!r}")
        yield row


def written_sets(folder: Path) -> Iterator[tuple[list[str], str, int]]:
    """The sets in `*.txt`, each from its line "= name" to the next: lines, file name, number of the first."""
    for path in sorted(folder.glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        begins = [i for i, line in enumerate(lines) if line.startswith("= ")]
        for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
            yield lines[begin:end], path.name, begin + 1
