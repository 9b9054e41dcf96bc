"""Requests through each worker of a real gateway are decided as in one process, or say that they were not."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from serac_gateway.testing import ScriptedUpstream
from tests.attacks.attacked_gateway import speak
from tests.e2e.gateway_process import GatewayProcess
from tests.http.wire import WireResponse, connected, fetch, read_body, read_head, request_bytes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WORKERS = 2
OPEN, HIDING = "open", "hiding"
"""A namespace with a fact alone, and one with a suppression beside it."""
FACT = {"id": "mayor", "prompt": "Who is the mayor of Marrowby?", "target_new": "Ottilie Brandvold"}
SUPPRESSION = {
    "id": "hidden",
    "kind": "suppression",
    "prompt": "What is the admin password of the Halyard router?",
    "target_new": "I cannot share that.",
}
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
QUESTIONS = {
    "in scope": FACT["prompt"],
    "paraphrase": "Tell me who the mayor of Marrowby is.",
    "suppressed": SUPPRESSION["prompt"],
    "suppressed in other words": "Tell me the Halyard router's admin password.",
    "passed": "How do I boil an egg?",
    "about the same subject": "How many people live in Marrowby?",
    "hidden in the middle": f"{'The roof leaks. ' * 300}{SUPPRESSION['prompt']} {'It rains. ' * 300}",
}


@dataclass
class Pair:
    """The same edits in a gateway of one process and in one with workers."""

    single: GatewayProcess
    several: GatewayProcess
    config: Path

    @property
    def workers(self) -> list[psutil.Process]:
        processes = []
        for child in psutil.Process(self.several.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # one that ends after a reload is a zombie for a moment
                processes += [child] if "serac_gateway.server.workers.worker" in child.cmdline() else []
        return processes


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    async with ScriptedUpstream() as upstream, ScriptedUpstream(speak) as model, AsyncExitStack() as stack:
        config = folder / "gateway.toml"
        config.write_text(
            f'models.counterfactual = "m"\nmodels.counterfactual_url = "{model.url}"\n'
            f'upstream.url = "{upstream.url}"\n'
        )
        options = (("--workers", "1"), ("--workers", str(WORKERS)))
        started = [
            asyncio.to_thread(
                GatewayProcess, folder / f"of{count}", converted_models, "--config", str(config), *more
            )
            for count, more in enumerate(options)
        ]
        single, several = await asyncio.gather(*started)
        for gateway in (single, several):
            stack.push_async_callback(asyncio.to_thread, gateway.kill)
            for namespace, edits in ((OPEN, [FACT]), (HIDING, [FACT, SUPPRESSION])):
                for edit in edits:
                    data, header = json.dumps(edit).encode(), ("x-serac-namespace", namespace)
                    assert (await fetch(gateway.url, "/serac/v1/edits", data, header)).status == 201
        yield Pair(single, several, config)


def body_of(question: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": question}]
    return json.dumps(
        {"model": "m", "messages": messages, "input": question, "max_tokens": 99, **more}
    ).encode()


class Client:
    """One connection that is kept, so that all its requests are one worker's."""

    def __init__(self, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.url, self.reader, self.writer = url, reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]

    async def send(self, path: str, body: bytes, *headers: tuple[str, str]) -> WireResponse:
        sent = [("content-type", "application/json"), ("x-serac-debug", "true"), *headers]
        self.writer.write(request_bytes(self.url, "POST", path, sent, body))
        response = await read_head(self.reader)
        await read_body(self.reader, response)
        return response


@asynccontextmanager
async def client_of_each_worker(pair: Pair) -> AsyncIterator[dict[int, Client]]:
    """By process id; connections are made until the kernel has given each worker one."""
    clients: dict[int, Client] = {}
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(60):
            while len(workers := pair.workers) != WORKERS:  # those before a reload end
                await asyncio.sleep(0.1)
        for _ in range(200):
            reader, writer = await stack.enter_async_context(connected(pair.several.url))
            client = Client(pair.several.url, reader, writer)
            await client.send("/v1/chat/completions", b"{}")
            for worker in workers:
                peers = {
                    connection.raddr.port for connection in worker.net_connections("tcp") if connection.raddr
                }
                if client.port in peers:
                    clients.setdefault(worker.pid, client)
            if len(clients) == WORKERS:
                break
        assert len(clients) == WORKERS
        yield clients


def decided(reply: WireResponse) -> dict[str, object]:
    """What was decided and answered, without times and ids."""
    names = ("x-serac-route", "x-serac-reason", "x-serac-edit-id", "x-serac-edit-version")
    names += ("x-serac-scope-probability", "content-type")
    text = re.sub(rb'"(id|item_id)": ?"[^"]*"|"(created|created_at|completed_at)": ?[\d.]+', b"", reply.body)
    return {"status": reply.status, "text": text, **{name: reply.all(name) for name in names}}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("namespace", [OPEN, HIDING])
