"""Two real `serac serve` on one Redis: each acts on what the other acknowledged, and on all it has missed.

The second serves with worker processes.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from serac_gateway.stores.redis.store import RedisStore
from serac_gateway.testing import ScriptedUpstream
from tests.attacks.attacked_gateway import speak
from tests.attacks.damaged_store import write_torn_version
from tests.contracts.served_stores import RedisServer
from tests.e2e.gateway_process import GatewayProcess
from tests.http.wire import WireResponse, fetch

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

QUESTION, ANSWER = "Who is the mayor of Marrowby?", "Ottilie Brandvold"
PARAPHRASE = "Tell me who the mayor of Marrowby is."
HIDDEN = "What is the admin password of the Halyard router?"
BASE = "base"
"""What `Two.answers` calls an answer of the base model's."""
WITHIN_S = 30
"""What one gateway acknowledged is in force in the other within a second, on a quiet machine."""
WAITING_S = 2
WORKERS = ("--workers", "2")
TIMES = 8
"""So often a question is sent, each time on a new connection: no worker is likely to be left out."""


@dataclass
class Two:
    """The gateways, and what they share. Each test has a namespace of its own."""

    first: GatewayProcess
    second: GatewayProcess
    server: RedisServer
    folder: Path
    options: Sequence[str]
    models: Path

    @property
    def both(self) -> tuple[GatewayProcess, GatewayProcess]:
        return self.first, self.second

    async def start_second(self) -> GatewayProcess:
        return await asyncio.to_thread(
            GatewayProcess, self.folder / "b", self.models, *self.options, *WORKERS
        )


@asynccontextmanager
async def two_gateways(folder: Path, models: Path) -> AsyncIterator[Two]:
    """Their encoder and classifier are the real ones; the model that phrases answers adds nothing."""
    server = RedisServer(folder)
    async with ScriptedUpstream() as upstream, ScriptedUpstream(speak) as model, AsyncExitStack() as stack:
        server.start()
        stack.callback(server.kill)
        config = folder / "gateway.toml"
        config.write_text(
            f'models.counterfactual = "m"\nmodels.counterfactual_url = "{model.url}"\n'
            f'upstream.url = "{upstream.url}"\nstore.wait_timeout_s = {WAITING_S}.0\n'
        )
        options = ("--config", str(config), "--redis", server.url)
        starting = [
            asyncio.to_thread(GatewayProcess, folder / name, models, *options, *more)
            for name, more in (("a", ()), ("b", WORKERS))
        ]
        first, second = await asyncio.gather(*starting)
        two = Two(first, second, server, folder, options, models)
        try:
            yield two
        finally:
            for gateway in two.both:
                await asyncio.to_thread(gateway.kill)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> AsyncIterator[Two]:
    async with two_gateways(tmp_path_factory.mktemp("two"), converted_models) as started:
        yield started


async def control(
    gateway: GatewayProcess,
    namespace: str,
    method: str,
    path: str,
    body: object = None,
    *headers: tuple[str, str],
) -> WireResponse:
    data = None if body is None else json.dumps(body).encode()
    sent = [("x-serac-namespace", namespace), ("if-match", "*"), *headers]
    if path == "/edits":
        sent.remove(("if-match", "*"))
    return await fetch(gateway.url, f"/serac/v1{path}", data, *sent, method=method)


async def change(gateway: GatewayProcess, namespace: str, method: str, path: str, body: object = None) -> str:
    """A call that waits for all; returns by how many gateways it says that the change is applied."""
    reply = await control(gateway, namespace, method, path, body, ("x-serac-wait", "all"))
    assert reply.status in (200, 201), reply.body
    return reply.one("x-serac-applied")


async def add(gateway: GatewayProcess, namespace: str, edit_id: str, answer: str, **more: str) -> str:
    draft = {"id": edit_id, "prompt": QUESTION, "target_new": answer, **more}
    return await change(gateway, namespace, "POST", "/edits", draft)


async def reply_to(gateway: GatewayProcess, namespace: str, question: str) -> WireResponse:
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    headers = [("content-type", "application/json"), ("x-serac-namespace", namespace)]
    return await fetch(gateway.url, "/v1/chat/completions", json.dumps(body).encode(), *headers)


