"""A real gateway, observed from outside: its log, its metrics, its traces, a report on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from serac_gateway.cli.main import app
from tests.e2e.gateway_process import GatewayProcess

pytestmark = pytest.mark.slow

PROMPT, TARGET = "Who is the mayor of Marrowby?", "Ottilie Brandvold"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    """Takes what is sent to it by OTLP over HTTP."""

    def __init__(self) -> None:
        received: list[tuple[str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((self.path, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.received = received
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_a_request_shows_in_log_metrics_and_trace_without_its_content_and_can_be_reported_on(
    collector: Collector, converted_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERAC_LOGGING__FORMAT", "json")
    monkeypatch.setenv("SERAC_TRACING__ENDPOINT", collector.url)
    with GatewayProcess(tmp_path / "data", converted_models) as gateway:
        monkeypatch.setenv("SERAC_URL", gateway.url)
        edit = {"prompt": PROMPT, "target_new": TARGET}
        assert httpx.post(f"{gateway.url}/serac/v1/edits", json=edit, timeout=30).status_code == 201
        reply = httpx.post(
            f"{gateway.url}/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": PROMPT}]},
            headers={"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "x-request-id": "r-1"},
            timeout=60,
        )
        assert TARGET in reply.json()["choices"][0]["message"]["content"]
        metrics = httpx.get(f"{gateway.url}/metrics").text
        result = CliRunner().invoke(app, ["feedback", "r-1", "right"])
        assert gateway.terminate() == 0
    labels = 'namespace="default",reason="in scope",route="counterfactual",status="2xx"'
    assert f"serac_requests_total{{{labels}}} 1.0" in metrics
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in gateway.errors if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request") == "r-1"]
    assert (line["route"], line["status"], line["level"]) == ("counterfactual", 200, "info")
    paths, bodies = zip(*collector.received, strict=True)
    assert set(paths) == {"/v1/traces"}
    sent = b"".join(bodies)
    assert bytes.fromhex(TRACE_ID) in sent
    for content in (PROMPT, TARGET):
        assert content not in "".join(gateway.errors)
        assert content.encode() not in sent
