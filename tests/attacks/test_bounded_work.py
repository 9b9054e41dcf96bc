"""Requests that wait for a slow classifier are bounded in number and in time; the rest follow the policy.

Field report A6, "decisions have no deadline and no bound on how many wait", and A4.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
import pytest_asyncio

from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    OTHER_QUESTION,
    SUPPRESSED_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    attacked_gateway,
    chat,
    is_answered_here,
    watching_live,
)
from tests.http.wire import WireResponse

pytestmark = pytest.mark.asyncio(loop_scope="module")

THREADS, QUEUED, TIMEOUT_S = 2, 4, 1.0
MOST_OPEN = THREADS + QUEUED
REQUESTS = 60
WITHIN_S = 60
"""A few seconds would do; a busy machine takes longer, and what hangs takes for ever."""
HIDING, OPEN, EMPTY = "default", "open", "empty"
PREVIEWED = {"edit": {"prompt": EDITED_QUESTION, "target_new": "Jo"}, "queries": [EDITED_QUESTION]}
BOUNDS = f"""
models.decision_threads = {THREADS}
models.max_queued_decisions = {QUEUED}
models.control_timeout_s = {TIMEOUT_S}
routing.decision_timeout_s = {TIMEOUT_S}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    """Namespace default has a suppression, "open" a fact, "empty" nothing."""
    async with attacked_gateway(tmp_path_factory.mktemp("bounded"), BOUNDS) as running:
        await running.add(SUPPRESSION)
        await running.add(FACT, namespace=OPEN)
        yield running


@contextmanager
def held_models(gateway: AttackedGateway) -> Iterator[None]:
    """Every call of the encoder waits until the block ends."""
    gateway.upstream.forget()
    go_on = threading.Event()
    gateway.encoder.on_encode = lambda: go_on.wait(2 * WITHIN_S) and None
    try:
        yield
    finally:
        go_on.set()
        gateway.encoder.on_encode = lambda: None


async def gauge(gateway: AttackedGateway, name: str) -> float:
    text = (await gateway.call("GET", "/metrics")).text
    return float(re.search(rf"(?m)^{name} (\S+)$", text)[1])  # type: ignore[index]


async def failures(gateway: AttackedGateway) -> Counter[tuple[str, str]]:
    """Failed requests by reason and policy."""
    text = (await gateway.call("GET", "/metrics")).text
    matches = re.findall(r'serac_failures_total\{policy="(\w+)",reason="([\w ]+)"\} (\S+)', text)
    return Counter({(reason, policy): int(float(count)) for policy, reason, count in matches})


def ask(gateway: AttackedGateway, namespace: str, question: str) -> asyncio.Task[WireResponse]:
    headers = ("x-serac-namespace", namespace), ("x-serac-debug", "true")
    return asyncio.create_task(gateway.post(chat(question), *headers))


@pytest.mark.parametrize("namespace", [OPEN, HIDING])
async def test_of_many_requests_few_wait_for_a_slow_model_and_none_longer_than_allowed(
    gateway: AttackedGateway, namespace: str
) -> None:
    """All of them end while the model still hangs; the process answers meanwhile."""
    question, policy = (SUPPRESSED_QUESTION, "closed") if namespace == HIDING else (EDITED_QUESTION, "open")
    before, open_decisions = await failures(gateway), list[float]()
    with held_models(gateway):
        async with watching_live(gateway.url) as waits_s, asyncio.timeout(WITHIN_S):
            asking = [ask(gateway, namespace, question) for _ in range(REQUESTS)]
            while not all(task.done() for task in asking):
                open_decisions.append(await gauge(gateway, "serac_decisions_open"))
                await asyncio.sleep(0.05)
        replies = [task.result() for task in asking]
        reasons = Counter(reply.one("x-serac-reason") for reply in replies)
        assert reasons.keys() == {"decision queue full", "decision timeout"}
        assert reasons["decision timeout"] >= MOST_OPEN
        assert reasons["decision queue full"] > REQUESTS / 2
        assert {reply.one("x-serac-route") for reply in replies} == {"bypass"}
        assert {reply.status for reply in replies} == {503 if namespace == HIDING else 200}
        assert len(gateway.upstream.requests) == (0 if namespace == HIDING else REQUESTS)
        assert gateway.upstream.leaks == []
        assert max(open_decisions) <= MOST_OPEN
        assert len(waits_s) > 1
        counted = await failures(gateway) - before
        assert counted == Counter({(reason, policy): count for reason, count in reasons.items()})
    await assert_recovered(gateway)


