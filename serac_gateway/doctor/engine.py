"""The engine of a gateway without models: whether it can be reached from here, and is of this version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import aiohttp
import msgspec

from serac_gateway import __version__
from serac_gateway.config.model import GatewayConfig
from serac_gateway.data_plane.engine_access import (
    SECRET_HEADER,
    EngineHello,
    engine_secret,
    engine_tls,
    failure_text,
    parse_engine_address,
    read_hello,
)
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.errors import ConfigError, ModelUnavailableError

_SLOW_MS = 5.0
"""Every request in a namespace with edits takes a call or two."""


class EngineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine said of itself, and how long that took on an open connection."""

    hello: EngineHello
    latency_ms: float


async def engine_findings(config: GatewayConfig, environment: Mapping[str, str]) -> list[Finding]:
    """What is to be said of the engine at `config.engine.url`."""
    try:
        answer = await _answer_of(config, environment)
    except ConfigError as error:
        return [failure("engine", error.message, "see the message")]
    except ModelUnavailableError as error:
        return [failure("engine", f"{config.engine.url}: {error.message}", _START)]
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        return [failure("engine", f"{config.engine.url}: {failure_text(exc)}", _START)]
    return answer_findings(config, answer)


def answer_findings(config: GatewayConfig, answer: EngineAnswer) -> list[Finding]:
    """What the engine's answer means for a gateway with this configuration."""
    hello = answer.hello
    findings = []
    if hello.version != __version__:
        detail = f"it is of version {hello.version} and this gateway of {__version__}"
        findings.append(
            warning("engine", detail, "run the same version on both: messages that differ are refused")
        )
    if config.demands_keys and not hello.keys_required:
        findings.append(
            failure(
                "engine", "it demands no API keys, and this gateway does", "set access.required = true there"
            )
        )
    detail = (
        f"{config.engine.url} answers in {answer.latency_ms:.1f} ms, with encoder {hello.encoder} and"
        f" classifier {hello.classifier}"
    )
    if answer.latency_ms > _SLOW_MS:
        findings.append(warning("engine", detail, "put gateway and engine closer together"))
    return findings or [fine("engine", detail)]


async def _answer_of(config: GatewayConfig, environment: Mapping[str, str]) -> EngineAnswer:
    engine = config.engine
    address = parse_engine_address(engine.url or "", key="engine.url")
    tls = engine_tls(engine, serves=False) if address.path is None else None
    secret = engine_secret(environment)
    async with (
        asyncio.timeout(2 * engine.connect_timeout_s),
        aiohttp.ClientSession(
            address.base_url,
            connector=address.connector(tls, limit=1),
            headers={} if secret is None else {SECRET_HEADER: secret},
        ) as session,
    ):
        await read_hello(session)
        begun = time.perf_counter()
        hello = await read_hello(session)
        return EngineAnswer(hello=hello, latency_ms=1000 * (time.perf_counter() - begun))


_START = "start it with `serac engine serve`, or mend what the message says"