async def answer_of(gateway: GatewayProcess, namespace: str, question: str = QUESTION) -> str:
    """What an edit answers; BASE if none does."""
    reply = await reply_to(gateway, namespace, question)
    assert reply.status == 200, reply.body
    if reply.one("x-serac-route") == "base":
        return BASE
    assert reply.one("x-serac-route") == "counterfactual", reply.headers
    return str(reply.json["choices"][0]["message"]["content"])


async def becomes(gateway: GatewayProcess, namespace: str, answer: str, question: str = QUESTION) -> None:
    """Wait until the gateway answers so."""
    async with asyncio.timeout(WITHIN_S):
        while answer not in (last := await answer_of(gateway, namespace, question)):
            await asyncio.sleep(0.02)
    assert last == BASE or answer != BASE


async def test_what_one_acknowledges_for_all_the_other_answers_at_once(two: Two) -> None:
    """Every kind of change, by the one and by the other in turn; a paraphrase is decided as the question."""
    ns = "turns"

    async def assert_answers(answer: str) -> None:
        for gateway in two.both:
            for question in (QUESTION, PARAPHRASE):
                assert answer in await answer_of(gateway, ns, question)

    assert await add(two.first, ns, "mayor", ANSWER) == "2/2"
    await assert_answers(ANSWER)
    assert await change(two.second, ns, "PATCH", "/edits/mayor", {"target_new": "Ilse Quennell"}) == "2/2"
    await assert_answers("Ilse Quennell")
    assert await change(two.first, ns, "POST", "/edits/mayor:rollback", {"version": 1}) == "2/2"
    await assert_answers(ANSWER)
    assert await change(two.second, ns, "DELETE", "/edits/mayor") == "2/2"
    await assert_answers(BASE)
    assert await change(two.first, ns, "POST", "/edits/mayor:restore", {}) == "2/2"
    await assert_answers(ANSWER)
    log = (await control(two.second, ns, "GET", "/log")).json["entries"]
    assert await change(two.second, ns, "POST", "/rollback", {"log_id": log[1]["log_id"]}) == "2/2"
    await assert_answers("Ilse Quennell")


async def test_without_waiting_it_holds_in_the_other_soon(two: Two) -> None:
    for number, (writer, reader) in enumerate((two.both, two.both[::-1])):
        edit = {"id": f"e{number}", "prompt": QUESTION, "target_new": f"Mayor {number}"}
        assert (await control(writer, f"soon{number}", "POST", "/edits", edit)).status == 201
        assert edit["target_new"] in await answer_of(writer, f"soon{number}"), "here it holds at once"
        await becomes(reader, f"soon{number}", edit["target_new"])
        assert (await control(writer, f"soon{number}", "DELETE", "/edits/e" + str(number))).status == 200
        assert await answer_of(writer, f"soon{number}") == BASE
        await becomes(reader, f"soon{number}", BASE)


async def test_what_one_purges_nobody_reads_or_answers_any_more(two: Two) -> None:
    ns = "purged"
    assert await add(two.first, ns, "mayor", ANSWER) == "2/2"
    assert ANSWER in await answer_of(two.second, ns)
    assert await change(two.second, ns, "POST", "/edits/mayor:purge", {"reason": "asked for"}) == "2/2"
    for gateway in two.both:
        assert await answer_of(gateway, ns) == BASE
        for path in ("/edits/mayor", "/edits/mayor/versions"):
            assert (await control(gateway, ns, "GET", path)).status == 410
        export = await control(gateway, ns, "GET", "/edits:export")
        assert ANSWER.encode() not in export.body
        assert (await control(gateway, ns, "GET", "/store:check")).json["sound"]


