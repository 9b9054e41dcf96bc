"""A gateway without models: what it does while its engine is away, and what it refuses to start with."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import typer

from serac_gateway.cli.serve import serve_gateway
from serac_gateway.config.model import (
    EngineConfig,
    FailurePolicy,
    GatewayConfig,
    MetricsConfig,
    RoutingConfig,
    ServerConfig,
    UpstreamConfig,
)
from serac_gateway.errors import ConfigError
from serac_gateway.server.engines.gateway import open_thin_gateway
from serac_gateway.testing import ScriptedUpstream
from tests.http.listening import listening
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, chat, running_gateway
from tests.http.wire import fetch


def thin(folder: Path, url: str = "http://127.0.0.1:9/v1") -> GatewayConfig:
    return GatewayConfig(
        engine=EngineConfig(url=f"unix://{folder / 'engine.sock'}"),
        upstream=UpstreamConfig(url=url),
        routing=RoutingConfig(hold_s=0.0, on_failure=FailurePolicy.OPEN),
        metrics=MetricsConfig(open=True),
    )


@asynccontextmanager
async def served(config: GatewayConfig) -> AsyncIterator[str]:
    async with open_thin_gateway(config) as gateway:
        listener = socket.create_server(("127.0.0.1", 0))
        async with listening(gateway.app, listener, config.server, lifespan="off") as url:
            yield url


async def test_without_an_engine_it_lives_is_not_ready_and_says_why(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, served(thin(tmp_path, upstream.url)) as url:
        assert (await fetch(url, "/health/live", method="GET")).status == 200
        ready = await fetch(url, "/health/ready", method="GET")
        assert (ready.status, set(ready.json["missing"])) == (503, {"engine"})
        metrics = (await fetch(url, "/metrics", method="GET")).body.decode()
        assert "serac_engine_up 0.0" in metrics
        assert "serac_ready 0.0" in metrics
        stats = await fetch(url, "/serac/v1/stats", method="GET")
        assert (stats.status, stats.json["detail"]) == (503, "the engine does not answer; try again")
        # Nobody knows whether API keys are demanded, so nobody is let through.
        refused = await fetch(url, "/v1/chat/completions", json.dumps(chat(EDITED_QUESTION)).encode())
        assert refused.status == 503
        assert upstream.requests == []


async def test_its_requests_are_counted_here_and_its_edits_there() -> None:
    async with running_gateway(through_engine=True) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(chat(EDITED_QUESTION))
        assert reply.json["choices"][0]["message"]["content"] == NEW_ANSWER
        lines = (await fetch(gateway.url, "/metrics", method="GET")).body.decode().splitlines()
        assert "serac_engine_up 1.0" in lines
        assert 'serac_engine_calls_total{outcome="failed"} 0.0' in lines
        assert any(line.startswith('serac_requests_total{namespace="default"') for line in lines)
        assert not any(line.startswith("serac_index_edits") for line in lines)


async def test_metrics_need_a_key_where_keys_are_demanded() -> None:
    async with running_gateway(through_engine=True, keys_required=True) as gateway:
        assert (await fetch(gateway.url, "/metrics", method="GET")).status == 401


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upstream": UpstreamConfig()}, r"upstream\.url is not set"),
        ({"server": ServerConfig(workers=2)}, r"server\.workers is 2"),
        ({"engine": EngineConfig(url="tls://engine:8443")}, r"engine\.ca_file is not set"),
        ({"engine": EngineConfig(url="tls://engine:99999")}, "is not usable"),
    ],
)
async def test_what_cannot_be_served_is_named_at_the_start(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    config = msgspec.structs.replace(thin(tmp_path), **changes)
    with pytest.raises(ConfigError, match=message):
        async with open_thin_gateway(config):
            pass


@pytest.mark.parametrize(
    ("engine", "is_engine", "message"),
    [
        ({"listen": "unix:///nowhere/e.sock"}, False, "start the engine with `serac engine serve`"),
        ({}, True, "engine.listen is not set"),
        ({"listen": "unix:///nowhere/e.sock"}, True, "cannot listen there"),
    ],
)
def test_the_commands_end_with_a_line_and_exit_code_2(
    engine: dict[str, str], is_engine: bool, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        serve_gateway(
            config_file=None,
            overrides={"engine": engine, "server": {"port": 0}},
            on_ready=lambda url: None,
            is_engine=is_engine,
        )
    assert ended.value.exit_code == 2
    assert message in " ".join(capsys.readouterr().err.split())
