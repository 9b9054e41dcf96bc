"""Real requests to an upstream."""

from __future__ import annotations

import json

import pytest

from serac_gateway.config.model import UpstreamConfig
from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.upstream import UpstreamReport, upstream_report
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream

MODELS = json.dumps({"data": [{"id": "small"}, {"id": "large"}]}).encode()
CHAT = json.dumps({"choices": [{"message": {"content": "p"}}]}).encode()


async def reported(
    *replies: tuple[int, bytes],
    api_key: str | None = None,
    models: tuple[str, ...] = ("*",),
    headers: tuple[tuple[str, str], ...] = (),
) -> tuple[UpstreamReport, list[ReceivedRequest]]:
    """The report on an upstream that gives these replies, one after the other."""
    left = list(replies)

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(*left.pop(0), *headers)

    async with ScriptedUpstream(script) as server:
        report = await upstream_report(None, UpstreamConfig(url=server.url), api_key=api_key, models=models)
        return report, server.requests


async def test_an_upstream_that_answers_one_token_is_fine_and_its_clock_is_read() -> None:
    headers = (("date", "Tue, 01 Dec 2020 12:00:00 GMT"),)
    report, requests = await reported(
        (200, MODELS), (200, CHAT), api_key="k", models=("lar*",), headers=headers
    )
    assert [finding.level for finding in report.findings] == [Level.OK]
    assert [(request.method, request.target) for request in requests] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
    ]
    assert json.loads(requests[1].body)["model"] == "large"
    assert json.loads(requests[1].body)["max_tokens"] == 1
    assert {request.header("authorization") for request in requests} == {"Bearer k"}
    assert report.clock_ahead_s is not None
    assert report.clock_ahead_s < -60


@pytest.mark.parametrize(
    ("replies", "api_key", "level", "words"),
    [
        (((401, b"{}"),), None, Level.WARN, "clients must send theirs"),
        (((401, b"{}"),), "k", Level.FAIL, "refuses the key in SERAC_UPSTREAM_API_KEY"),
        (((500, b"oops"),), "k", Level.FAIL, "'oops'"),
        (((404, b"none"),), "k", Level.WARN, "lists no model"),
        (((200, b"<html>"),), "k", Level.WARN, "lists no model"),
        (((200, MODELS), (503, b"busy")), "k", Level.FAIL, "503 to a chat with small"),
        (((200, MODELS), (400, b"no chat model")), "k", Level.WARN, "no chat model"),
        (((200, MODELS), (200, b"<html>")), "k", Level.FAIL, "<html>"),
    ],
)
async def test_each_way_to_fail_is_named(
    replies: tuple[tuple[int, bytes], ...], api_key: str | None, level: Level, words: str
) -> None:
    report, _ = await reported(*replies, api_key=api_key)
    (finding,) = report.findings
    assert (finding.level, words in finding.detail, bool(finding.remedy)) == (level, True, True)


async def test_an_upstream_that_is_not_there_fails() -> None:
    report = await upstream_report(None, UpstreamConfig(url="http://127.0.0.1:1/v1"), api_key=None)
    assert [finding.level for finding in report.findings] == [Level.FAIL]


async def test_a_file_of_authorities_that_is_not_there_fails() -> None:
    config = UpstreamConfig(url="https://127.0.0.1:1/v1", ca_file="/nowhere.pem")
    (finding,) = (await upstream_report(None, config, api_key=None)).findings
    assert (finding.level, "'/nowhere.pem'" in finding.detail) == (Level.FAIL, True)