async def test_what_needs_no_decision_waits_for_nothing(gateway: AttackedGateway) -> None:
    with held_models(gateway):
        full = [ask(gateway, OPEN, EDITED_QUESTION) for _ in range(MOST_OPEN)]
        async with asyncio.timeout(WITHIN_S):
            while await gauge(gateway, "serac_decisions_open") < MOST_OPEN:
                await asyncio.sleep(0.01)
            passed = await ask(gateway, EMPTY, OTHER_QUESTION)
            models = await gateway.get("/v1/models")
            await asyncio.gather(*full)
        assert (passed.status, passed.one("x-serac-route")) == (200, "base")
        assert (models.status, models.one("x-serac-route")) == (200, "bypass")
    await assert_recovered(gateway)


async def test_calls_that_read_edits_wait_for_no_model_and_those_that_decide_end_with_a_sentence(
    gateway: AttackedGateway,
) -> None:
    with held_models(gateway):
        async with asyncio.timeout(WITHIN_S):
            for path in ("/serac/v1/edits", "/serac/v1/log", "/serac/v1/stats", "/health/ready", "/metrics"):
                assert (await gateway.call("GET", path, namespace=OPEN)).status_code == 200
            replies = await asyncio.gather(*(
                gateway.call("POST", f"/serac/v1/{path}", namespace=OPEN, json=body)
                for path, body in (
                    ("scope", {"queries": [EDITED_QUESTION]}),
                    ("edits:preview", PREVIEWED),
                    ("edits", FACT | {"id": "unheard"}),
                )
            ))  # fmt: skip
            for reply in replies:
                assert_ended(reply)
    await assert_recovered(gateway)
    assert (await gateway.call("GET", "/serac/v1/edits/unheard", namespace=OPEN)).status_code == 404


def assert_ended(reply: httpx.Response) -> None:
    assert reply.status_code == 503, reply.text
    assert f"longer than {TIMEOUT_S:g} s" in reply.json()["detail"]


async def test_a_client_that_leaves_while_it_waits_costs_its_place_no_longer_than_it_takes(
    gateway: AttackedGateway,
) -> None:
    """Those that wait for a thread give their places back at once; what has begun keeps its thread."""
    with held_models(gateway):
        waiting = [ask(gateway, OPEN, EDITED_QUESTION) for _ in range(MOST_OPEN)]
        async with asyncio.timeout(WITHIN_S):
            while await gauge(gateway, "serac_decisions_open") < MOST_OPEN:
                await asyncio.sleep(0.01)
            for task in waiting:
                task.cancel()
            while await gauge(gateway, "serac_decisions_open") > THREADS:
                await asyncio.sleep(0.01)
        await asyncio.gather(*waiting, return_exceptions=True)
    await assert_recovered(gateway)


async def assert_recovered(gateway: AttackedGateway) -> None:
    """All threads are free again, and edits act."""
    async with asyncio.timeout(WITHIN_S):
        while await gauge(gateway, "serac_decisions_open"):
            await asyncio.sleep(0.02)
        assert is_answered_here(await ask(gateway, OPEN, EDITED_QUESTION))
        assert is_answered_here(await ask(gateway, HIDING, SUPPRESSED_QUESTION))