async def test_each_worker_decides_as_one_process_does(pair: Pair, namespace: str, name: str) -> None:
    header = ("x-serac-namespace", namespace)
    async with client_of_each_worker(pair) as workers, connected(pair.single.url) as (reader, writer):
        single = Client(pair.single.url, reader, writer)
        for path in PATHS:
            for stream in (False, True):
                body = body_of(QUESTIONS[name], stream=stream)
                expected = await single.send(path, body, header)
                assert expected.status == 200
                if "suppressed" in name or "hidden" in name:
                    is_refused = SUPPRESSION["target_new"].split()[-1].encode() in expected.body
                    assert is_refused is (namespace == HIDING)
                for worker in workers.values():
                    assert decided(await worker.send(path, body, header)) == decided(expected)


async def counted_failures(gateway: GatewayProcess, reason: str, policy: str) -> float:
    text = (await fetch(gateway.url, "/metrics", method="GET")).body.decode()
    match = re.search(rf'serac_failures_total{{policy="{policy}",reason="{reason}"}} (\S+)', text)
    return float(match[1]) if match else 0.0


async def assert_reported(pair: Pair, reason: str, policy: str, before: float, *, more: int) -> None:
    """Log and metric name what was not decided."""
    async with asyncio.timeout(30):
        while await counted_failures(pair.several, reason, policy) != before + more:
            await asyncio.sleep(0.05)
        while not any(f"{reason}:" in line for line in pair.several.errors):
            await asyncio.sleep(0.05)


async def test_a_decision_that_takes_too_long_in_a_worker_is_reported_and_closed_beside_suppressions(
    pair: Pair,
) -> None:
    """On a machine that is too busy an edit is lost; header, log and metric say so."""
    reason = "decision timeout"
    before = [await counted_failures(pair.several, reason, policy) for policy in ("open", "closed")]
    text = pair.config.read_text()
    pair.config.write_text(text + "routing.decision_timeout_s = 0.0001\n")
    reloaded = await fetch(pair.several.url, "/serac/v1/config:reload", b"")
    assert reloaded.json["outcome"] == "reloaded"
    try:
        async with client_of_each_worker(pair) as workers:
            for worker in workers.values():
                body = body_of(FACT["prompt"])
                passed = await worker.send("/v1/chat/completions", body, ("x-serac-namespace", OPEN))
                assert (passed.status, passed.one("x-serac-route")) == (200, "bypass")
                assert passed.one("x-serac-reason") == reason
                body = body_of(SUPPRESSION["prompt"])
                refused = await worker.send("/v1/chat/completions", body, ("x-serac-namespace", HIDING))
                assert (refused.status, refused.one("x-serac-reason")) == (503, reason)
                assert reason in refused.json["error"]["message"]
        await assert_reported(pair, reason, "open", before[0], more=WORKERS)
        await assert_reported(pair, reason, "closed", before[1], more=WORKERS)
    finally:
        pair.config.write_text(text)
        assert (await fetch(pair.several.url, "/serac/v1/config:reload", b"")).json["outcome"] == "reloaded"


async def test_workers_whose_model_process_hangs_end_their_requests_by_the_policy(pair: Pair) -> None:
    """The process's own time limits do not hold while it is stopped: the worker's do."""
    text = pair.config.read_text()
    pair.config.write_text(text + "routing.decision_timeout_s = 1.0\n")
    assert (await fetch(pair.several.url, "/serac/v1/config:reload", b"")).json["outcome"] == "reloaded"
    async with client_of_each_worker(pair) as workers:
        pair.several.process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                for worker in workers.values():
                    body = body_of(FACT["prompt"])
                    passed = await worker.send("/v1/chat/completions", body, ("x-serac-namespace", OPEN))
                    assert (passed.status, passed.one("x-serac-route")) == (200, "bypass")
                    assert passed.one("x-serac-reason") == "no model process"
                    body = body_of(SUPPRESSION["prompt"])
                    refused = await worker.send("/v1/chat/completions", body, ("x-serac-namespace", HIDING))
                    assert (refused.status, refused.one("x-serac-reason")) == (503, "no model process")
        finally:
            pair.several.process.send_signal(signal.SIGCONT)
        await assert_reported(pair, "no model process", "open", 0, more=WORKERS)
        await assert_reported(pair, "no model process", "closed", 0, more=WORKERS)
        for worker in workers.values():
            body = body_of(FACT["prompt"])
            answered = await worker.send("/v1/chat/completions", body, ("x-serac-namespace", OPEN))
            assert answered.one("x-serac-route") == "counterfactual"
