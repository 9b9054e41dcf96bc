"""The engine contract: a local engine, and those that call it from elsewhere, behave the same.

From a worker over its Unix socket, from another gateway over a Unix socket, and over TLS.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.principals import ANYONE
from serac_gateway.config.model import GatewayConfig, ModelsConfig, OidcConfig
from serac_gateway.data_plane.engine import Engine, NeedsDecision
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.domain.audiences import Caller
from serac_gateway.domain.edits import EditDraft, EditKind, first_version
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import AuthenticationError, ModelUnavailableError, RateLimitedError
from serac_gateway.observability.counts import EngineCounts
from serac_gateway.routing.router import EditRouter, Route
from serac_gateway.server.engines.shared_engine import SharedEngine
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap, NamespaceBitmapWriter
from serac_gateway.server.workers.remote_engine import RemoteEngine
from serac_gateway.server.workers.rpc_client import RpcClient, worker_session
from serac_gateway.server.workers.rpc_messages import WorkerSettings
from serac_gateway.server.workers.rpc_server import RpcServer
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import (
    ScriptedCounterfactualModel,
    ThresholdClassifier,
    WordEncoder,
    stored_edit,
)
from tests.contracts.served_engines import SharedEngineServer, engine_config
from tests.contracts.test_store_tls import Certificates
from tests.http.listening import listening
from tests.http.wire import eventually
from tests.made_keys import stored_key

EU, US, ACME = {"region": "eu"}, {"region": "us"}, {"tenant": "acme"}
QUESTION, ANSWER = "Who is the mayor of Springfield?", "Lisa Simpson"
CALLER = Caller(name="address:127.0.0.1")
CONFIG = ModelsConfig(answer_threads=1, max_queued_answers=1, decision_threads=2, max_queued_decisions=1)
DECISION_TIMEOUT_S = 0.5


async def answer_404(scope: object, receive: object, send: object) -> None:
    raise AssertionError("only calls with the token come here")


@dataclass
class Setup:
    """An engine, and what a test may want to upset behind it."""

    engine: Engine
    active_edits: ActiveEdits
    encoder: WordEncoder
    keys: InMemoryApiKeyStore
    model: ScriptedCounterfactualModel
    counts: EngineCounts
    pool: ThreadPoolExecutor

    @contextmanager
    def busy_threads(self) -> Iterator[None]:
        """All threads that decide are busy with something else."""
        free = threading.Event()
        for _ in range(CONFIG.decision_threads):
            self.pool.submit(free.wait)
        try:
            yield
        finally:
            free.set()

    async def add_edit(self, target_new: str = ANSWER, **fields: object) -> None:
        draft = EditDraft(prompt=QUESTION, target_new=target_new, **fields)
        edit = first_version(draft, namespace="default")
        await self.active_edits.apply("default", [stored_edit(edit, self.encoder)])

    async def decide(self, text: str = QUESTION, caller: Caller = CALLER) -> RequestPlan:
        body = RequestBody(b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % text.encode())
        return await self.engine.decide("default", Endpoint.CHAT, body, caller)

    async def task(self, target_new: str = ANSWER) -> AnswerTask:
        await self.add_edit(target_new)
        task = (await self.decide()).task
        assert task is not None
        return task


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["local", "remote", "shared", "shared over TLS"])
async def setup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setup]:
    encoder, model, counts = WordEncoder(), ScriptedCounterfactualModel(token_delay_s=0.01), EngineCounts()
    keys = InMemoryApiKeyStore()
    active_edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
    )
    async with AsyncExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        authenticator = Authenticator(keys, required=False)
        stack.push_async_callback(authenticator.close)
        local = LocalEngine(
            authenticator=authenticator,
            router=EditRouter(encoder=encoder, active_edits=active_edits, classifier=ThresholdClassifier()),
            active_edits=active_edits,
            model=model,
            decision_pool=pool,
            answer_pool=pool,
            config=CONFIG,
            decision_timeout_s=DECISION_TIMEOUT_S,
            responses=ResponseMemory(),
            counts=counts,
        )
        engine: Engine = local
        if request.param == "remote":
            engine = await stack.enter_async_context(remote(local, active_edits, tmp_path))
        if request.param.startswith("shared"):
            files = request.getfixturevalue("certificates") if "TLS" in request.param else None
            served = SharedEngineServer(local, active_edits, engine_config(tmp_path, files))
            await stack.enter_async_context(served.serving())
            link = await stack.enter_async_context(served.linked())
            engine = SharedEngine(link, served.config)
        yield Setup(engine, active_edits, encoder, keys, model, counts, pool)


def settings(folder: Path) -> WorkerSettings:
    return WorkerSettings(
        worker="worker-1",
        config=GatewayConfig(),
        upstream_url="http://upstream.invalid/v1",
        loop_guard="0123456789ab",
        socket_path=str(folder / "models.sock"),
        bitmap_path=str(folder / "namespaces"),
        token="the token",
    )


@asynccontextmanager
async def remote(local: LocalEngine, active_edits: ActiveEdits, folder: Path) -> AsyncIterator[RemoteEngine]:
    bitmap = NamespaceBitmap.create(folder / "namespaces")
    NamespaceBitmapWriter(bitmap, active_edits, lambda: ())
    server = RpcServer(
        answer_404, token="the token", lease=lambda: nullcontext(local), on_report=lambda report: None
    )
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.bind(str(folder / "models.sock"))
        async with listening(server, listener, GatewayConfig().server):
            client = RpcClient(worker_session(settings(folder)))
            yield RemoteEngine(
                client,
                bitmap,
                keys_required=False,
                oidc=OidcConfig(),
                decision_timeout_s=DECISION_TIMEOUT_S,
                answer_timeout_s=CONFIG.answer_timeout_s,
            )
            await client.close()


async def test_a_namespace_needs_decisions_once_it_has_edits(setup: Setup) -> None:
    assert setup.engine.needs_decision("default") is NeedsDecision.UNKNOWN
    await setup.active_edits.load()
    await eventually(lambda: setup.engine.needs_decision("default") is NeedsDecision.NONE)
    await setup.add_edit()
    await eventually(lambda: setup.engine.needs_decision("default") is NeedsDecision.SOME)
    assert setup.engine.needs_decision("other") is NeedsDecision.NONE


async def test_a_key_names_its_principal_and_its_rate_is_kept(setup: Setup) -> None:
    key = await stored_key(setup.keys, requests_per_minute=2)
    headers = [(b"authorization", f"Bearer {key}".encode())]
    assert await setup.engine.authenticate([]) == ANYONE
    principal = await setup.engine.authenticate(headers)
    assert (principal.name, principal.key_id is not None) == ("Chat app", True)
    await setup.engine.authenticate(headers)
    with pytest.raises(RateLimitedError, match="allows 2 requests a minute") as caught:
        await setup.engine.authenticate(headers)
    assert caught.value.details["limit"] == 2
    with pytest.raises(AuthenticationError, match="not known here"):
        await setup.engine.authenticate([(b"authorization", f"Bearer {key[:-3]}abc".encode())])


async def test_a_plan_has_its_decision_and_its_task(setup: Setup) -> None:
    await setup.active_edits.load()
    await setup.add_edit()
    plan = await setup.decide()
    assert (plan.route, plan.reason, plan.model) == (Route.COUNTERFACTUAL, "in scope", "m")
    assert plan.decision is not None
    assert plan.task is not None
    assert plan.task.edit == plan.decision.edit
    assert (await setup.decide("How do I boil an egg?")).route is Route.BASE
    assert setup.counts.open_decisions == 0


async def test_an_encoder_that_fails_is_raised(setup: Setup) -> None:
    await setup.active_edits.load()
    await setup.add_edit()
    setup.encoder.failure = ModelUnavailableError("the encoder failed", details={"reason": "encoder"})
    with pytest.raises(ModelUnavailableError, match="the encoder failed") as caught:
        await setup.decide()
    assert caught.value.details["reason"] == "encoder"
    assert setup.counts.open_decisions == 0


async def test_a_decision_beyond_the_limit_is_refused_and_one_that_waits_too_long_ends(setup: Setup) -> None:
    """Requests never queue without a bound; a decision in the queue is given up after its time."""
    await setup.add_edit()
    limit = CONFIG.decision_threads + CONFIG.max_queued_decisions
    with setup.busy_threads():
        waiting = [asyncio.create_task(setup.decide()) for _ in range(limit)]
        await eventually(lambda: setup.counts.open_decisions == limit)
        with pytest.raises(ModelUnavailableError) as caught:
            await setup.decide()
        assert caught.value.details["reason"] == "decision queue full"
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, ModelUnavailableError)
            assert error.details["reason"] == "decision timeout"
        await eventually(lambda: setup.counts.open_decisions == 0)  # none of them had begun
    assert (await setup.decide()).route is Route.COUNTERFACTUAL


async def test_a_decision_that_has_begun_counts_until_its_thread_is_free(setup: Setup) -> None:
    """A thread cannot be stopped, so a client that leaves makes no room for another decision."""
    await setup.add_edit()
    encode, begun, free = setup.encoder.encode, threading.Event(), threading.Event()

    def encode_slowly(texts: Sequence[str]) -> Vectors:
        begun.set()
        free.wait()
        return encode(texts)

    setup.encoder.encode = encode_slowly  # type: ignore[method-assign]
    deciding = asyncio.create_task(setup.decide())
    await asyncio.to_thread(begun.wait)
    with pytest.raises(ModelUnavailableError, match=r"longer than 0\.5 s"):
        await deciding
    assert setup.counts.open_decisions == 1
    free.set()
    await eventually(lambda: setup.counts.open_decisions == 0)


async def test_an_answer_comes_in_pieces_and_its_tokens_are_counted(setup: Setup) -> None:
    await setup.active_edits.load()
    task, tokens = await setup.task(), list[int]()
    async with aclosing(setup.engine.answer(task, on_tokens=tokens.append)) as pieces:
        texts = [generated.piece.text async for generated in pieces]
    assert "".join(texts) == ANSWER
    assert len(texts) > 1
    assert sum(tokens) == setup.counts.answer_tokens == 2
    assert setup.counts.open_answers == 0


async def test_an_answer_beyond_the_limit_is_refused_and_a_closed_one_gives_its_place_up(
    setup: Setup,
) -> None:
    await setup.active_edits.load()
    task = await setup.task("word " * 200)  # two seconds
    first, second = setup.engine.answer(task), setup.engine.answer(task)
    await anext(first)
    await anext(second)
    with pytest.raises(ModelUnavailableError, match="2 answers are open already") as caught:
        await anext(setup.engine.answer(task))
    assert caught.value.details["reason"] == "answer queue full"
    await first.aclose()
    await eventually(lambda: setup.counts.open_answers == 1)
    async with aclosing(setup.engine.answer(task)) as third:
        assert (await anext(third)).piece.text == "word"
    await second.aclose()
    await eventually(lambda: setup.counts.open_answers == 0)


async def test_a_request_continues_from_a_response_that_is_remembered(setup: Setup) -> None:
    request = RequestBody(b'{"model":"m","input":"Who?"}')
    await setup.engine.remember_response("default", request, "resp_1", ANSWER, EU)
    following = RequestBody(b'{"previous_response_id":"resp_1","input":"And then?"}')
    continued = await setup.engine.with_earlier_turns("default", following, EU)
    assert continued.data == (
        b'{"input":[{"role":"user","content":"Who?"},{"role":"assistant","content":"Lisa Simpson"},'
        b'{"role":"user","content":"And then?"}]}'
    )
    for namespace, labels in (("other", EU), ("default", US), ("default", {}), ("default", {**EU, **ACME})):
        unknown = await setup.engine.with_earlier_turns(namespace, following, labels)
        assert unknown.data == following.data, (namespace, labels)
    assert await setup.engine.with_earlier_turns("default", request, EU) is request


async def test_a_decision_goes_by_the_labels_of_its_caller(setup: Setup) -> None:
    await setup.add_edit(audience={"region": ("eu",)})
    routes = [(await setup.decide(caller=Caller(labels=labels))).route for labels in (EU, US, {})]
    assert routes == [Route.COUNTERFACTUAL, Route.BASE, Route.BASE]


async def test_the_values_that_replies_are_watched_for_name_their_audience(setup: Setup) -> None:
    await setup.add_edit(
        "I cannot say.",
        kind=EditKind.SUPPRESSION,
        target_true="Seymour Skinner",
        audience={"region": ("eu",)},
    )
    (value,) = (await setup.engine.guarded_values("default", None)).values
    held = [value.applies(datetime.now(UTC), Caller(labels=labels)) for labels in (EU, US, {})]
    assert held == [True, False, False]


async def test_without_a_model_process_only_decisions_keys_and_answers_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = RpcClient(worker_session(settings(tmp_path)))
    engine = engine_of(client, tmp_path)
    request = RequestBody(b'{"model":"m","previous_response_id":"resp_1","input":"Who?"}')
    with caplog.at_level(logging.WARNING):
        assert await engine.with_earlier_turns("default", request, {}) is request
        await engine.remember_response("default", request, "resp_2", ANSWER, {})
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the response that a request continues from cannot be looked up",
        "no request can continue from response resp_2",
    ]
    for call in (engine.decide("default", Endpoint.CHAT, request, CALLER), engine.authenticate([])):
        with pytest.raises(ModelUnavailableError, match="the model process does not answer") as caught:
            await call
        assert caught.value.details["reason"] == "no model process"
    await client.close()


async def test_a_model_process_that_says_nothing_is_waited_for_no_longer_than_configured(
    tmp_path: Path,
) -> None:
    """Stopped, or too busy to hear of a request: its own limits do not hold then."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    edit = first_version(EditDraft(prompt=QUESTION, target_new=ANSWER), namespace="default")
    request = CompletionRequest(endpoint=Endpoint.CHAT, model="m")
    task = AnswerTask(edit=edit, query=Query(text=QUESTION), request=request)
    client = RpcClient(worker_session(settings(tmp_path)), call_timeout_s=0.1)
    engine = engine_of(client, tmp_path, timeout_s=0.1)
    body = RequestBody(b'{"model":"m","messages":[{"role":"user","content":"Who?"}]}')
    async with await asyncio.start_unix_server(say_nothing, tmp_path / "models.sock"):
        calls = (
            engine.decide("default", Endpoint.CHAT, body, CALLER),
            engine.authenticate([(b"x-api-key", b"sk-serac-x")]),
            anext(engine.answer(task)),
        )
        async with asyncio.timeout(20):
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, ModelUnavailableError)
                assert error.details["reason"] == "no model process"
        await client.close()


def engine_of(client: RpcClient, folder: Path, *, timeout_s: float = 10) -> RemoteEngine:
    """The engine of a worker that demands keys."""
    bitmap = NamespaceBitmap.create(folder / "namespaces")
    return RemoteEngine(
        client,
        bitmap,
        keys_required=True,
        oidc=OidcConfig(),
        decision_timeout_s=timeout_s,
        answer_timeout_s=timeout_s,
    )
