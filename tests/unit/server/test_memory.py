"""Long-lived objects are frozen, and garbage is collected all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from serac_gateway.server.memory import freeze_gc


class Ring:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_set_aside_afterwards() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_long_lived_objects_are_not_looked_at_by_later_collections() -> None:
    lasting = [Ring() for _ in range(100)]
    freeze_gc()
    assert gc.get_freeze_count() > 1_000
    assert not {id(value) for value in gc.get_objects()} & {id(value) for value in lasting}


def test_garbage_is_collected_and_not_set_aside() -> None:
    ring = Ring()
    seen = weakref.ref(ring)
    del ring
    freeze_gc()
    assert seen() is None


def test_what_was_set_aside_and_is_garbage_now_goes_with_the_next_call() -> None:
    ring = Ring()
    seen = weakref.ref(ring)
    freeze_gc()
    del ring
    gc.collect()
    assert seen() is not None
    freeze_gc()
    assert seen() is None
