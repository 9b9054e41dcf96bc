"""What counting costs: the gateway is to add well under a millisecond, so this may take microseconds."""

from __future__ import annotations

import time
import timeit

from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.routing.router import Route, RouteDecision, Timings

MOST_US = 50.0
"""Of CPU time, ten times what it takes here: machines differ."""
EDIT = first_version(EditDraft(prompt="Who?", target_new="You."), namespace="default")

REQUEST = FinishedRequest(
    request_id="r",
    method="POST",
    path="/chat/completions",
    key_id=None,
    namespace="default",
    route=Route.COUNTERFACTUAL,
    reason="in scope",
    decision=RouteDecision(
        route=Route.COUNTERFACTUAL,
        reason="in scope",
        edit=EDIT,
        timings=Timings(encode_s=0.001, search_s=0.0001, classify_s=0.009),
    ),
    query=None,
    status=200,
    client_left=False,
    decide_s=0.011,
    overhead_s=0.012,
    upstream_s=0.2,
    first_byte_s=0.3,
    upstream_error=None,
    speculation=None,
    failure=None,
    key_store_failed=False,
    model="m",
    answer_tokens=0,
    streamed=True,
    total_s=1.0,
    bytes_in=300,
    bytes_out=3_000,
)


def test_counting_a_request_takes_microseconds() -> None:
    instruments = Instruments()
    repeats = 2_000
    best_s = min(
        timeit.repeat(lambda: instruments.add(REQUEST), number=repeats, repeat=5, timer=time.process_time)
    )
    print(f"{best_s / repeats * 1e6:.1f} us a request")
    assert best_s / repeats * 1e6 < MOST_US
