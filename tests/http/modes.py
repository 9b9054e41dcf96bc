"""The ways in which a request that no edit governs may pass: every case of docs/proxy_cases.md holds in each.

A test takes the fixture `passing`, a gateway of each mode, or the fixture `mode` and opens gateways by it.
A mode more is an entry of `MODES` more, and if need be a field of `Mode`.

Where a case is proved, in this folder if no other is named:
     1 16 18   test_proxy_bodies.py
     2  3 11   test_proxy_streams.py; the gateway's own answers of cases 15 and 17 in test_answers_routes.py,
       15 17   test_answers_openai_client.py, test_answers_responses.py and test_answers_messages.py
     4  6  7   test_proxy_failures.py
     5 12 13   test_proxy_headers.py; case 14 also in test_access.py, test_upstreams.py, test_otel.py and
          14   test_request_log.py
     8  9 10   test_proxy_disconnects.py, test_proxy_exchange.py; the answer queue in test_answers_routes.py
          19   test_proxy_connections.py; its comments in test_proxy_streams.py
          20   test_answers_routes.py, tests/e2e/test_store_faults.py, tests/e2e/test_draining.py
Bad input: test_bad_input.py for the status of each kind, tests/e2e/test_bad_input_costs.py for its memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from serac_gateway.config.model import GatewayConfig
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
    through_worker: bool = False
    through_engine: bool = False

    @asynccontextmanager
    async def gateway(self, config: GatewayConfig | None = None, **options: Any) -> AsyncIterator[Gateway]:  # noqa: ANN401
        """A gateway of this mode; the rest is as `config` and the options of `running_gateway` say."""
        config = config or GatewayConfig()
        routing = msgspec.structs.replace(config.routing, speculate=self.speculate)
        config = msgspec.structs.replace(config, routing=routing)
        way = {"through_worker": self.through_worker, "through_engine": self.through_engine}
        async with running_gateway(config=config, **way, **options) as gateway:
            for question in self.edited_questions:
                await gateway.add(question, NEW_ANSWER)
            yield gateway


MODES = (
    Mode(name="bypassed", reason="no edits", edited_questions=()),
    Mode(name="classified", reason="below threshold"),
    Mode(name="speculating", reason="below threshold", speculate=True),
    Mode(name="worker", reason="below threshold", through_worker=True),
    Mode(name="engine elsewhere", reason="below threshold", through_engine=True),
)