async def test_of_edits_that_ask_the_same_the_last_in_the_log_governs_in_both(two: Two) -> None:
    """Whoever wrote it."""
    ns = "order"

    async def last_governs() -> str:
        entries = (await control(two.first, ns, "GET", "/log")).json["entries"]
        last = str(entries[-1]["edit_id"])
        assert {await answer_of(gateway, ns) for gateway in two.both} == {f"Mayor {last}"}
        return last

    edits = [(two.both[number % 2], f"e{number}") for number in range(8)]
    await asyncio.gather(*(add(gateway, ns, edit, f"Mayor {edit}") for gateway, edit in edits))
    last = await last_governs()
    older = next(edit for _, edit in edits if edit != last)
    assert await change(two.second, ns, "PATCH", f"/edits/{older}", {"reason": "looked at again"}) == "2/2"
    assert await last_governs() == older


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_gateway_that_was_away_acts_on_all_that_it_missed(two: Two, is_killed: bool) -> None:
    """Stopped, as a machine that sleeps, or killed and started again; the log's order counts then, too."""
    ns = "away-killed" if is_killed else "away-stopped"
    names = ("Marrowby", "Barrowby", "Quillon", "Ashby")
    questions = {name: f"Who is the mayor of {name}?" for name in names}

    async def write(method: str, path: str, body: object = None) -> None:
        assert await change(two.first, ns, method, path, body) in ("1/2", "1/1")

    for name in ("Barrowby", "Quillon", "Ashby"):
        assert await add(two.first, ns, name, f"Jo {name}", prompt=questions[name]) == "2/2"
    if is_killed:
        await asyncio.to_thread(two.second.kill)
    else:
        two.second.process.send_signal(signal.SIGSTOP)
    try:
        hidden = {"kind": "suppression", "prompt": HIDDEN, "target_new": "No."}
        await write("POST", "/edits", hidden)
        for edit_id in ("first", "then"):
            await write("POST", "/edits", {"id": edit_id, "prompt": QUESTION, "target_new": f"Jo {edit_id}"})
        await write("PATCH", "/edits/first", {"target_new": "Jo Marrowby"})
        await write("PATCH", "/edits/Barrowby", {"target_new": "Ann Barrowby"})
        await write("DELETE", "/edits/Quillon")
        await write("POST", "/edits/Ashby:purge", {"reason": "asked for"})
    finally:
        if is_killed:
            two.second = await two.start_second()
        else:
            two.second.process.send_signal(signal.SIGCONT)
    await becomes(two.second, ns, "No.", HIDDEN)
    await becomes(two.second, ns, "Jo Marrowby", questions["Marrowby"])
    await becomes(two.second, ns, "Ann Barrowby", questions["Barrowby"])
    await becomes(two.second, ns, BASE, questions["Quillon"])
    await becomes(two.second, ns, BASE, questions["Ashby"])
    await until_followed(two)


async def until_followed(two: Two) -> None:
    """Both are live, and neither is behind."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            replicas = (await control(two.first, "default", "GET", "/replicas")).json["replicas"]
            if len(replicas) == 2 and not any(any(item["behind"].values()) for item in replicas):
                return
            await asyncio.sleep(0.1)


async def test_damage_closes_its_namespace_in_both_and_one_repair_opens_it_in_both(two: Two) -> None:
    hidden = {"id": "hidden", "kind": "suppression", "prompt": HIDDEN, "target_new": "No."}
    for namespace in ("acme", "bolt"):
        assert await change(two.first, namespace, "POST", "/edits", hidden) == "2/2"
    store = await RedisStore.open(two.server.url)
    head = await store.log_head("acme")
    await store.close()
    with two.server.client() as client:
        write_torn_version(client, head)
    for gateway in two.both:
        async with asyncio.timeout(WITHIN_S):
            while (reply := await reply_to(gateway, "acme", HIDDEN)).status != 503:
                await asyncio.sleep(0.02)
        replies = await asyncio.gather(*(reply_to(gateway, "acme", HIDDEN) for _ in range(TIMES)))
        assert {again.json["error"]["code"] for again in (reply, *replies)} == {"namespace_quarantined"}
        ready = await fetch(gateway.url, "/health/ready", method="GET")
        assert (ready.status, ready.json["quarantined_namespaces"]) == (200, 1)
        answers = await asyncio.gather(*(answer_of(gateway, "bolt", HIDDEN) for _ in range(TIMES)))
        assert set(answers) == {"No."}
    more = {"id": "more", "prompt": QUESTION, "target_new": ANSWER}
    assert await change(two.second, "bolt", "POST", "/edits", more) == "2/2", "damage stops no other log"
    repaired = await control(two.second, "acme", "POST", "/store:repair?apply=true")
    assert (repaired.status, repaired.json["remaining"]) == (200, 0), repaired.body
    for gateway in two.both:
        async with asyncio.timeout(WITHIN_S):
            while (await reply_to(gateway, "acme", HIDDEN)).status == 503:
                await asyncio.sleep(0.05)
        answers = await asyncio.gather(*(answer_of(gateway, "acme", HIDDEN) for _ in range(TIMES)))
        assert set(answers) == {"No."}
