"""What of the traffic is recorded: nothing unless asked for, and no secrets, and not for long."""

from __future__ import annotations

import asyncio
import logging

import pytest

from serac_gateway.config.model import TrafficConfig
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.stores.memory.side_stores import InMemoryTrafficStore
from serac_gateway.stores.ports import RecordedQuery
from serac_gateway.stores.traffic_recorder import TrafficRecorder


def texts(queries: list[Query]) -> list[str]:
    return [query.text for query in queries]


async def test_nothing_is_recorded_by_default() -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig())
    traffic.note("default", Query(text="Who runs Acme?"))
    assert await traffic.recent("default") == []
    assert not traffic.is_on("default")


async def test_only_the_namespaces_named_are_recorded_newest_first() -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig(namespaces=("acme",)))
    for text in ("one", "two"):
        traffic.note("acme", Query(text=text, context=("before",)))
        traffic.note("umbra", Query(text=text))
    assert await traffic.recent("acme") == [
        RecordedQuery(text=text, context=("before",)) for text in ("two", "one")
    ]
    assert await traffic.recent("umbra") == []
    await traffic.close()


@pytest.mark.parametrize(
    "secret",
    [
        "jo.smith+x@mail.example.org", "+49 30 1234567", "4111 1111 1111 1111", "DE89370400440532013000",
        "sk-proj-abcdefghijklmnop1234", "password: hunter2", "the token is abcdef",
        "eyJhbGciOiJIUzI1NiJ9abcdef0123", "AKIAIOSFODNN7EXAMPLE", "a@b.example+jo@example.org",
        "-abcdefghijklmnopqrstuvw-12345-",
    ],
)  # fmt: skip
def test_secrets_are_left_out_of_text_and_context(secret: str) -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig())
    query = Query(
        text=f"My data: {secret}",
        context=(f"It is {secret}!",),
        instructions=f"Mind {secret}",
        questions=(f"Is it {secret}?",),
    )
    redacted = traffic.redacted(query)
    core = secret.rsplit(" ", 1)[-1] if " is " in secret or ":" in secret else secret
    assert core not in redacted.text
    assert core not in redacted.context[0]
    assert core not in redacted.instructions
    assert core not in redacted.questions[0]
    assert len(redacted.questions) == len(redacted.context) == 1
    assert redacted.instructions.startswith("Mind ")
    assert "[redacted]" in redacted.text


@pytest.mark.parametrize(
    "text",
    [
        "Who won the 2025 final?", "What is 17 * 23?", "When does bus 42 leave at 12:30?",
        "Which port does the Lodestar database listen on?", "What does version 2.4.11 bring?",
    ],
)  # fmt: skip
def test_ordinary_questions_stay_as_they_are(text: str) -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig())
    assert traffic.redacted(Query(text=text)).text == text


def test_own_patterns_replace_the_default_ones_and_a_bad_one_is_named() -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig(redact=("Acme",)))
    assert traffic.redacted(Query(text="Acme jo@example.org")).text == "[redacted] jo@example.org"
    with pytest.raises(ConfigError, match=r"'\('"):
        TrafficRecorder(InMemoryTrafficStore(), TrafficConfig(redact=("(",)))


async def test_what_waits_is_written_soon_and_when_the_gateway_ends() -> None:
    store = InMemoryTrafficStore()
    traffic = TrafficRecorder(store, TrafficConfig(namespaces=("*",)))
    traffic.note("default", Query(text="soon"))
    while not await store.recent("default", max_queries=9, ttl_s=60):
        await asyncio.sleep(0.02)
    traffic.note("default", Query(text="at the end"))
    await traffic.close()
    assert texts(await store.recent("default", max_queries=9, ttl_s=60)) == ["at the end", "soon"]


async def test_what_is_cleared_is_gone_also_what_was_not_written_yet() -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig(namespaces=("*",)))
    traffic.note("default", Query(text="written"))
    await traffic.recent("default")
    traffic.note("default", Query(text="waiting"))
    traffic.note("other", Query(text="kept"))
    assert await traffic.clear("default") == 2
    assert await traffic.recent("default") == []
    assert texts(await traffic.recent("other")) == ["kept"]
    await traffic.close()


async def test_a_store_that_fails_costs_the_record_and_logs_no_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(InMemoryTrafficStore):
        async def add(self, namespace: str, queries: object, *, max_queries: int, ttl_s: int) -> None:
            raise StoreUnavailableError("the store is full")

    traffic = TrafficRecorder(Failing(), TrafficConfig(namespaces=("*",)))
    with caplog.at_level(logging.DEBUG):
        traffic.note("default", Query(text="a private question"))
        await asyncio.sleep(0.7)
        await traffic.close()
    assert "the store is full" in caplog.text
    assert "private" not in caplog.text


async def test_queries_beyond_what_can_wait_are_dropped_and_counted() -> None:
    traffic = TrafficRecorder(InMemoryTrafficStore(), TrafficConfig(namespaces=("*",)))
    for number in range(1_005):
        traffic.note("default", Query(text=str(number)))
    assert traffic.dropped == 5
    await traffic.close()
