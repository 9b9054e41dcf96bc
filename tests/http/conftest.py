"""The gateways that most tests of the data plane start with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.http.modes import MODES, Mode
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway


@pytest.fixture(params=MODES, ids=lambda mode: mode.name)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Each way to the base model."""
    chosen_mode: Mode = request.param
    return chosen_mode


@pytest.fixture
async def passing(mode: Mode) -> AsyncIterator[Gateway]:
    """A gateway whose every request goes to the base model, in each mode."""
    async with mode.gateway() as gateway:
        yield gateway


@pytest.fixture
async def editing() -> AsyncIterator[Gateway]:
    """A gateway with one edit."""
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        yield gateway
