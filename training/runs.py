"""What a training run keeps in its folder and reads back: its configuration, and records as JSON Lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from serac_gateway.errors import ConfigError

CONFIG_FILE = "config.json"

_T = TypeVar("_T")


class TrainingError(RuntimeError):
    """Training cannot begin or go on; the message says why and what to do."""


class WorseWeightsError(TrainingError):
    """New weights are worse than the current ones; the message has the numbers."""


def read_config(path: Path, kind: type[_T]) -> _T:
    """Read a TOML file as a `kind`.

    Raises:
        ConfigError: The file is missing, is no TOML, or has an unknown key or a wrong type.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration {str(path)!r}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the configuration {str(path)!r} is wrong: {exc}") from exc


def begin_run(run: Path, config: msgspec.Struct) -> None:
    """Make the folder of a run and keep `config` in it; go on with a run of the same one.

    Raises:
        TrainingError: It is the run of another configuration.
    """
    run.mkdir(parents=True, exist_ok=True)
    written = run / CONFIG_FILE
    saved = msgspec.json.format(msgspec.json.encode(config), indent=2)
    if written.is_file() and written.read_bytes() != saved:
        raise TrainingError(
            f"{str(run)!r} is the run of another configuration; give another --run, or delete it"
        )
    written.write_bytes(saved)


def save_records(path: Path, records: Iterable[msgspec.Struct]) -> None:
    """Write records as JSON Lines."""
    encoder = msgspec.json.Encoder()
    with path.open("wb") as out:
        for record in records:
            out.write(encoder.encode(record) + b"\n")


def load_records(path: Path, kind: type[_T]) -> list[_T]:
    """Read what `save_records` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        msgspec.ValidationError: A line lacks a column; the error names it.
    """
    decoder = msgspec.json.Decoder(kind)
    return [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]
