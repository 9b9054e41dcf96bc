"""Fixtures that several test folders use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serac_gateway.stores.memory import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with running_control_plane(InMemoryEditStore()) as running:
        yield running
