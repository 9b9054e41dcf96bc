"""The ways in which a request that no edit governs may pass: every case of docs/proxy_cases.md holds in each.

A test takes the fixture `passing`, a gateway of each mode, or the fixture `mode` and opens gateways by it.
A mode more is an entry of `MODES` more, and if need be a field of `Mode`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from serac_gateway.config import GatewayConfig
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway

NEAR_MISS = "How do I boil a potato?"
"""Near enough to OTHER_QUESTION for the classifier to read it, and out of scope."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How requests come to the base model."""

    name: str
    reason: str
    """Why OTHER_QUESTION goes to the base model."""
    edited_questions: tuple[str, ...] = (EDITED_QUESTION, NEAR_MISS)
    speculate: bool = False

    @asynccontextmanager
    async def gateway(self, config: GatewayConfig | None = None, **options: Any) -> AsyncIterator[Gateway]:  # noqa: ANN401
        """A gateway of this mode; the rest is as `config` and the options of `running_gateway` say."""
        config = config or GatewayConfig()
        routing = msgspec.structs.replace(config.routing, speculate=self.speculate)
        config = msgspec.structs.replace(config, routing=routing)
        async with running_gateway(config=config, **options) as gateway:
            for question in self.edited_questions:
                await gateway.add(question, NEW_ANSWER)
            yield gateway


MODES = (
    Mode(name="bypassed", reason="no edits", edited_questions=()),
    Mode(name="classified", reason="below threshold"),
    Mode(name="speculating", reason="below threshold", speculate=True),
)
