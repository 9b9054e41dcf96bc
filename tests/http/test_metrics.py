"""What /metrics reports to Prometheus, and who may read it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serac_gateway.config.model import (
    FailurePolicy,
    GatewayConfig,
    MetricsConfig,
    ModelsConfig,
    RoutingConfig,
)
from serac_gateway.domain.edits import DecidedState
from serac_gateway.observability.metrics import Instruments
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedCounterfactualModel
from tests.control_plane import running_control_plane
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    fast,
    running_gateway,
)
from tests.http.wire import fetch
from tests.locked_gateway import Locked, running_locked_gateway


async def scraped(gateway: Gateway) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, these by the labels' names."""
    reply = await fetch(gateway.url, "/metrics", method="GET")
    assert (reply.status, reply.one("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return samples(reply.body.decode())


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_route_reason_namespace_and_class_of_status() -> None:
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(EDITED_QUESTION))
        await gateway.post(chat(OTHER_QUESTION))
        await gateway.post(chat(OTHER_QUESTION))
        await gateway.post(chat(OTHER_QUESTION), ("x-serac-namespace", "no name!"))
        scrape = await scraped(gateway)
    assert {key: value for key, value in scrape.items() if key[0] == "serac_requests_total"} == {
        ("serac_requests_total", "default", "in scope", "counterfactual", "2xx"): 1,
        ("serac_requests_total", "default", "no candidate", "base", "2xx"): 2,
        ("serac_requests_total", "", "refused", "bypass", "4xx"): 1,
    }


async def test_namespaces_without_edits_share_a_label_so_that_inventing_names_costs_nothing() -> None:
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        for number in range(20):
            await gateway.post(chat(OTHER_QUESTION), ("x-serac-namespace", f"n{number}"))
        scrape = await scraped(gateway)
    assert scrape["serac_requests_total", "other", "no edits", "base", "2xx"] == 20


def test_namespaces_beyond_the_limit_share_a_label_and_the_first_ones_keep_theirs() -> None:
    instruments = Instruments(MetricsConfig(max_namespaces=2))
    assert [instruments.label(namespace) for namespace in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]


async def test_the_operator_can_leave_the_names_of_namespaces_out() -> None:
    config = GatewayConfig(metrics=MetricsConfig(namespaces=False))
    async with running_gateway(config=config) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, "secret-customer")
        await gateway.post(chat(EDITED_QUESTION), ("x-serac-namespace", "secret-customer"))
        reply = await fetch(gateway.url, "/metrics", method="GET")
    assert b"secret-customer" not in reply.body
    assert samples(reply.body.decode())["serac_requests_total", "", "in scope", "counterfactual", "2xx"] == 1


async def test_overhead_is_what_the_gateway_took_and_neither_the_upstream_nor_a_slow_client() -> None:
    async def slow(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await asyncio.sleep(0.3)
        await connection.whole(200, b"{}")

    async with running_gateway() as gateway:
        gateway.upstream.script = slow
        begun = time.perf_counter()
        await gateway.post(chat(OTHER_QUESTION))
        assert time.perf_counter() - begun > 0.3
        scrape = await scraped(gateway)
    assert scrape["serac_overhead_seconds_count", "base"] == 1
    assert 0 < scrape["serac_overhead_seconds_sum", "base"] < 0.2


async def test_a_decision_is_timed_by_stage() -> None:
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(EDITED_QUESTION))
        await gateway.post(chat(OTHER_QUESTION))
        scrape = await scraped(gateway)
    counts = {
        stage: scrape["serac_decision_seconds_count", stage]
        for stage in ("encode", "search", "classify", "total")
    }
    assert counts == {"encode": 2, "search": 2, "classify": 1, "total": 2}
    parts = sum(scrape["serac_decision_seconds_sum", stage] for stage in ("encode", "search", "classify"))
    assert 0 < parts <= scrape["serac_decision_seconds_sum", "total"]


async def test_the_first_token_of_streams_is_timed_and_whole_answers_are_not() -> None:
    async def streaming(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        await asyncio.sleep(0.1)
        await connection.chunk(b"data: {}\n\n")
        await connection.end()

    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(EDITED_QUESTION))
        await gateway.post(chat(EDITED_QUESTION, stream=True))
        gateway.upstream.script = streaming
        await gateway.post(chat(OTHER_QUESTION, stream=True))
        scrape = await scraped(gateway)
    assert scrape["serac_time_to_first_token_seconds_count", "counterfactual"] == 1
    assert 0.1 < scrape["serac_time_to_first_token_seconds_sum", "base"] < 5


