"""What `serac doctor` says of the engine of a gateway without models."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serac_gateway import __version__
from serac_gateway.config.model import AccessConfig, EngineConfig, GatewayConfig, UpstreamConfig
from serac_gateway.data_plane.engine_access import EngineHello
from serac_gateway.doctor.certificates import tls_servers
from serac_gateway.doctor.engine import EngineAnswer, answer_findings, engine_findings
from serac_gateway.doctor.findings import Level
from tests.http.running_gateway import running_gateway

HELLO = EngineHello(
    version=__version__,
    protocol="p",
    process="1",
    keys_required=False,
    encoder="e5-1",
    classifier="cross-1",
    sections={},
)
CONFIG = GatewayConfig(engine=EngineConfig(url="tls://engine.internal:8443"))


@pytest.mark.parametrize(
    ("changes", "latency_ms", "required", "level", "words"),
    [
        ({}, 0.4, False, Level.OK, "encoder e5-1"),
        ({}, 40.0, False, Level.WARN, "answers in 40.0 ms"),
        ({"version": "0.0"}, 0.4, False, Level.WARN, "of version 0.0"),
        ({}, 0.4, True, Level.FAIL, "demands no API keys"),
    ],
)
def test_what_its_answer_means(
    changes: dict[str, object], latency_ms: float, required: bool, level: Level, words: str
) -> None:
    answer = EngineAnswer(hello=msgspec.structs.replace(HELLO, **changes), latency_ms=latency_ms)
    config = msgspec.structs.replace(CONFIG, access=AccessConfig(required=required))
    (finding,) = answer_findings(config, answer)
    assert (finding.level, words in finding.detail) == (level, True)


async def test_one_that_runs_is_fine_and_one_that_does_not_is_a_failure(tmp_path: Path) -> None:
    async with running_gateway(through_engine=True) as gateway:
        assert gateway.engine_url is not None
        config = GatewayConfig(engine=EngineConfig(url=gateway.engine_url))
        (finding,) = await engine_findings(config, {})
        assert finding.level in (Level.OK, Level.WARN), finding  # a busy machine may be slow
        assert "classifier threshold-1" in finding.detail
    (finding,) = await engine_findings(config, {})
    assert (finding.level, "there is no such socket" in finding.detail) == (Level.FAIL, True)
    (finding,) = await engine_findings(CONFIG, {})
    assert (finding.level, "engine.ca_file is not set" in finding.detail) == (Level.FAIL, True)


def test_its_certificate_is_looked_at_in_place_of_the_stores() -> None:
    config = msgspec.structs.replace(CONFIG, upstream=UpstreamConfig(url="http://base:8000/v1"))
    assert [(server.name, server.host, server.port) for server in tls_servers(config)] == [
        ("engine", "engine.internal", 8443)
    ]
