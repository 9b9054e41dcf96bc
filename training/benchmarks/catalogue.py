"""The benchmarks by name, as the commands know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from serac_gateway.errors import ConfigError
from training.benchmarks import (
    counterfact,
    counterfact_hard,
    fever,
    knowedit,
    mquake,
    pitfalls,
    semantic,
    suppression,
    unrelated,
    wikifactdiff,
    yes_no,
    zsre,
)
from training.benchmarks.base import Benchmark

BENCHMARKS: Mapping[str, Callable[[], Benchmark]] = {
    "zsre": zsre.load,
    "zsre-10k": zsre.load_10k,
    "counterfact": counterfact.load,
    "counterfact-validation": counterfact.load_validation,
    "counterfact-10k": counterfact.load_10k,
    "counterfact-among-10k": counterfact.load_among_10k,
    "counterfact-hard": counterfact_hard.load,
    "knowedit": knowedit.load,
    "wikifactdiff": wikifactdiff.load,
    "pitfalls": pitfalls.load,
    "fever": fever.load,
    "unrelated": unrelated.load,
    "semantic": semantic.load,
    "mquake": mquake.load,
    "yes-no": yes_no.load,
    "suppression": suppression.load,
}
"""From the shared data, or from this repository."""

READERS: Mapping[str, Callable[[Path], Benchmark]] = {
    "zsre": zsre.read,
    "counterfact": counterfact.read,
    "knowedit": lambda path: knowedit.read([path]),
    "wikifactdiff": wikifactdiff.read,
    "pitfalls": pitfalls.read,
    "fever": fever.read,
    "semantic": semantic.read,
    "mquake": mquake.read,
}
"""From a file that the user has."""


def open_benchmark(name: str, path: Path | None = None) -> Benchmark:
    """The benchmark of that name, from the file at `path` or from the shared data.

    Raises:
        ConfigError: There is no such benchmark, or its data cannot be read.
    """
    if path is None:
        if name in BENCHMARKS:
            return BENCHMARKS[name]()
        raise ConfigError(f"no benchmark is named {name!r}; choose one of {', '.join(BENCHMARKS)}")
    if name in READERS:
        try:
            return READERS[name](path)
        except ConfigError as exc:
            raise ConfigError(f"{str(path)!r} as {name!r}: {exc.message}") from exc
    raise ConfigError(f"--path goes with {', '.join(READERS)}, not with {name!r}")
