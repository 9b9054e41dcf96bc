"""A real request to an upstream: its list of models, and one token of a chat."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from serac_gateway.config.model import UpstreamConfig, upstream_api_key_variable
from serac_gateway.config.upstream_url import without_secrets
from serac_gateway.data_plane.upstream.base import UpstreamRequest
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.doctor.clocks import date_header_ahead_s
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.errors import ConfigError, UpstreamError

_TIMEOUT_S = 60.0
"""Of one request: a large model may have to be loaded."""
_MAX_BYTES = 4_000_000
_QUOTED = 200


class UpstreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the requests."""

    findings: list[Finding]
    clock_ahead_s: float | None = None
    """Of the server's Date header; None: it sent none."""


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes
    latency_ms: float
    clock_ahead_s: float | None


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


async def upstream_report(
    name: str | None, config: UpstreamConfig, *, api_key: str | None, models: Sequence[str] = ("*",)
) -> UpstreamReport:
    """Ask the upstream of that name; `models`: patterns of those that are sent to it."""
    where = f"upstream{'' if name is None else 's.' + name} {without_secrets(config.url or '')!r}"
    limits = {
        "connect_timeout_s": min(config.connect_timeout_s, _TIMEOUT_S),
        "response_timeout_s": _TIMEOUT_S,
    }
    try:
        upstream = HttpUpstream(msgspec.structs.replace(config, **limits), api_key=api_key)
    except ConfigError as error:
        return UpstreamReport(findings=[failure("upstream", error.message, "correct that key")])
    try:
        async with asyncio.timeout(2 * _TIMEOUT_S):
            listed = await _sent(upstream, "GET", b"/models")
            report = _refusal(where, listed, name, api_key) or await _one_token(
                upstream, where, listed, models
            )
        return UpstreamReport(findings=[report], clock_ahead_s=listed.clock_ahead_s)
    except (UpstreamError, TimeoutError) as error:
        cause = error.message if isinstance(error, UpstreamError) else "it took too long"
        remedy = "start it, correct the URL, or see the TLS finding"
        return UpstreamReport(findings=[failure("upstream", f"{where}: {cause}", remedy)])
    finally:
        await upstream.close()


def _refusal(where: str, listed: _Reply, name: str | None, api_key: str | None) -> Finding | None:
    """What the status of the list of models says; None: go on."""
    variable = upstream_api_key_variable(name)
    if listed.status in (401, 403):
        if api_key is None:
            return warning(
                "upstream",
                f"{where} demands a key ({listed.status}): clients must send theirs, and none could be tried",
                f"set {variable} to have it tried, or to send ours for all clients",
            )
        return failure(
            "upstream", f"{where} refuses the key in {variable} ({listed.status})", f"set {variable} anew"
        )
    if listed.status >= 500:
        return failure("upstream", f"{where} answers {listed.status}: {_quoted(listed)}", "see its log")
    return None


async def _one_token(upstream: HttpUpstream, where: str, listed: _Reply, patterns: Sequence[str]) -> Finding:
    model = _model_in(listed, patterns)
    if model is None:
        return warning(
            "upstream",
            f"{where} lists no model that is sent to it ({listed.status}): nothing could be asked",
            "see that the URL ends with /v1 and that the models of this upstream are named as it names them",
        )
    body = {"model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
    reply = await _sent(upstream, "POST", b"/chat/completions", msgspec.json.encode(body))
    if reply.status == 200 and b"choices" in reply.body:
        return fine("upstream", f"{where} answers as {model} in {reply.latency_ms:,.0f} ms")
    detail = f"{where} answers {reply.status} to a chat with {model}: {_quoted(reply)}"
    if reply.status >= 500 or reply.status == 200:
        return failure("upstream", detail, "see its log; it must speak OpenAI's API")
    return warning("upstream", detail, "see whether clients' requests with their models are answered")


async def _sent(upstream: HttpUpstream, method: str, target: bytes, body: bytes = b"") -> _Reply:
    headers = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
    if body:
        headers.append((b"content-type", b"application/json"))
    request = UpstreamRequest(method=method, target=target, headers=headers, body=body)
    begun_s = time.perf_counter()
    async with upstream.send(request) as response:
        now = datetime.now(UTC)
        content = bytearray()
        async for chunk in response.body:
            content += chunk
            if len(content) > _MAX_BYTES:
                break
    date = dict(response.headers).get(b"date")
    return _Reply(
        status=response.status,
        body=bytes(content),
        latency_ms=(time.perf_counter() - begun_s) * 1_000,
        clock_ahead_s=None if date is None else date_header_ahead_s(date.decode("latin-1"), now=now),
    )


def _model_in(listed: _Reply, patterns: Sequence[str]) -> str | None:
    """The first listed model that is sent there; where there is no list, one that is configured by name."""
    try:
        ids = [model.id for model in msgspec.json.decode(listed.body, type=_Models).data]
    except msgspec.DecodeError:
        ids = [pattern for pattern in patterns if "*" not in pattern]
    return next((id for id in ids if any(fnmatch.fnmatchcase(id, pattern) for pattern in patterns)), None)


def _quoted(reply: _Reply) -> str:
    return repr(reply.body[:_QUOTED].decode("utf-8", "replace"))
