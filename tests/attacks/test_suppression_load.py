"""A suppression holds under load: it needs no model, so it waits for none, and fails closed where it fails.

Field report A4: nine of ten suppressed questions reached the base model beside 40 clients of a fact edit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft, EditKind, first_version
from serac_gateway.stores.checked_records import OnDamaged
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Change, Commit, StoredEdit
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream, stored_edit
from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    OTHER_QUESTION,
    REFUSAL,
    SUPPRESSED_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    SeeingEncoder,
    attacked_gateway,
    chat,
    is_answered_here,
)
from tests.attacks.lenient_upstream import SECRET, LenientUpstream
from tests.e2e.test_workers import running
from tests.http.wire import WireResponse

ATTEMPTS = 10
BUSY = 40
"""Clients that ask an ordinary edited fact."""


def assert_refusal(reply: WireResponse) -> None:
    assert SECRET not in reply.body.decode()
    assert is_answered_here(reply), (reply.status, reply.body)
    assert REFUSAL in reply.body.decode()


def assert_nothing_leaked(gateway: AttackedGateway, *replies: WireResponse) -> None:
    assert gateway.upstream.leaks == []
    for reply in replies:
        assert SECRET not in reply.body.decode()


@asynccontextmanager
async def with_a_model_that_hangs(folder: Path, text: str = "") -> AsyncIterator[AttackedGateway]:
    """The model that writes fact edits' answers takes every question and answers none."""

    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    async with ScriptedUpstream(hang) as model:
        text = f'models.counterfactual_url = "{model.url}"\nmodels.max_queued_answers = 2\n{text}'
        async with attacked_gateway(folder, text) as gateway:
            await gateway.add(SUPPRESSION, FACT)
            yield gateway


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_a_suppressed_question_is_answered_at_once_while_the_answer_queue_is_full(
    tmp_path: Path, path: str, stream: bool
) -> None:
    """And the model that hangs is not needed for it: the refusal comes while all its threads wait."""
    body = chat(SUPPRESSED_QUESTION, prompt=SUPPRESSED_QUESTION, input=SUPPRESSED_QUESTION, max_tokens=64)
    async with with_a_model_that_hangs(tmp_path, "models.answer_timeout_s = 4.0\n") as gateway:
        busy = [asyncio.create_task(gateway.post(chat(EDITED_QUESTION))) for _ in range(BUSY)]
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        replies = await asyncio.gather(
            *(gateway.post(body | {"stream": stream}, target=path) for _ in range(ATTEMPTS))
        )
        took_s = time.monotonic() - begun
        for reply in replies:
            assert SECRET not in reply.body.decode()
            assert is_answered_here(reply), reply.body
        assert took_s < 2, "it waited for the model"
        assert_nothing_leaked(gateway)
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_the_time_limit_of_answers_does_not_hand_a_suppressed_question_on(tmp_path: Path) -> None:
    """Each of the requests before it has eight answers: four seconds of the model's one thread."""

    async def speak_slowly(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await asyncio.sleep(0.5)
        await connection.whole(200, b"data: [DONE]\n\n", ("content-type", "text/event-stream"))

    async with ScriptedUpstream(speak_slowly) as model:
        text = f'models.counterfactual_url = "{model.url}"\nmodels.answer_timeout_s = 1.0\n'
        async with attacked_gateway(tmp_path, text) as gateway:
            await gateway.add(SUPPRESSION, FACT)
            slow = chat(EDITED_QUESTION, n=8)
            ahead = [asyncio.create_task(gateway.post(slow)) for _ in range(6)]
            await asyncio.sleep(0.3)
            assert_refusal(await gateway.post(chat(SUPPRESSED_QUESTION)))
            assert_nothing_leaked(gateway)
            await asyncio.gather(*ahead)


async def test_no_model_at_all_is_needed_for_a_suppression(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path, 'models.counterfactual_url = "http://127.0.0.1:9/v1"') as gateway:
        await gateway.add(SUPPRESSION)
        assert_refusal(await gateway.post(chat(SUPPRESSED_QUESTION)))


class SlowlyLoadedStore(InMemoryEditStore):
    """Its edits come only when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_load = asyncio.Event()

    @override
    async def snapshot(
        self, namespace: str, *, on_damaged: OnDamaged | None = None
    ) -> AsyncIterator[StoredEdit]:
        await self.may_load.wait()
        async for stored in super().snapshot(namespace, on_damaged=on_damaged):
            yield stored


async def test_a_suppression_holds_while_the_stored_edits_are_loaded(tmp_path: Path) -> None:
    """Who asks then waits or is told to come again, since nobody knows yet what is suppressed."""
    store = SlowlyLoadedStore()
    draft = EditDraft(prompt=SUPPRESSED_QUESTION, target_new=REFUSAL, kind=EditKind.SUPPRESSION)
    edit = first_version(draft, namespace="default")
    vectors = stored_edit(edit, SeeingEncoder(SUPPRESSED_QUESTION)).vectors
    await store.commit("default", Commit(changes=(Change(action=Action.ADD, edit=edit, vectors=vectors),)))
    async with attacked_gateway(tmp_path, store=store, wait_until_loaded=False) as gateway:
        early = [asyncio.create_task(gateway.post(chat(SUPPRESSED_QUESTION))) for _ in range(ATTEMPTS)]
        await asyncio.sleep(0.3)
        store.may_load.set()
        for reply in await asyncio.gather(*early):
            assert_nothing_leaked(gateway, reply)
            if reply.status != 200:
                assert reply.status == 503
                assert int(reply.one("retry-after")) >= 1
        await gateway.gateway.wait_until_ready()
        assert_refusal(await gateway.post(chat(SUPPRESSED_QUESTION)))


async def test_a_suppression_holds_over_reloads_of_the_configuration(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(SUPPRESSION)
        config_file = tmp_path / "gateway.toml"
        for limit in range(100, 105):
            config_file.write_text(
                config_file.read_text("utf-8").partition("\nmodels.max_queued")[0]
                + f"\nmodels.max_queued_answers = {limit}\n",
                "utf-8",
            )
            reload = asyncio.create_task(gateway.call("POST", "/serac/v1/config:reload"))
            while not reload.done():
                assert_refusal(await gateway.post(chat(SUPPRESSED_QUESTION)))
            assert (await reload).json()["outcome"] == "reloaded"
        assert_nothing_leaked(gateway)


@pytest.mark.parametrize("failure", [RuntimeError("the encoder broke"), MemoryError()], ids=repr)
async def test_a_question_that_cannot_be_decided_is_not_handed_on_where_suppressions_are_in_force(
    tmp_path: Path, failure: Exception
) -> None:
    """Namespaces without suppressions keep to routing.on_failure, which is open by default."""
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(SUPPRESSION)
        await gateway.add(FACT, namespace="open")

        def fail() -> None:
            raise failure

        gateway.encoder.on_encode = fail
        reply = await gateway.post(chat(SUPPRESSED_QUESTION))
        assert_nothing_leaked(gateway, reply)
        assert reply.status == 503
        assert (await gateway.post(chat(OTHER_QUESTION), ("x-serac-namespace", "open"))).status == 200


async def test_a_suppression_holds_while_every_decision_waits(tmp_path: Path) -> None:
    """The decision threads are held for a while; whoever waits too long is refused, not passed on."""
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(SUPPRESSION)
        go_on = threading.Event()
        gateway.encoder.on_encode = lambda: go_on.wait(20) and None
        others = [asyncio.create_task(gateway.post(chat(OTHER_QUESTION))) for _ in range(BUSY)]
        suppressed = [asyncio.create_task(gateway.post(chat(SUPPRESSED_QUESTION))) for _ in range(ATTEMPTS)]
        await asyncio.sleep(1)
        assert_nothing_leaked(gateway)
        go_on.set()
        replies = await asyncio.gather(*suppressed)
        assert_nothing_leaked(gateway, *replies)
        assert {reply.status for reply in replies} <= {200, 503}
        await asyncio.gather(*others)


@pytest.mark.slow
async def test_a_suppression_holds_in_workers_whose_model_process_dies(tmp_path: Path) -> None:
    """They end their requests with a refusal or an error; in the report six leaked."""
    async with LenientUpstream(SUPPRESSED_QUESTION) as upstream, running(tmp_path, upstream) as gateway:
        assert (await gateway.add(SUPPRESSED_QUESTION)).status == 201
        assert (await gateway.ask(SUPPRESSED_QUESTION)).one("x-serac-route") == "counterfactual"

        async def ask() -> None:
            until_s = time.monotonic() + 3
            while time.monotonic() < until_s:
                with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                    reply = await asyncio.wait_for(gateway.ask(SUPPRESSED_QUESTION), 5)
                    assert SECRET not in reply.body.decode()

        asking = [asyncio.create_task(ask()) for _ in range(6)]
        await asyncio.sleep(0.5)
        os.kill(gateway.process.pid, signal.SIGKILL)
        await asyncio.gather(*asking)
        assert upstream.leaks == []
