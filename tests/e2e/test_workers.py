"""Several worker processes in front of one process with the models: one gateway to its clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.console_visitor import visiting
from tests.http.reloadable_gateway import ANSWER, chat_body, config_text, write_calibration
from tests.http.wire import (
    WireResponse,
    connected,
    eventually,
    fetch,
    read_body,
    read_head,
    request_bytes,
)
from tests.made_keys import Header, bearer

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
WORKERS = 3


@dataclass
class Gateway:
    """The running gateway; each call comes on a connection of its own, to whichever worker takes it."""

    url: str
    process: Process
    upstream: ScriptedUpstream
    file: Path
    settings: str
    admin: Header
    chat_key: Header

    def configure(self, upstream_url: str, text: str = "") -> None:
        classifier = self.file.parent / "classifier"
        self.file.write_text(config_text(upstream_url, str(classifier)) + self.settings + text, "utf-8")

    async def next_line(self) -> str:
        """The next line that it writes; "" at its end."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 90)).decode().strip()

    async def ask(self, question: str, *headers: Header, **parameters: object) -> WireResponse:
        return await fetch(self.url, CHAT, chat_body(question, **parameters), *(headers or (self.admin,)))

    async def add(self, prompt: str) -> WireResponse:
        """A suppression: its text is the answer, no model runs."""
        edit = {"kind": "suppression", "prompt": prompt, "target_new": ANSWER}
        return await self.control("/serac/v1/edits", edit)

    async def control(self, path: str, body: object = None, method: str = "POST") -> WireResponse:
        data = b"" if body is None else json.dumps(body).encode()
        return await fetch(
            self.url, path, data, self.admin, ("content-type", "application/json"), method=method
        )

    @property
    def workers(self) -> list[psutil.Process]:
        processes = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
                processes += [child] if "serac_gateway.server.workers.worker" in child.cmdline() else []
        return processes

    async def count_of_routes(self) -> Counter[str]:
        stats = (await self.control("/serac/v1/stats", method="GET")).json
        return Counter({route["route"]: route["count"] for route in stats["routes"]})

    async def in_flight(self) -> float:
        metrics = (await self.control("/metrics", method="GET")).body.decode()
        (line,) = (line for line in metrics.splitlines() if line.startswith("serac_requests_in_flight "))
        return float(line.split()[1])


def connections_to(port: int, worker: psutil.Process) -> int:
    """How many of its clients' connections a worker holds."""
    connections = worker.net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in connections)


@asynccontextmanager
async def starting(folder: Path, upstream: ScriptedUpstream, settings: str = "") -> AsyncIterator[Gateway]:
    """It loads nothing more; its workers start. In a session of its own, as at a terminal."""
    write_calibration(folder / "classifier")
    file = folder / "gateway.toml"
    settings = f"server.port = 0\nserver.workers = {WORKERS}\nserver.drain_timeout_s = 10.0\n{settings}\n"
    gateway = Gateway("", None, upstream, file, settings, ("", ""), ("", ""))  # type: ignore[arg-type]
    gateway.configure(upstream.url)
    gateway.process = process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.workers_gateway", str(file)),
        stdout=PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        gateway.admin, gateway.chat_key = bearer(await gateway.next_line()), bearer(await gateway.next_line())
        yield gateway
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)


@asynccontextmanager
async def running(folder: Path, upstream: ScriptedUpstream, settings: str = "") -> AsyncIterator[Gateway]:
    async with starting(folder, upstream, settings) as gateway:
        gateway.url = await gateway.next_line()
        yield gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with ScriptedUpstream() as upstream, running(tmp_path, upstream) as started:
        yield started


async def test_the_console_has_one_session_in_all_workers(gateway: Gateway) -> None:
    """Whichever worker a connection reaches, the pages are those of the process with the store."""

    def visit() -> None:
        key = gateway.admin[1].removeprefix("Bearer ")
        with visiting(gateway.url, key) as visitor:
            for _ in range(8):
                visitor.client.headers["connection"] = "close"
                assert visitor.get("/n/lab/health").status_code == 200
                assert "are decided" in visitor.text
            visitor.get("/n/lab/new")
            draft = {"prompt": "Who is it?", "target_new": "Nobody", "kind": "fact", "state": "live"}
            visitor.post("/n/lab/new", **draft)
            assert "The edit is in force." in visitor.text
            visitor.get("/n/lab/try")
            visitor.post("/n/lab/try", question="Who is it?")
            assert "an edit governs the question" in visitor.text
            assert visitor.client.get("/console/n/lab/log/export/log").text.count("\n") == 1

    await asyncio.to_thread(visit)


