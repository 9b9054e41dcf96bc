"""The gateways that most tests of the data plane start with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway


@pytest.fixture(params=["classified", "no edits"])
async def passing(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """A gateway whose every request goes to the base model: decided so, or because there are no edits."""
    async with running_gateway() as gateway:
        if request.param == "classified":
            await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        yield gateway


@pytest.fixture
async def editing() -> AsyncIterator[Gateway]:
    """A gateway with one edit."""
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        yield gateway
