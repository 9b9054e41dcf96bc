"""What holds for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of transformers: no test may need a model hub


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the public data where it is not at hand, and say how to provide it."""
    if item.get_closest_marker("data") and not Path(os.environ.get("SERAC_DATA", "/nonexistent")).is_dir():
        pytest.skip("needs the public data; set SERAC_DATA to its folder")
