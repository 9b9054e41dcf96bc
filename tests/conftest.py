"""Fixtures that several test folders use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from serac_gateway.models.language_models.embedded_gemma import converted_gemmas
from serac_gateway.models.language_models.lora import is_adapter
from serac_gateway.models.loading import SHIPPED_ADAPTER, open_embedded_encoder
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane

os.environ["HF_HUB_OFFLINE"] = "1"  # read when a model is loaded: no test may need a hub


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the public data where it is not at hand, and say how to provide it."""
    if item.get_closest_marker("data") and not Path(os.environ.get("SERAC_DATA", "/nonexistent")).is_dir():
        pytest.skip("needs the public data; set SERAC_DATA to its folder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that share an id ids of their own: pytest-xdist runs each id once.

    Those that schemathesis makes of one function, one for each call of the API, share theirs.
    """
    count = Counter(item.nodeid for item in items)
    for item in items:
        if count[item.nodeid] > 1:
            item._id = item.id.with_params(str(getattr(item, "operation_label", None)))
    assert len({item.nodeid for item in items}) == len(items), "tests share an id"


@pytest.fixture(scope="session")
def converted_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the converted embedded models: made once, in ten seconds, by whoever is first."""
    # The processes of pytest-xdist have a folder each below that of the run; converting locks its own.
    of_run = tmp_path_factory.getbasetemp()
    data_path = (of_run.parent if "PYTEST_XDIST_WORKER" in os.environ else of_run) / "converted"
    converted_gemmas(data_path, [None, SHIPPED_ADAPTER] if is_adapter(SHIPPED_ADAPTER) else [None])
    open_embedded_encoder(data_path)
    return data_path


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with running_control_plane(InMemoryEditStore()) as running:
        yield running
