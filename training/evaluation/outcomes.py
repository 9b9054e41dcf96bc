"""The folder of a run: its settings, and one JSON line a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from serac_gateway.errors import ConfigError
from training.benchmarks.base import Benchmark

SETTINGS_FILE = "run.json"
CASES_FILE = "cases.jsonl"


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What makes two runs the same run."""

    benchmark: str
    role: str
    path: str | None
    edits: int | None
    """The limit that was given; None: all."""
    seed: int
    decider: Mapping[str, str]
    stored_edits: int
    left_out: int
    sampled_cases: int | None = None
    """The probes of this many cases are sent; None: of all."""
    measures: Literal["scope", "answers", "methods"] = "scope"


def settings_of(
    benchmark: Benchmark,
    *,
    path: Path | None,
    edits: int | None,
    ask: int | None,
    seed: int,
    decider: Mapping[str, str],
    stored_edits: int,
    measures: Literal["scope", "answers"],
) -> RunSettings:
    """The settings of a run on `benchmark` as `chosen` left it."""
    return RunSettings(
        benchmark=benchmark.name,
        role=benchmark.role,
        path=None if path is None else str(path),
        edits=edits,
        seed=seed,
        decider=dict(decider),
        stored_edits=stored_edits,
        left_out=benchmark.left_out,
        sampled_cases=ask,
        measures=measures,
    )


class Line(Protocol):
    """What a case leaves."""

    @property
    def case(self) -> str:
        """The case's id."""
        ...


LineT = TypeVar("LineT", bound=Line)


class LineFolder(Generic[LineT]):
    """A folder with run.json and cases.jsonl, to which an interrupted run can come back."""

    def __init__(self, folder: Path, line: type[LineT]) -> None:
        """`line` is the record of a case."""
        self.folder = folder
        self._line = line

    def begin(self, settings: RunSettings) -> frozenset[str]:
        """Write the settings, or find the same ones; returns the cases that are done already.

        Raises:
            ConfigError: The folder holds a run with other settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS_FILE
        if path.exists() and self.settings() != settings:
            raise ConfigError(
                f"the folder {str(self.folder)!r} holds another run ({self.settings()}); choose another --out"
                " or delete it"
            )
        path.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
        return frozenset(outcome.case for outcome in self.outcomes())

    def settings(self) -> RunSettings:
        """The settings.

        Raises:
            ConfigError: There is no run here.
        """
        try:
            return msgspec.json.decode((self.folder / SETTINGS_FILE).read_bytes(), type=RunSettings)
        except (OSError, msgspec.DecodeError) as exc:
            raise ConfigError(f"{str(self.folder)!r} holds no run: {exc}") from exc

    def append(self, outcomes: Sequence[LineT]) -> None:
        """Add the lines of finished cases."""
        with (self.folder / CASES_FILE).open("ab") as file:
            file.write(b"".join(msgspec.json.encode(outcome) + b"\n" for outcome in outcomes))

    def outcomes(self) -> Iterator[LineT]:
        """Every finished case. A line that an interruption cut short is no finished case."""
        path = self.folder / CASES_FILE
        if not path.exists():
            return
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            path.write_bytes(whole + b"\n" if whole else b"")
        for line in whole.split(b"\n"):
            if line:
                yield msgspec.json.decode(line, type=self._line)
