"""`serac-train`: hands over to the package `training` of the checkout that this package runs from.

The wheel holds no training code: `training` would be a top-level package with a name that others use too, and
it reads configurations and data that only a checkout has. The console script belongs to the wheel, so it must
run without that code and report what is missing. Hence the import by name at run time: no module of
`serac_gateway` imports `training` statically, as the import contract in pyproject.toml demands.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from serac_gateway.cli.terminal import EXIT_USAGE, stderr

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder above `serac_gateway`: a checkout, or the site-packages of an installation."""
_EXTRA = frozenset({"matplotlib", "peft", "sklearn"})
"""Modules that the extra `train` installs."""


def main() -> None:
    """Run `training.cli`; exit code 2 outside of a checkout and without the extra `train`."""
    if not (CHECKOUT / "training" / "cli.py").is_file():
        _refuse(
            f"serac-train works in a checkout of the repository only, and {str(CHECKOUT)!r} is none;"
            " run `make test` in a checkout and use its .venv/bin/serac-train"
        )
    sys.path.insert(0, str(CHECKOUT))  # before any other package named training
    try:
        importlib.import_module("training.cli").main()
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        _refuse(
            f"serac-train needs the module {package!r} of the extra 'train'; run `make test`, or"
            f" `pip install --editable '{CHECKOUT}[train]'`"
        )


def _refuse(message: str) -> None:
    stderr().print(f"[red]error:[/] {message.replace('[', chr(92) + '[')}", soft_wrap=True)
    sys.exit(EXIT_USAGE)