async def test_an_edit_holds_in_every_worker_when_it_is_acknowledged(gateway: Gateway) -> None:
    for number in range(10):
        question = f"Who is mayor number {number} of Springfield?"
        before = await asyncio.gather(*(gateway.ask(question) for _ in range(6)))
        reply = await gateway.add(question)
        after = await asyncio.gather(*(gateway.ask(question) for _ in range(6)))
        assert {reply.one("x-serac-route") for reply in after} == {"counterfactual"}
        assert {reply.json["choices"][0]["message"]["content"] for reply in after} == {ANSWER}
        assert {reply.one("x-serac-route") for reply in before} == {"base"}
        target = f"/serac/v1/edits/{reply.json['id']}"
        gone = await fetch(
            gateway.url, target, b"", gateway.admin, ("if-match", reply.one("etag")), method="DELETE"
        )
        assert gone.status in (200, 204)
        assert (await gateway.ask(question)).one("x-serac-route") == "base"


async def test_what_workers_did_is_counted_once_and_together(gateway: Gateway) -> None:
    await gateway.add("Who is the mayor of Springfield?")
    questions = ["Who is the mayor of Springfield?", "How do I boil an egg?"] * 30
    assert {reply.status for reply in await asyncio.gather(*map(gateway.ask, questions))} == {200}
    async with asyncio.timeout(5):
        while (await gateway.count_of_routes()) != {"counterfactual": 30, "base": 30}:
            await asyncio.sleep(0.02)
    reply = await gateway.ask("Who is the mayor of Springfield?", gateway.admin, ("x-request-id", "r1"))
    assert reply.status == 200
    report = {"request_id": "r1", "verdict": "wrong_edit"}
    async with asyncio.timeout(5):  # any worker may take it, and the model process knows the request
        while (await gateway.control("/serac/v1/feedback", report)).status == 404:
            await asyncio.sleep(0.02)


async def test_a_rate_is_that_of_all_workers(gateway: Gateway) -> None:
    replies = await asyncio.gather(*(gateway.ask("Hello?", gateway.chat_key) for _ in range(12)))
    assert Counter(reply.status for reply in replies) == {200: 5, 429: 7}


async def test_any_worker_goes_on_from_a_response_that_another_answered(gateway: Gateway) -> None:
    await gateway.add("Who is the mayor of Springfield?")
    request = {"model": "m", "input": "Who is the mayor of Springfield?"}
    first = await gateway.control("/v1/responses", request)
    assert first.one("x-serac-route") == "counterfactual"
    for _ in range(2 * WORKERS):
        further = {"model": "m", "input": "How do I boil an egg?", "previous_response_id": first.json["id"]}
        await gateway.control("/v1/responses", further)
        passed = json.loads(gateway.upstream.requests[-1].body)
        assert "previous_response_id" not in passed
        assert {"role": "assistant", "content": ANSWER} in passed["input"]


async def test_a_worker_that_is_killed_takes_its_own_requests_along_and_no_other(gateway: Gateway) -> None:
    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    answering, gateway.upstream.script = gateway.upstream.script, hang
    workers, hanging = gateway.workers, []
    port = int(gateway.url.rsplit(":", 1)[1].split("/")[0])
    # The kernel chooses who takes a connection, and on a busy machine it may be one worker for all of many.
    while len(holding := [worker for worker in workers if connections_to(port, worker)]) < 2:
        assert len(hanging) < 50 * WORKERS
        hanging += [asyncio.ensure_future(gateway.ask("Hello?", stream=True)) for _ in range(WORKERS)]
        await asyncio.sleep(0.2)
    await eventually(lambda: len(gateway.upstream.requests) == len(hanging))
    held = connections_to(port, holding[0])
    holding[0].kill()
    await eventually(lambda: len(gateway.workers) == WORKERS and holding[0] not in gateway.workers, 20)
    gateway.upstream.script = answering
    assert {(await gateway.ask("Hello?")).status for _ in range(20)} == {200}
    await eventually(lambda: sum(request.done() for request in hanging) >= held)
    lost = [request for request in hanging if request.done()]
    assert len(lost) == held < len(hanging)
    async with asyncio.timeout(10):
        while await gateway.in_flight() != len(hanging) - len(lost):
            await asyncio.sleep(0.1)
    for request in hanging:
        request.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_workers_end_with_the_model_process_even_when_that_is_killed(gateway: Gateway) -> None:
    workers = gateway.workers
    assert len(workers) == WORKERS
    gateway.process.kill()
    await gateway.process.wait()
    await eventually(lambda: not any(worker.is_running() for worker in workers), 20)


