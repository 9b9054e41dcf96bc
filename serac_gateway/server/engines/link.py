"""A gateway's link to its engine: connected for as long as the engine can be reached, and again after that.

While it is connected it follows the engine's table of namespaces; the stream's signs of life say that the
engine is there. While it is not, every call fails at once: requests do not wait for a time-out each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator

import aiohttp
import msgspec
from typing_extensions import override

from serac_gateway import __version__
from serac_gateway.config.model import EngineConfig, GatewayConfig
from serac_gateway.data_plane.engine_access import (
    AWAY,
    POSITION_HEADER,
    SECRET_HEADER,
    TOKEN_HEADER,
    EngineAddress,
    EngineHello,
    failure_text,
    read_hello,
)
from serac_gateway.data_plane.plan import AnswerTask
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import GatewayError, ModelUnavailableError
from serac_gateway.server.engines.messages import (
    NAMESPACES_PATH,
    STATUS_OTHER_PROCESS,
    protocol,
    read_table_frame,
    section_digests,
)
from serac_gateway.server.engines.namespaces import FedNamespaces
from serac_gateway.server.workers.rpc_client import CONNECTION_ERRORS, ReplyT, RpcClient
from serac_gateway.server.workers.rpc_messages import AUTHENTICATE_PATH

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_POSITION_TIMEOUT_S = 1.0
"""The table follows an edit within milliseconds."""
_FOLLOWING_STEP_S = 0.05


class EngineLink(RpcClient):
    """Calls the engine, and keeps the table of its namespaces. Belongs to one event loop.

    Calls raise `ModelUnavailableError` with the reason "engine away" while it is not connected, and with
    "engine queue full" beyond `max_open_calls`.
    """

    def __init__(
        self,
        address: EngineAddress,
        config: GatewayConfig,
        *,
        tls: ssl.SSLContext | None,
        secret: str | None,
    ) -> None:
        """Connects once `start` is called. Construct it in a running event loop."""
        self._address = address
        self._config = config
        self._engine: EngineConfig = config.engine
        self._tls = tls
        self._secret = secret
        self.namespaces = FedNamespaces()
        self.hello: EngineHello | None = None
        """What the engine said of itself when it was connected last; None: it never was."""
        self.problem: str | None = "not connected yet"
        """Why it is not connected; None: it is."""
        self.away_since = time.monotonic()
        """When it was connected last, on the clock `time.monotonic`, or made."""
        self.connects = 0
        self.calls = Counter[str]()
        """Calls by outcome: ok, refused (an error of the engine's), failed, away, full."""
        self._open_calls: dict[aiohttp.ClientSession, int] = {}
        self._connected = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._lost: asyncio.Event = asyncio.Event()
        self._is_back = asyncio.Event()
        """Set where a relayed reply says that the engine is there: the pause before the next attempt ends."""
        self._retiring: set[asyncio.Task[None]] = set()
        super().__init__(self._new_session())

    @property
    def open_calls(self) -> int:
        """Calls that are under way."""
        return sum(self._open_calls.values())

    @property
    def away_s(self) -> float:
        """For how long it has not been connected; 0 while it is."""
        return 0.0 if self.problem is None else time.monotonic() - self.away_since

    def start(self) -> None:
        """Connect, and keep connected until `close`."""
        self._following = asyncio.create_task(self._keep_connected())

    async def wait_until_connected(self) -> None:
        """Return when it is connected, however long that takes."""
        await self._connected.wait()

    @override
    async def call(
        self, path: str, message: msgspec.Struct, kind: type[ReplyT], *, timeout_s: float | None = None
    ) -> ReplyT:
        with self._under_way():
            return await super().call(path, message, kind, timeout_s=timeout_s)

    @override
    async def answer(
        self, task: AnswerTask, on_tokens: Callable[[int], None], *, timeout_s: float
    ) -> AsyncGenerator[ChoicePiece, None]:
        with self._under_way():
            async with contextlib.aclosing(super().answer(task, on_tokens, timeout_s=timeout_s)) as pieces:
                async for piece in pieces:
                    yield piece

    async def in_step_with(self, headers: Headers) -> None:
        """Return when the table is as new as a reply with these headers; after a second it is logged."""
        position = dict(headers).get(POSITION_HEADER.encode(), b"").decode("latin-1")
        try:
            async with asyncio.timeout(_POSITION_TIMEOUT_S):
                await self._follows(position.partition("-")[2])
                await self._in_step(position)
        except TimeoutError:
            log.warning("the table of namespaces does not follow: another edit may not be in force here yet")

    async def _follows(self, process: str) -> None:
        """Return when the table is that process'; one that was started anew is connected to at once."""

        def is_behind() -> bool:
            followed = None if self.hello is None or self.problem is not None else self.hello.process
            return process not in ("", followed)

        if is_behind():
            self._is_back.set()
        while is_behind():
            await asyncio.sleep(_FOLLOWING_STEP_S)

    async def _in_step(self, position: str) -> None:
        version = position.partition("-")[0]
        if version.isdecimal() and version.isascii():
            await self.namespaces.reached(int(version), timeout_s=_POSITION_TIMEOUT_S)

    @override
    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await super().close()

    @override
    async def _check_reply(self, response: aiohttp.ClientResponse) -> None:
        if response.status == STATUS_OTHER_PROCESS:
            self._lost.set()
            raise _away("it was started anew")
        if response.url.path == AUTHENTICATE_PATH:
            await self._in_step(response.headers.get(POSITION_HEADER, ""))

    @override
    def _unavailable(self, exc: BaseException) -> ModelUnavailableError:
        return _away(failure_text(exc))

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        if self.problem is not None:
            self.calls["away"] += 1
            raise _away(self.problem)
        if self.open_calls >= self._engine.max_open_calls:
            self.calls["full"] += 1
            raise ModelUnavailableError(
                f"{self._engine.max_open_calls} calls to the engine are open already (engine.max_open_calls)",
                details={"reason": "engine queue full"},
            )
        session, outcome = self._session, "failed"
        self._open_calls[session] = self._open_calls.get(session, 0) + 1
        try:
            yield
            outcome = "ok"
        except GeneratorExit:
            outcome = "ok"
            raise
        except GatewayError as error:
            outcome = "failed" if error.details.get("reason") == AWAY else "refused"
            raise
        finally:
            self.calls[outcome] += 1
            self._open_calls[session] -= 1
            if not self._open_calls[session]:
                del self._open_calls[session]

    async def _keep_connected(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            abruptly = True
            try:
                await self._follow()
                problem = "it was started anew"
            except ModelUnavailableError as error:
                problem = error.message
            except asyncio.IncompleteReadError as exc:
                problem, abruptly = failure_text(exc), bool(exc.partial)
            except (*CONNECTION_ERRORS, ValueError) as exc:
                problem = failure_text(exc)
            except Exception as exc:
                log.exception("the link to the engine failed")
                problem = repr(exc)
            if self.problem is None:
                pause_s = _FIRST_PAUSE_S
                self.away_since = time.monotonic()
                self._connected.clear()
            if problem != self.problem:
                log.warning("no engine at %s: %s", self._engine.url, problem)
            self.problem = problem
            self._retire_session(abruptly=abruptly)
            self._is_back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):
                    await self._is_back.wait()
            pause_s = min(2 * pause_s, self._engine.longest_pause_s)

    async def _follow(self) -> None:
        """Connect, and follow the table; returns when a call has found another process there."""
        self._lost.clear()
        async with self._new_session() as session:
            async with asyncio.timeout(self._engine.connect_timeout_s):
                hello = await read_hello(session)
                self._check(hello)
                response = await session.put(NAMESPACES_PATH, headers={TOKEN_HEADER: hello.process})
            async with response:
                if response.status != 200:
                    raise ModelUnavailableError(f"it refuses to be followed, with status {response.status}")
                while not self._lost.is_set():
                    async with asyncio.timeout(self._engine.silence_timeout_s):
                        frame = await read_table_frame(response.content.readexactly)
                    self.namespaces.apply(frame)
                    if self.problem is not None:
                        self._note_connected(hello)

    def _check(self, hello: EngineHello) -> None:
        if hello.protocol != protocol():
            raise ModelUnavailableError(
                f"it is of version {hello.version} and this gateway of {__version__}, and their messages"
                " differ; run the same version on both"
            )
        if self._config.demands_keys and not hello.keys_required:
            raise ModelUnavailableError(
                "it demands no API keys, and this gateway does; set access.required = true there, or whoever"
                " reaches this gateway could edit"
            )

    def _note_connected(self, hello: EngineHello) -> None:
        before, self.hello = self.hello, hello
        self._retire_session(abruptly=False)
        self._session = self._new_session(hello.process)
        self.problem = None
        self.connects += 1
        self._connected.set()
        log.info(
            "connected to the engine at %s: version %s, encoder %s, classifier %s",
            self._engine.url,
            hello.version,
            hello.encoder,
            hello.classifier,
        )
        if before is not None and (before.encoder, before.classifier) != (hello.encoder, hello.classifier):
            log.warning("the engine has other models than before: it may decide otherwise")
        own = section_digests(self._config)
        differing = sorted(name for name, digest in own.items() if hello.sections.get(name) != digest)
        if differing:
            log.warning(
                "the engine's configuration differs from this gateway's in %s: the engine decides by its own;"
                " give both the same file",
                ", ".join(differing),
            )

    def _new_session(self, process: str | None = None) -> aiohttp.ClientSession:
        headers = {} if self._secret is None else {SECRET_HEADER: self._secret}
        if process is not None:
            headers[TOKEN_HEADER] = process
        return aiohttp.ClientSession(
            self._address.base_url,
            connector=self._address.connector(self._tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._engine.connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
        )

    def _retire_session(self, *, abruptly: bool) -> None:
        """Close the calls' connections: at once if the other side may be dead, else when these have ended."""
        session = self._session

        async def close() -> None:
            until = time.monotonic() + (0 if abruptly else self._config.models.answer_timeout_s)
            while session in self._open_calls and time.monotonic() < until:
                await asyncio.sleep(0.05)
            await session.close()

        task = asyncio.create_task(close())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _away(problem: str) -> ModelUnavailableError:
    return ModelUnavailableError(f"the engine does not answer: {problem}", details={"reason": AWAY})
