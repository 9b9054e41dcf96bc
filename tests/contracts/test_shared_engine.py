"""An engine of several gateways that dies, is another version, refuses, is silent, or is none."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
from typing_extensions import override

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.config.model import EngineConfig, ModelsConfig
from serac_gateway.data_plane.engine import NeedsDecision
from serac_gateway.data_plane.engine_access import (
    AWAY,
    SECRET_HEADER,
    TOKEN_HEADER,
    engine_secret,
    engine_tls,
    parse_engine_address,
)
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.plan import AnswerTask
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.domain.audiences import Caller
from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import AuthenticationError, ConfigError, ModelUnavailableError
from serac_gateway.observability.counts import EngineCounts
from serac_gateway.routing.router import EditRouter, Route
from serac_gateway.server.engines.engine_server import EngineSocket
from serac_gateway.server.engines.link import EngineLink
from serac_gateway.server.engines.messages import TableFrame
from serac_gateway.server.engines.namespaces import FedNamespaces, NamespaceFeed
from serac_gateway.server.engines.shared_engine import SharedEngine
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ScriptedCounterfactualModel, ThresholdClassifier, WordEncoder, stored_edit
from tests.contracts.served_engines import SharedEngineServer, engine_config
from tests.contracts.test_store_tls import Certificates
from tests.http.wire import eventually
from tests.made_keys import stored_key

QUESTION, ANSWER = "Who is the mayor of Springfield?", "Lisa Simpson " * 50
BODY = RequestBody(b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % QUESTION.encode())


@dataclass
class Served:
    server: SharedEngineServer
    active_edits: ActiveEdits
    keys: InMemoryApiKeyStore

    def engine(self, link: EngineLink) -> SharedEngine:
        return SharedEngine(link, self.server.config)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["unix", "tls"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    files = request.getfixturevalue("certificates") if request.param == "tls" else None
    async with AsyncExitStack() as stack:
        yield await made(stack, engine_config(tmp_path, files))


@pytest.fixture
async def over_tls(tmp_path: Path, certificates: Certificates) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        yield await made(stack, engine_config(tmp_path, certificates))


@pytest.fixture
async def over_unix(tmp_path: Path) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        yield await made(stack, engine_config(tmp_path))


async def made(stack: AsyncExitStack, config: EngineConfig) -> Served:
    encoder, keys = WordEncoder(), InMemoryApiKeyStore()
    edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
    )
    await edits.load()
    edit = first_version(EditDraft(prompt=QUESTION, target_new=ANSWER), namespace="default")
    await edits.apply("default", [stored_edit(edit, encoder)])
    authenticator = Authenticator(keys, required=False)
    stack.push_async_callback(authenticator.close)
    pool = stack.enter_context(ThreadPoolExecutor(2))
    engine = LocalEngine(
        authenticator=authenticator,
        router=EditRouter(encoder=encoder, active_edits=edits, classifier=ThresholdClassifier()),
        active_edits=edits,
        model=ScriptedCounterfactualModel(token_delay_s=0.01),
        decision_pool=pool,
        answer_pool=pool,
        config=ModelsConfig(),
        responses=ResponseMemory(),
        counts=EngineCounts(),
    )
    return Served(SharedEngineServer(engine, edits, config), edits, keys)


async def decided(engine: SharedEngine) -> Route:
    return (await engine.decide("default", Endpoint.CHAT, BODY, Caller(name="somebody"))).route


async def task(engine: SharedEngine) -> AnswerTask:
    planned = (await engine.decide("default", Endpoint.CHAT, BODY, Caller(name="somebody"))).task
    assert planned is not None
    return planned


async def test_an_engine_that_dies_fails_calls_at_once_and_is_used_again_when_it_is_back(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as first, served.server.linked(connected=False) as link:
        engine = served.engine(link)
        assert engine.needs_decision("default") is NeedsDecision.UNKNOWN
        await first.enter_async_context(served.server.serving())
        await link.wait_until_connected()
        assert await decided(engine) is Route.COUNTERFACTUAL
        async with aclosing(engine.answer(await task(engine))) as pieces:
            await anext(pieces)
            await asyncio.wait_for(first.aclose(), 5)  # its drain limit is a second, the answer takes two
            with pytest.raises(ModelUnavailableError) as broken:
                async for _ in pieces:
                    pass
            assert broken.value.details["reason"] == AWAY
        await eventually(lambda: link.problem is not None)
        async with asyncio.timeout(0.5):
            with pytest.raises(ModelUnavailableError, match="the engine does not answer") as away:
                await decided(engine)
        assert away.value.details["reason"] == AWAY
        assert engine.needs_decision("default") is NeedsDecision.SOME  # as it was last
        assert link.away_s > 0
        async with served.server.serving():
            await asyncio.wait_for(link.wait_until_connected(), 10)
            assert await decided(engine) is Route.COUNTERFACTUAL
            assert (link.connects, link.away_s) == (2, 0.0)
    assert sum("connected to the engine at" in record.getMessage() for record in caplog.records) == 2


async def test_a_key_that_was_confirmed_stays_valid_for_a_while_without_the_engine(over_unix: Served) -> None:
    key = await stored_key(over_unix.keys)
    headers = [(b"authorization", f"Bearer {key}".encode())]
    async with over_unix.server.linked(connected=False) as link:
        engine = over_unix.engine(link)
        with pytest.raises(ModelUnavailableError):
            await engine.authenticate([])  # nobody knows yet whether keys are demanded
        async with over_unix.server.serving():
            await link.wait_until_connected()
            principal = await engine.authenticate(headers)
            with pytest.raises(AuthenticationError):
                await engine.authenticate([(b"authorization", f"Bearer {key[:-3]}abc".encode())])
        await eventually(lambda: link.problem is not None)
        assert await engine.authenticate(headers) == principal
        with pytest.raises(ModelUnavailableError):
            await engine.authenticate([(b"authorization", b"Bearer sk-serac-another")])
        engine._grace_s = 0.0
        with pytest.raises(ModelUnavailableError):
            await engine.authenticate(headers)


@pytest.mark.parametrize(
    ("hello", "required", "problem"),
    [
        ({"version": "99.0", "protocol": "other"}, False, "it is of version 99.0 and this gateway of"),
        ({"keys_required": False}, True, "it demands no API keys, and this gateway does"),
    ],
)
async def test_an_engine_that_does_not_fit_is_not_used(
    over_unix: Served, hello: dict[str, object], required: bool, problem: str
) -> None:
    over_unix.server.hello = msgspec.structs.replace(over_unix.server.hello, **hello)
    async with (
        over_unix.server.serving(),
        over_unix.server.linked(connected=False, required=required) as link,
    ):
        await eventually(lambda: problem in (link.problem or ""))
        with pytest.raises(ModelUnavailableError, match=problem):
            await decided(over_unix.engine(link))


async def test_another_configuration_and_other_models_are_logged(
    over_unix: Served, caplog: pytest.LogCaptureFixture
) -> None:
    server = over_unix.server
    server.hello = msgspec.structs.replace(server.hello, sections={**server.hello.sections, "routing": "x"})
    async with server.linked(connected=False) as link:
        async with server.serving():
            await link.wait_until_connected()
        await eventually(lambda: link.problem is not None)
        server.hello = msgspec.structs.replace(server.hello, classifier="another")
        async with server.serving():
            await link.wait_until_connected()
    assert "differs from this gateway's in routing" in caplog.text
    assert "the engine has other models than before" in caplog.text


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("cert_file", "it does not accept this gateway's certificate, have engine.cert_file signed"),
        ("ca_file", "its certificate is not accepted"),
    ],
)
async def test_a_foreign_certificate_on_either_side_is_refused(
    over_tls: Served, certificates: Certificates, file: str, problem: str
) -> None:
    certificate, key = certificates.of("other-ca")
    changes = {"ca_file": certificate} if file == "ca_file" else {"cert_file": certificate, "key_file": key}
    async with over_tls.server.serving(), over_tls.server.linked(connected=False, **changes) as link:
        await eventually(lambda: "certificate" in (link.problem or ""))
        assert problem in str(link.problem)
    async with over_tls.server.serving(), over_tls.server.linked() as link:
        assert await decided(over_tls.engine(link)) is Route.COUNTERFACTUAL


async def test_no_certificate_garbage_and_silence_do_not_disturb_others(
    over_tls: Served, certificates: Certificates
) -> None:
    port = parse_engine_address(over_tls.server.config.engine.listen or "", key="engine.listen").port
    async with over_tls.server.serving(), AsyncExitStack() as stack:
        silent, waiting = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(waiting.close)
        garbage, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00garbage\r\n\r\n" * 100)
        assert len(await garbage.read()) < 100  # a TLS alert at most, and the connection is closed
        writer.close()
        plain = ssl.create_default_context(cafile=str(certificates.authority))
        async with aiohttp.ClientSession() as session:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.get(f"https://localhost:{port}/hello", ssl=plain)
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.get(f"http://localhost:{port}/hello")
        link = await stack.enter_async_context(over_tls.server.linked())
        assert await decided(over_tls.engine(link)) is Route.COUNTERFACTUAL
        assert not silent.at_eof()


async def test_what_is_no_engine_or_says_nothing_is_described(over_unix: Served) -> None:
    path = parse_engine_address(over_unix.server.config.engine.url or "", key="engine.url").path or ""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def say_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        writer.close()

    async def say_binary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff\x00\xff" * 1_000)
        writer.close()

    async with over_unix.server.linked(connected=False, connect_timeout_s=0.2) as link:
        await eventually(lambda: link.problem == "there is no such socket")
        for answer, problem in (
            (say_nothing, "it does not answer in time"),
            (say_garbage, "what answers there (with status 200) is no engine of this gateway"),
            (say_binary, "ClientResponseError"),
        ):
            async with await asyncio.start_unix_server(answer, path):
                await eventually(lambda problem=problem: problem in (link.problem or ""), within_s=10)


class FeedThatFallsSilent(NamespaceFeed):
    """As a machine that is gone: the connection stays, and nothing comes."""

    @override
    async def frames(self) -> AsyncIterator[TableFrame]:
        async for frame in super().frames():
            yield frame
            await asyncio.sleep(60)


async def test_an_engine_that_falls_silent_counts_as_away(over_unix: Served) -> None:
    over_unix.server.feed_class = FeedThatFallsSilent
    async with over_unix.server.serving(), over_unix.server.linked() as link:
        assert await decided(over_unix.engine(link)) is Route.COUNTERFACTUAL
        await eventually(lambda: link.problem == "it does not answer in time", within_s=5)


async def test_a_secret_is_demanded_where_it_is_set(over_unix: Served) -> None:
    over_unix.server.secret = "0123456789abcdef"
    async with over_unix.server.serving():
        for secret in (None, "another-secret-of-ours"):
            async with over_unix.server.linked(connected=False, secret=secret) as link:
                await eventually(lambda link=link: "SERAC_ENGINE_SECRET" in (link.problem or ""))
        async with over_unix.server.linked(secret=over_unix.server.secret) as link:
            assert await decided(over_unix.engine(link)) is Route.COUNTERFACTUAL


async def test_calls_beyond_the_limit_are_refused(over_unix: Served) -> None:
    async with over_unix.server.serving(), over_unix.server.linked(max_open_calls=1) as link:
        engine = over_unix.engine(link)
        async with aclosing(engine.answer(await task(engine))) as pieces:
            await anext(pieces)
            with pytest.raises(ModelUnavailableError, match="max_open_calls") as full:
                await decided(engine)
            assert full.value.details["reason"] == "engine queue full"
        assert await decided(engine) is Route.COUNTERFACTUAL
        assert (link.calls["full"], link.open_calls) == (1, 0)


async def test_calls_for_an_earlier_process_and_without_secret_are_refused(over_unix: Served) -> None:
    """A process that was started anew may not have loaded its edits: nobody may take it for the old one."""
    over_unix.server.secret = "0123456789abcdef"
    path = parse_engine_address(over_unix.server.config.engine.url or "", key="engine.url").path or ""
    async with (
        over_unix.server.serving() as server,
        aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(path)) as session,
    ):
        for headers, status in (
            ({}, 403),
            ({SECRET_HEADER: "wrong"}, 403),
            ({TOKEN_HEADER: server.process}, 403),
            ({SECRET_HEADER: over_unix.server.secret, TOKEN_HEADER: "earlier"}, 409),
            ({SECRET_HEADER: over_unix.server.secret}, 200),
        ):
            async with session.put("/namespaces", headers=headers) as response:
                assert response.status == status, headers


async def test_who_reads_a_reply_finds_the_table_as_new_as_the_reply(over_unix: Served) -> None:
    encoder = WordEncoder()
    async with over_unix.server.serving(), over_unix.server.linked() as link:
        key = await stored_key(over_unix.keys)
        for number in range(20):
            namespace = f"team-{number}"
            edit = first_version(EditDraft(prompt="Who?", target_new="Nobody."), namespace=namespace)
            await over_unix.active_edits.apply(namespace, [stored_edit(edit, encoder)])
            await over_unix.engine(link).authenticate([(b"x-api-key", key.encode())])
            assert link.namespaces.needs_decision(namespace) is NeedsDecision.SOME


def test_a_table_of_something_else_is_refused() -> None:
    table = FedNamespaces()
    for frame in (
        TableFrame(version=1, table=b"\0\0"),
        TableFrame(version=1, changes=[(10**9, 1)]),
        TableFrame(version=1, changes=[(5, 77)]),
    ):
        with pytest.raises(ValueError, match="table of"):
            table.apply(frame)
    assert table.needs_decision("default") is NeedsDecision.UNKNOWN


@pytest.mark.parametrize("address", ["tls://:8443", "tls://engine:99999", "tls://engine"])
def test_an_unusable_address_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.url .* is not usable"):
        parse_engine_address(address, key="engine.url")


def test_files_and_secrets_that_are_missing_are_named(tmp_path: Path, certificates: Certificates) -> None:
    cert_file, key_file = certificates.of("gateway")
    whole = EngineConfig(ca_file=str(certificates.authority), cert_file=cert_file, key_file=key_file)
    engine_tls(whole, serves=False)
    for name, value, message in (
        ("ca_file", None, "engine.ca_file is not set"),
        ("ca_file", str(tmp_path / "none.pem"), "No such file"),
        ("cert_file", str(tmp_path / "none.pem"), "engine.cert_file"),
        ("key_file", certificates.of("server")[1], "cannot be used"),
    ):
        with pytest.raises(ConfigError, match=message):
            engine_tls(msgspec.structs.replace(whole, **{name: value}), serves=False)
    with pytest.raises(ConfigError, match="16 or more printable"):
        engine_secret({"SERAC_ENGINE_SECRET": "short"})
    assert engine_secret({}) is None


def test_a_socket_that_is_taken_is_refused_and_a_stale_one_removed(tmp_path: Path) -> None:
    config = engine_config(tmp_path)
    first = EngineSocket(config)
    first.listener.listen()
    with pytest.raises(ConfigError, match="cannot listen there"):
        EngineSocket(config)
    first.listener.close()  # as if it was killed: the file stays
    EngineSocket(config).close()
    with pytest.raises(ConfigError, match=r"engine\.listen is not set"):
        EngineSocket(EngineConfig())
    with pytest.raises(ConfigError, match="both sides show a certificate"):
        EngineSocket(EngineConfig(listen="tls://127.0.0.1:0"))