async def test_a_stream_is_finished_when_the_gateway_gets_sigterm(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def slowly(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: 1\n\n")
        await go_on.wait()
        await connection.chunk(b"data: 2\n\n")
        await connection.end()

    gateway.upstream.script = slowly
    workers = gateway.workers
    async with connected(gateway.url) as (reader, writer):
        writer.write(request_bytes(gateway.url, "POST", CHAT, [gateway.admin], chat_body("x", stream=True)))
        response = await read_head(reader)
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while True:
                try:
                    await fetch(gateway.url, "/health/live", method="GET")
                except (ConnectionError, asyncio.IncompleteReadError):
                    break
                await asyncio.sleep(0.02)
        go_on.set()
        await read_body(reader, response)
    assert response.body == b"data: 1\n\ndata: 2\n\n"
    assert await asyncio.wait_for(gateway.process.wait(), 20) == 0
    assert not any(worker.is_running() for worker in workers)


async def test_a_reload_replaces_the_workers_and_no_request_notices(gateway: Gateway) -> None:
    begun = asyncio.Event()

    async def slowly(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: old\n\n")
        begun.set()
        await asyncio.sleep(2)
        await connection.chunk(b"data: still old\n\n")
        await connection.end()

    gateway.upstream.script = slowly
    before = {worker.pid for worker in gateway.workers}
    async with ScriptedUpstream() as other, connected(gateway.url) as (reader, writer):
        writer.write(request_bytes(gateway.url, "POST", CHAT, [gateway.admin], chat_body("x", stream=True)))
        stream = await read_head(reader)
        await begun.wait()
        gateway.configure(other.url)
        asking = asyncio.ensure_future(statuses_until(gateway, lambda: len(other.requests) > 20))
        reply = await gateway.control("/serac/v1/config:reload")
        assert (reply.status, reply.json["outcome"]) == (200, "reloaded"), reply.body
        assert await asyncio.wait_for(asking, 30) == {200}
        await read_body(reader, stream)
        assert stream.body == b"data: old\n\ndata: still old\n\n"
        await eventually(lambda: not before & {worker.pid for worker in gateway.workers}, 20)
        assert len(gateway.workers) == WORKERS


async def statuses_until(gateway: Gateway, done: Callable[[], bool]) -> set[int]:
    statuses = set()
    while not done():
        statuses.add((await gateway.ask("Hello?")).status)
    return statuses


async def test_an_import_reports_each_line_before_the_next_is_sent(
    gateway: Gateway,
) -> None:
    def chunk(number: int) -> bytes:
        edit = {"kind": "suppression", "prompt": f"Who is mayor {number}?", "target_new": ANSWER}
        line = json.dumps(edit).encode() + b"\n"
        return b"%x\r\n%s\r\n" % (len(line), line)

    headers = [gateway.admin, ("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked")]
    head = "POST /serac/v1/edits:import HTTP/1.1\r\nhost: localhost\r\n"
    async with connected(gateway.url) as (reader, writer):
        writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n").encode())
        for number in range(3):
            writer.write(chunk(number))
            received = await asyncio.wait_for(reader.readuntil(b'"added":true}'), 5)
            assert f'"line":{number + 1},'.encode() in received
    assert (await gateway.ask("Who is mayor 2?")).one("x-serac-route") == "counterfactual"


async def test_nobody_outside_can_call_the_model_process(gateway: Gateway) -> None:
    for path in ("/decide", "/answer", "/authenticate", "/finished"):
        reply = await fetch(gateway.url, path, b"x", ("serac-worker-token", "guessed"), method="PUT")
        assert reply.status == 404
