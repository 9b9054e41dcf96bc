"""The coverage-guided fuzz run: ``python -m tests.fuzz.run tests/fuzz/corpus -max_total_time=3600``.

Needs the extra [fuzz]. libFuzzer's options follow the folder; ``-merge=1`` with two folders makes a corpus
small. A finding is written as crash-… where it was started: put it into the corpus with its mend.
"""

from __future__ import annotations

import pkgutil
import sys

import atheris

import serac_gateway

_READERS = tuple(f"serac_gateway.{room}" for room in ("data_plane", "domain", "routing"))
"""What reads a request; to instrument the whole gateway takes minutes, and slows every run."""
_OTHERS = [
    module.name
    for module in pkgutil.walk_packages(serac_gateway.__path__, "serac_gateway.")
    if not module.name.startswith(_READERS)
]

with atheris.instrument_imports(include=["serac_gateway"], exclude=_OTHERS):
    from tests.fuzz.targets import check


def main() -> None:
    """Hand over to libFuzzer, which does not return."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
