"""The line that a request leaves in the log: its fields, and what is never in them (case 14)."""

from __future__ import annotations

import asyncio
import json
import logging

import msgspec
import pytest

from serac_gateway.auth.api_keys import ApiKeyDraft, NewApiKey, new_api_key
from serac_gateway.auth.principals import Role
from serac_gateway.config.model import GatewayConfig, LoggedRequests, LoggingConfig
from serac_gateway.observability.logging import JsonFormatter
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.wire import connected, request_bytes

CONTENT_LOGGED = GatewayConfig(logging=LoggingConfig(content=True))


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What the request log wrote, as JSON has it."""
    written = [record for record in caplog.records if record.name == "serac_gateway.requests"]
    return [json.loads(JsonFormatter().format(record)) for record in written]


def everything(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(JsonFormatter().format(record) for record in caplog.records)


async def some_key(store: InMemoryApiKeyStore) -> NewApiKey:
    from datetime import UTC, datetime

    made = new_api_key(
        ApiKeyDraft(name="app", role=Role.CHAT), pepper=b"", created_by=None, now=datetime.now(UTC)
    )
    await store.add(made.stored)
    return made


async def test_an_answered_request_logs_route_edit_probability_times_sizes_and_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = InMemoryApiKeyStore()
    key = await some_key(keys)
    async with running_gateway(key_store=keys, keys_required=True) as gateway:
        edit = await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(
            chat(EDITED_QUESTION), ("x-serac-api-key", key.text), ("x-request-id", "r-1")
        )
    (line,) = lines(caplog)
    assert {name: line[name] for name in ("request", "method", "path", "route", "reason", "status")} == {
        "request": "r-1",
        "method": "POST",
        "path": "/chat/completions",
        "route": "counterfactual",
        "reason": "in scope",
        "status": 200,
    }
    assert (line["edit"], line["edit_version"], line["probability"]) == (edit.id, 1, 1.0)
    assert (line["namespace"], line["key"]) == ("default", key.stored.key.id)
    assert line["bytes_in"] == len(json.dumps(chat(EDITED_QUESTION)))
    assert line["bytes_out"] == len(reply.body)
    assert 0 < line["encode_ms"] <= line["decide_ms"] <= line["total_ms"]
    assert "upstream_ms" not in line


async def test_a_request_that_is_passed_on_logs_its_times_and_a_query_string_is_no_part_of_its_path(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_gateway() as gateway:
        await gateway.post(b"{}", target="/v1/files?purpose=s3cret")
    (line,) = lines(caplog)
    assert (line["path"], line["route"], line["reason"]) == ("/files", "bypass", "endpoint not classified")
    assert line["upstream_ms"] > 0
    assert 0 <= line["overhead_ms"] <= line["total_ms"]
    assert not {"edit", "probability", "decide_ms"} & line.keys()


@pytest.mark.parametrize("question", [EDITED_QUESTION, OTHER_QUESTION])
async def test_no_line_at_any_level_holds_content_or_keys(
    caplog: pytest.LogCaptureFixture, question: str
) -> None:
    keys = InMemoryApiKeyStore()
    key = await some_key(keys)
    async with running_gateway(key_store=keys, keys_required=True) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(question), ("x-serac-api-key", key.text), ("authorization", "Bearer s3cret"))
    assert len(lines(caplog)) == 1
    written = everything(caplog)
    for secret in ("Springfield", "Lisa", "egg", "s3cret", key.text.rpartition("-")[2]):
        assert secret not in written


async def test_the_line_has_the_upstreams_id_of_the_request_beside_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def reply(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}", ("x-request-id", "up-1"))

    async with running_gateway() as gateway:
        gateway.upstream.script = reply
        await gateway.post(chat(OTHER_QUESTION), ("x-request-id", "mine-1"))
    (line,) = lines(caplog)
    assert (line["request"], line["upstream_request"]) == ("mine-1", "up-1")


async def test_the_query_is_logged_where_the_operator_wants_it(caplog: pytest.LogCaptureFixture) -> None:
    async with running_gateway(config=CONTENT_LOGGED) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(OTHER_QUESTION))
    assert [line["query"] for line in lines(caplog)] == [OTHER_QUESTION]


async def test_a_refused_request_leaves_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    async with running_gateway(keys_required=True) as gateway:
        await gateway.post(chat(OTHER_QUESTION))
    (line,) = lines(caplog)
    assert (line["status"], line["reason"]) == (401, "refused")
    assert not {"namespace", "key"} & line.keys()


async def test_a_client_that_leaves_is_logged_with_the_status_that_it_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_gateway() as gateway:
        async with connected(gateway.url) as (_, writer):
            head = [("content-length", "1000")]
            writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", head, None) + b"{")
            await asyncio.sleep(0.05)
        while not gateway.counts.clients_left:
            await asyncio.sleep(0.01)
    (line,) = lines(caplog)
    assert (line["client_left"], line["reason"]) == (True, "client left")
    assert "status" not in line


@pytest.mark.parametrize(
    ("requests", "paths"),
    [
        (LoggedRequests.ALL, ["/chat/completions", "/models"]),
        (LoggedRequests.DECIDED, ["/chat/completions"]),
        (LoggedRequests.NONE, []),
    ],
)
async def test_the_operator_says_which_requests_leave_a_line(
    caplog: pytest.LogCaptureFixture, requests: LoggedRequests, paths: list[str]
) -> None:
    config = msgspec.structs.replace(GatewayConfig(), logging=LoggingConfig(requests=requests))
    async with running_gateway(config=config) as gateway:
        await _ask_both(gateway)
    assert [line["path"] for line in lines(caplog)] == paths


async def _ask_both(gateway: Gateway) -> None:
    await gateway.add(EDITED_QUESTION, NEW_ANSWER)
    await gateway.post(chat(OTHER_QUESTION))
    await gateway.post(b"", target="/v1/models")
