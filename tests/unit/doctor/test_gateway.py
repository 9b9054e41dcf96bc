"""What the running gateway reports of itself."""

from __future__ import annotations

import json

import pytest

from serac_gateway.config.model import GatewayConfig, ServerConfig
from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.gateway import gateway_report, gateway_url
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream

READY = {"ready": True, "missing": {}, "store": "reachable", "quarantined_namespaces": 0}


@pytest.mark.parametrize(
    ("changed", "levels", "words"),
    [
        ({}, [Level.OK], "is ready"),
        ({"ready": False, "missing": {"edits": "5 loaded"}}, [Level.FAIL], "edits: 5 loaded"),
        ({"store": "no answer within 1 s"}, [Level.FAIL], "cannot write: no answer"),
        ({"quarantined_namespaces": 2}, [Level.FAIL], "2 namespaces are quarantined"),
    ],
)
async def test_its_report_is_read(changed: dict[str, object], levels: list[Level], words: str) -> None:
    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        assert request.target == "/health/ready"
        await connection.whole(200 if not changed else 503, json.dumps(READY | changed).encode())

    async with ScriptedUpstream(script) as server:
        report = await gateway_report(server.url.removesuffix("/v1"))
    assert (report.running, [finding.level for finding in report.findings]) == (True, levels)
    assert words in report.findings[0].detail


async def test_something_else_at_its_address_fails_and_nothing_is_no_failure() -> None:
    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"<html>")

    async with ScriptedUpstream(script) as server:
        url = server.url.removesuffix("/v1")
        other = await gateway_report(url)
    assert [finding.level for finding in other.findings] == [Level.FAIL]
    stopped = await gateway_report(url)
    assert (stopped.running, [finding.level for finding in stopped.findings]) == (False, [Level.OK])


async def test_something_that_breaks_off_fails() -> None:
    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.break_off()

    async with ScriptedUpstream(script) as server:
        report = await gateway_report(server.url.removesuffix("/v1"))
    assert [finding.level for finding in report.findings] == [Level.FAIL]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("10.0.0.1", "http://10.0.0.1:8080"),
    ],
)
def test_its_address_is_reachable_from_this_machine(host: str, url: str) -> None:
    assert gateway_url(GatewayConfig(server=ServerConfig(host=host))) == url