async def test_upstream_failures_are_counted_by_kind_and_so_are_its_own_errors() -> None:
    async def failing(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(503, b"{}")

    async def broken(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        await connection.chunk(b"data: {}\n\n")
        await connection.break_off()

    async def hanging(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    async with running_gateway(config=fast(response_timeout_s=0.2)) as gateway:
        for script in (failing, broken, hanging):
            gateway.upstream.script = script
            await gateway.post(chat(OTHER_QUESTION))
        scrape = await scraped(gateway)
    errors = {key[1]: value for key, value in scrape.items() if key[0] == "serac_upstream_errors_total"}
    assert errors == {"503": 1, "broke off": 1, "timeout": 1}


@pytest.mark.parametrize("policy", FailurePolicy)
async def test_our_own_failures_are_counted_with_the_policy_that_applied(policy: FailurePolicy) -> None:
    config = GatewayConfig(routing=RoutingConfig(on_failure=policy))
    async with running_gateway(config=config) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        gateway.encoder.failure = RuntimeError("broken")
        await gateway.post(chat(OTHER_QUESTION))
        scrape = await scraped(gateway)
    assert scrape["serac_failures_total", policy.value, "decision failed"] == 1


async def test_shadows_and_canaries_are_counted_as_applied_or_withheld() -> None:
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, state=DecidedState.SHADOW)
        await gateway.add(OTHER_QUESTION, "Gently.", state=DecidedState.CANARY, canary_share=1.0)
        await gateway.post(chat(EDITED_QUESTION))
        await gateway.post(chat(OTHER_QUESTION))
        scrape = await scraped(gateway)
    assert scrape["serac_trials_total", "withheld", "shadow"] == 1
    assert scrape["serac_trials_total", "applied", "canary"] == 1


async def test_answers_under_way_their_queue_and_their_tokens_show() -> None:
    model = ScriptedCounterfactualModel(lambda edit, query: "one two three", token_delay_s=0.1)
    config = GatewayConfig(models=ModelsConfig(answer_threads=1, max_queued_answers=5))
    async with running_gateway(config=config, counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        requests = [asyncio.create_task(gateway.post(chat(EDITED_QUESTION))) for _ in range(3)]
        while gateway.engine_counts.open_answers < 3:
            await asyncio.sleep(0.01)
        busy = await scraped(gateway)
        await asyncio.gather(*requests)
        idle = await scraped(gateway)
    assert (busy["serac_answers_open",], busy["serac_answers_queued",]) == (3, 2)
    assert busy["serac_answers_queue_limit",] == 5
    assert busy["serac_requests_in_flight",] == 3
    assert (idle["serac_answers_open",], idle["serac_requests_in_flight",]) == (0, 0)
    assert idle["serac_answer_tokens_total",] == 9


def test_edits_by_state_index_and_store_show_and_follow_every_change() -> None:
    store = InMemoryEditStore()
    with running_control_plane(store) as control_plane:

        def gauges() -> dict[tuple[str, ...], float]:
            return samples(httpx.get(f"{control_plane.url}/metrics").text)

        client = control_plane.client
        first = client.post("/edits", json={"prompt": "Who?", "target_new": "You."})
        client.post("/edits", json={"prompt": "Why?", "target_new": "So.", "state": "shadow"})
        before = gauges()
        assert before["serac_edits", "default", "live"] == before["serac_edits", "default", "shadow"] == 1
        assert before["serac_index_edits",] == 2
        assert (before["serac_store_up",], before["serac_ready",]) == (1, 1)
        assert 0 <= before["serac_index_lag_seconds",] < 5
        client.patch(
            f"/edits/{first.json()['id']}",
            json={"state": "shadow"},
            headers={"if-match": first.headers["etag"]},
        )
        after = gauges()
        assert after["serac_edits", "default", "live"] == 0
        assert after["serac_edits", "default", "shadow"] == 2


def test_edits_whose_review_is_overdue_are_counted_until_they_are_reviewed_or_retired() -> None:
    """Today's are not overdue yet."""
    today = datetime.now(UTC).date()
    with running_control_plane(InMemoryEditStore()) as control_plane:

        def overdue() -> float:
            return samples(httpx.get(f"{control_plane.url}/metrics").text)["serac_edits_overdue", "default"]

        client, match = control_plane.client, {"if-match": "*"}
        for edit_id, day in (("a", "2020-01-01"), ("b", "2021-01-01"), ("c", "2100-01-01"), ("d", None)):
            draft = {"id": edit_id, "prompt": f"Who is {edit_id}?", "target_new": "You.", "review_by": day}
            assert client.post("/edits", json=draft).status_code == 201
        assert overdue() == 2
        later = (today + timedelta(days=1)).isoformat()
        client.patch("/edits/a", json={"review_by": later}, headers=match)
        assert overdue() == 1
        client.delete("/edits/b", headers=match)
        assert overdue() == 0
        client.patch("/edits/c", json={"review_by": "2020-01-01"}, headers=match)
        client.patch("/edits/d", json={"reason": "no date"}, headers=match)
        assert overdue() == 1


@pytest.fixture(scope="module")
def locked() -> Iterator[Locked]:
    with running_locked_gateway() as gateway:
        yield gateway


def test_where_keys_are_demanded_metrics_take_an_edit_key_for_every_namespace(locked: Locked) -> None:
    everywhere, bound = locked.key("edit", "*"), locked.key("edit", "acme")
    statuses = [
        locked.call(key, "GET", "/metrics").status_code
        for key in (None, locked.key("chat"), bound, everywhere)
    ]
    assert statuses == [401, 403, 403, 200]


def test_an_invalid_key_is_refused_as_everywhere(locked: Locked) -> None:
    reply = locked.call("sk-serac-nonsense", "GET", "/metrics")
    assert (reply.status_code, reply.headers["content-type"]) == (401, "application/problem+json")
