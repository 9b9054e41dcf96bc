"""The running gateway, if there is one: what its own report on readiness says."""

from __future__ import annotations

import asyncio

import msgspec

from serac_gateway.client.clients import SILENT, AsyncGatewayClient
from serac_gateway.client.errors import ApiError, UnreachableError
from serac_gateway.config.model import GatewayConfig
from serac_gateway.doctor.findings import Finding, failure, fine

_TIMEOUT_S = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class GatewayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt of the gateway."""

    findings: list[Finding]
    running: bool


class _Readiness(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool
    missing: dict[str, str]
    store: str
    quarantined_namespaces: int = 0


def gateway_url(config: GatewayConfig) -> str:
    """Where the configured gateway listens, from this machine."""
    host = config.server.host
    if host not in _ANY and ":" in host:
        host = f"[{host}]"
    return f"http://{_ANY.get(host, host)}:{config.server.port}"


async def gateway_report(url: str) -> GatewayReport:
    """Ask the gateway at `url` whether it decides on requests."""
    client = AsyncGatewayClient(url, attempts=1)
    try:
        async with asyncio.timeout(_TIMEOUT_S), client, client.stream("GET", "/health/ready") as reply:
            readiness = msgspec.json.decode(await reply.read(), type=_Readiness)
    except ApiError as error:  # 503: not ready
        try:
            readiness = msgspec.convert(error.members, _Readiness)
        except msgspec.ValidationError:
            return _something_else(url)
    except msgspec.DecodeError:
        return _something_else(url)
    except UnreachableError as error:
        if isinstance(error.__cause__, SILENT):
            return GatewayReport(findings=[fine("gateway", f"none runs at {url}")], running=False)
        return GatewayReport(findings=[failure("gateway", str(error), _LOG)], running=True)
    except TimeoutError:
        finding = failure("gateway", f"{url} takes connections and does not answer", _LOG)
        return GatewayReport(findings=[finding], running=True)
    return GatewayReport(findings=readiness_findings(url, readiness), running=True)


def _something_else(url: str) -> GatewayReport:
    finding = failure(
        "gateway",
        f"something else answers at {url}",
        "end it, or let the gateway listen elsewhere (server.port)",
    )
    return GatewayReport(findings=[finding], running=False)


def readiness_findings(url: str, readiness: _Readiness) -> list[Finding]:
    """What its report means."""
    findings = []
    if not readiness.ready:
        missing = ", ".join(f"{name}: {progress}" for name, progress in readiness.missing.items())
        findings.append(failure("gateway", f"{url} decides on no requests yet ({missing})", _LOG))
    if readiness.store not in ("reachable", "loading"):
        findings.append(
            failure("gateway", f"{url} cannot write: {readiness.store}", "see the store's finding")
        )
    if readiness.quarantined_namespaces:
        findings.append(
            failure(
                "gateway",
                f"{readiness.quarantined_namespaces} namespaces are quarantined: their requests are refused",
                "run `serac store repair` on them; the gateway's log names them",
            )
        )
    return findings or [fine("gateway", f"{url} is ready")]


_LOG = "wait, or see the gateway's log"
