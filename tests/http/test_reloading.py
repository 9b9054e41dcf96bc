"""Reloading the configuration and weights while requests are served: all of it, or nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from serac_gateway.auth.principals import Role
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ConfigError, ReloadRefusedError
from serac_gateway.server.reload import Reloader
from serac_gateway.server.runtime import Runtime
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.control_plane import running_control_plane
from tests.http.reloadable_gateway import (
    ANSWER,
    ReloadableGateway,
    chat_body,
    reloadable_gateway,
    write_calibration,
)
from tests.http.wire import connected, eventually, fetch, read_body, read_head, request_bytes
from tests.made_keys import bearer, stored_key

QUESTION = "Who is the mayor of Springfield?"
CHAT = "/v1/chat/completions"
EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[ReloadableGateway]:
    async with reloadable_gateway(tmp_path) as running:
        await running.add(QUESTION)
        yield running


async def route(gateway: ReloadableGateway, question: str = QUESTION) -> str:
    return (await gateway.ask(question)).one("x-serac-route")


async def reload_count(gateway: ReloadableGateway, outcome: str) -> float:
    text = (await fetch(gateway.url, "/metrics", method="GET")).body.decode()
    name = f'serac_config_reloads_total{{outcome="{outcome}"}} '
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return float(line.removeprefix(name))


async def test_a_changed_threshold_is_in_force_with_the_reply(gateway: ReloadableGateway) -> None:
    assert await route(gateway) == "counterfactual"
    gateway.configure("routing.scope_threshold = 1.0\n")
    reply = await gateway.reload()
    assert (reply.status, reply.json) == (
        200,
        {"outcome": "reloaded", "generation": 2, "changed": ["routing.scope_threshold"], "opened": []},
    )
    assert await route(gateway) == "base"
    assert [runtime.number for runtime in gateway.reloaded] == [2]
    assert await reload_count(gateway, "reloaded") == 1
    assert b"serac_config_generation 2.0" in (await fetch(gateway.url, "/metrics", method="GET")).body


async def test_the_control_plane_decides_by_the_new_configuration_too(gateway: ReloadableGateway) -> None:
    body = json.dumps({"queries": [QUESTION]}).encode()
    assert (await fetch(gateway.url, "/serac/v1/scope", body)).json["decisions"][0]["in_scope"]
    gateway.configure("routing.scope_threshold = 1.0\n")
    await gateway.reload()
    assert not (await fetch(gateway.url, "/serac/v1/scope", body)).json["decisions"][0]["in_scope"]


async def test_without_a_change_nothing_is_opened_and_the_generation_stays(
    gateway: ReloadableGateway,
) -> None:
    resources = len(gateway.process.shared)
    reply = await gateway.reload()
    assert reply.json == {"outcome": "unchanged", "generation": 1, "changed": [], "opened": []}
    assert (gateway.reloaded, len(gateway.process.shared)) == ([], resources)
    assert await reload_count(gateway, "unchanged") == 1
    assert await route(gateway) == "counterfactual"


async def test_weights_changed_in_place_are_loaded_anew_with_their_threshold(
    gateway: ReloadableGateway,
) -> None:
    write_calibration(gateway.classifier, scope_threshold=1.0)
    assert await route(gateway) == "counterfactual"
    reply = await gateway.reload()
    assert reply.json["changed"] == []
    assert reply.json["opened"] == ["scope classifier"]
    assert await route(gateway) == "base"


async def test_an_unchanged_upstream_keeps_its_connections(gateway: ReloadableGateway) -> None:
    await gateway.ask("one")
    gateway.configure("routing.candidates = 2\n")
    await gateway.reload()
    await gateway.ask("two")
    assert gateway.upstream.connections_made == 1
    gateway.configure("upstream.max_connections = 7\n")
    assert (await gateway.reload()).json["opened"] == ["upstream"]
    await gateway.ask("three")
    assert gateway.upstream.connections_made == 2
    await eventually(lambda: gateway.upstream.open_connections == 1)


BROKEN = {
    "no TOML": ("this is = = no TOML", "is not valid TOML"),
    "an unknown key": (
        "routing.scope_treshold = 0.5\n",
        "unknown key 'routing.scope_treshold'; allowed in",
    ),
    "a wrong value": ("routing.scope_threshold = 7\n", "routing.scope_threshold = 7 is not allowed"),
    "a wrong pattern": (
        'traffic.redact = ["("]\n',
        "traffic.redact holds '(', which is no regular expression",
    ),
    "no such authorities": ('upstream.ca_file = "/nonexistent.pem"\n', "cannot be used"),
    "nobody could enter": ("access.required = true\n", "there is none; make the first"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_configuration_that_cannot_be_used_changes_nothing_and_is_reported(
    gateway: ReloadableGateway, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, reason = BROKEN[name]
    resources = len(gateway.process.shared)
    gateway.configure("routing.candidates = 1\n" + text)  # the good half is not taken either
    reply = await gateway.reload()
    assert reply.status == 409
    assert reply.json["type"] == "urn:serac:problem:reload-refused"
    assert reply.json["detail"].startswith("nothing was reloaded, generation 1 goes on: ")
    assert reason in reply.json["detail"]
    assert any(reason in record.getMessage() and record.levelno == logging.ERROR for record in caplog.records)
    assert (gateway.reloaded, gateway.runtimes.current.number) == ([], 1)
    assert len(gateway.process.shared) == resources
    assert await route(gateway) == "counterfactual"
    assert await reload_count(gateway, "refused") == 1


async def test_a_config_file_that_is_gone_changes_nothing(gateway: ReloadableGateway) -> None:
    gateway.file.unlink()
    reply = await gateway.reload()
    assert (reply.status, reply.json["generation"]) == (409, 1)
    assert "cannot read the config file" in reply.json["detail"]
    assert await route(gateway) == "counterfactual"


async def test_a_missing_classifier_leaves_the_old_one_and_what_was_opened_beside_it_is_closed(
    gateway: ReloadableGateway,
) -> None:
    async with ScriptedUpstream() as other:
        gateway.configure(upstream_url=other.url, classifier="nowhere")
        resources = len(gateway.process.shared)
        reply = await gateway.reload()
        assert reply.status == 409
        assert "models.scope_classifier 'nowhere' is not a folder" in reply.json["detail"]
        assert len(gateway.process.shared) == resources
        assert await route(gateway, "other") == "base"
        assert (len(gateway.upstream.requests), other.requests) == (1, [])


async def test_a_damaged_weight_file_leaves_the_old_weights(gateway: ReloadableGateway) -> None:
    write_calibration(gateway.classifier, text='{"slope": ')
    reply = await gateway.reload()
    assert (reply.status, gateway.runtimes.current.number) == (409, 1)
    assert "calibration.json' is damaged" in reply.json["detail"]
    assert await route(gateway) == "counterfactual"
    write_calibration(gateway.classifier, scope_threshold=1.0)
    assert (await gateway.reload()).json["generation"] == 2
    assert await route(gateway) == "base"


async def test_what_needs_a_restart_is_refused_whole_with_both_values_and_no_password(
    gateway: ReloadableGateway,
) -> None:
    gateway.configure(
        'store.url = "redis://ops:hunter2@redis:6379"\nserver.port = 9\nrouting.scope_threshold = 1.0\n'
    )
    reply = await gateway.reload()
    assert reply.status == 409
    assert reply.json["keys"] == ["server.port", "store.url"]
    assert "server.port (now 8080, then 9)" in reply.json["detail"]
    assert "store.url (now None, then 'redis://***@redis:6379'); restart the gateway" in reply.json["detail"]
    assert b"hunter2" not in reply.body
    assert await route(gateway) == "counterfactual"


async def test_a_stream_ends_where_it_began_and_its_upstream_is_closed_only_then(
    gateway: ReloadableGateway,
) -> None:
    more = asyncio.Event()

    async def slowly(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: old\n\n")
        await more.wait()
        await connection.chunk(b"data: still old\n\n")
        await connection.end()

    gateway.upstream.script = slowly
    async with ScriptedUpstream() as other, connected(gateway.url) as (reader, writer):
        writer.write(request_bytes(gateway.url, "POST", CHAT, [], chat_body("x", stream=True)))
        stream = await read_head(reader)
        gateway.configure(upstream_url=other.url)
        assert (await gateway.reload()).json["opened"] == ["upstream"]
        assert [runtime.number for runtime in gateway.runtimes.live] == [2, 1]
        assert (await gateway.ask("y")).body == chat_body("y")
        assert len(other.requests) == 1
        more.set()
        await read_body(reader, stream)
        assert (stream.complete, stream.body) == (True, b"data: old\n\ndata: still old\n\n")
    await eventually(lambda: gateway.upstream.open_connections == 0)
    assert [runtime.number for runtime in gateway.runtimes.live] == [2]


async def test_two_hundred_requests_and_streams_during_reloads_all_end_byte_for_byte(
    gateway: ReloadableGateway,
) -> None:
    async def in_pieces(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if b'"stream": true' not in request.body:
            await connection.whole(200, request.body)
            return
        await connection.head(200, *EVENTS)
        for count in range(10):
            await connection.chunk(b"data: %d %b\n\n" % (count, request.body))
            await asyncio.sleep(0.02)
        await connection.end()

    async def send_request(number: int) -> None:
        await asyncio.sleep(number * 0.005)
        body = chat_body(f"question {number}", stream=number % 2 == 0)
        reply = await fetch(gateway.url, CHAT, body)
        events = b"".join(b"data: %d %b\n\n" % (count, body) for count in range(10))
        expected = events if number % 2 == 0 else body
        assert (reply.status, reply.complete, reply.body) == (200, True, expected)
        assert reply.one("x-serac-route") == "base"  # decided, not passed because nothing could decide

    gateway.upstream.script = in_pieces
    async with ScriptedUpstream(in_pieces) as other:
        asking = asyncio.gather(*(send_request(number) for number in range(200)))
        reloads = 0
        while not asking.done():
            write_calibration(gateway.classifier, scope_threshold=0.9 + 0.01 * (reloads % 2))
            gateway.configure(upstream_url=(other if reloads % 2 == 0 else gateway.upstream).url)
            assert (await gateway.reload()).json["outcome"] == "reloaded"
            reloads += 1
        await asking
        assert reloads > 5
        assert gateway.upstream.requests
        assert other.requests
    await eventually(lambda: len(gateway.runtimes.live) == 1)


async def test_in_scope_requests_are_answered_here_through_every_change_of_weights(
    gateway: ReloadableGateway,
) -> None:
    async def ask() -> None:
        for _ in range(40):
            reply = await gateway.ask(QUESTION)
            assert reply.one("x-serac-route") == "counterfactual"
            assert reply.json["choices"][0]["message"]["content"] == ANSWER

    asking = asyncio.gather(*(ask() for _ in range(4)))
    while not asking.done():
        write_calibration(gateway.classifier, scope_threshold=0.5)
        assert (await gateway.reload()).json["opened"] == ["scope classifier"]
    await asking
    assert gateway.upstream.requests == []


async def test_a_new_configuration_is_in_force_only_when_its_workers_are_ready(
    gateway: ReloadableGateway,
) -> None:
    starting, are_ready = asyncio.Event(), asyncio.Event()
    switched: list[int] = []

    async def start_workers(runtime: Runtime) -> Callable[[], None]:
        starting.set()
        await are_ready.wait()
        return lambda: switched.append(gateway.runtimes.current.number)

    gateway.reloader.prepare = start_workers
    before = gateway.runtimes.current.number
    gateway.configure("routing.scope_threshold = 1.0\n")
    reloading = asyncio.ensure_future(gateway.reload())
    await asyncio.wait_for(starting.wait(), 20)
    assert await route(gateway) == "counterfactual"
    assert (gateway.runtimes.current.number, gateway.reloaded, switched) == (before, [], [])
    are_ready.set()
    assert (await asyncio.wait_for(reloading, 20)).status == 200
    assert switched == [before + 1]
    assert await route(gateway) == "base"


async def test_a_configuration_whose_workers_do_not_start_is_never_in_force(
    gateway: ReloadableGateway,
) -> None:
    async def fail(runtime: Runtime) -> Callable[[], None]:
        raise ConfigError("worker-4 ended with status 1 before it served")

    gateway.reloader.prepare = fail
    before = gateway.runtimes.current
    gateway.configure("routing.scope_threshold = 1.0\n")
    reply = await gateway.reload()
    assert "worker-4 ended with status 1" in reply.json["detail"]
    assert gateway.runtimes.current is before
    assert await route(gateway) == "counterfactual"


async def test_of_two_reloads_at_once_the_second_waits_and_finds_what_the_first_did_not_read(
    gateway: ReloadableGateway,
) -> None:
    gateway.configure("routing.candidates = 2\n")
    first, second = await asyncio.gather(gateway.reload(), gateway.reload())
    assert sorted((first.json["outcome"], second.json["outcome"])) == ["reloaded", "unchanged"]
    assert {first.json["generation"], second.json["generation"]} == {2}


async def test_access_is_reloaded_and_only_admins_of_every_namespace_may_reload(
    gateway: ReloadableGateway,
) -> None:
    keys = gateway.process.store.api_keys()
    admin = await stored_key(keys, role=Role.ADMIN, namespaces=("*",))
    editor = await stored_key(keys, role=Role.EDIT, namespaces=("*",))
    of_one = await stored_key(keys, role=Role.ADMIN, namespaces=("default",))
    gateway.configure("access.required = true\n")
    assert (await gateway.reload()).json["changed"] == ["access.required"]
    assert (await gateway.reload()).status == 401
    assert (await gateway.ask()).status == 401
    for key, status in ((editor, 403), (of_one, 403), (admin, 200)):
        reply = await fetch(gateway.url, "/serac/v1/config:reload", b"", bearer(key))
        assert reply.status == status, reply.body


async def test_twenty_reloads_leave_no_thread_file_or_part_behind(gateway: ReloadableGateway) -> None:
    async def reload(number: int) -> None:
        write_calibration(gateway.classifier, scope_threshold=0.5 + 0.01 * (number % 2))
        gateway.configure(
            f"upstream.max_connections = {number}\nmodels.decision_threads = {1 + number % 2}\n"
            f"traffic.max_queries = {number}\nmodels.answer_timeout_s = {number}.0\n"
            'tracing.endpoint = "http://127.0.0.1:9"\ntracing.sample_ratio = 0.0\n'
            f'tracing.service_name = "serac-{number}"\n'
        )
        assert (await gateway.reload()).json["outcome"] == "reloaded"
        assert await route(gateway) == "counterfactual"
        assert await route(gateway, "other") == "base"

    process = psutil.Process()
    for number in range(1, 4):
        await reload(number)
    await eventually(lambda: len(gateway.runtimes.live) == 1)
    await asyncio.sleep(0.1)
    files, threads, resources = process.num_fds(), threading.active_count(), len(gateway.process.shared)
    for number in range(4, 24):
        await reload(number)
    await eventually(lambda: len(gateway.runtimes.live) == 1)
    await eventually(lambda: process.num_fds() <= files + 1)
    await eventually(lambda: threading.active_count() <= threads + 1)
    assert len(gateway.process.shared) == resources


async def test_a_failure_that_nobody_foresaw_changes_nothing_and_its_traceback_is_logged(
    gateway: ReloadableGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> GatewayConfig:
        raise KeyError("unforeseen")

    async def never(number: int, config: GatewayConfig) -> Runtime:
        raise AssertionError("there is no configuration to open")

    reloader = Reloader(
        runtimes=gateway.runtimes,
        read_config=broken,
        open_runtime=never,
        instruments=gateway.process.instruments,
    )
    with pytest.raises(ReloadRefusedError, match=r"it failed unexpectedly \(KeyError\); the log says how"):
        await reloader.reload()
    assert any(record.exc_info for record in caplog.records)
    assert await reload_count(gateway, "refused") == 1
    assert await route(gateway) == "counterfactual"


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.003, 0.006])
async def test_a_reload_that_is_called_off_leaves_nothing_open_and_the_next_one_works(
    gateway: ReloadableGateway, after_s: float
) -> None:
    resources = len(gateway.process.shared)
    write_calibration(gateway.classifier, scope_threshold=1.0)
    gateway.configure("upstream.max_connections = 7\n")
    reloading = asyncio.create_task(gateway.reloader.reload())
    await asyncio.sleep(after_s)
    reloading.cancel()
    await asyncio.gather(reloading, return_exceptions=True)
    await eventually(lambda: len(gateway.process.shared) == resources)
    assert (await gateway.reload()).json["generation"] == 2
    assert await route(gateway) == "base"


async def test_a_gateway_that_cannot_read_its_configuration_again_says_so() -> None:
    with running_control_plane(InMemoryEditStore()) as control_plane:
        reply = await fetch(control_plane.url, "/serac/v1/config:reload", b"")
        assert reply.status == 409
        assert "start it by `serac serve`" in reply.json["detail"]
