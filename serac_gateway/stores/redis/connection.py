"""The connection to the server of the edit store: repetition, translation of errors, server checks."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Self, TypeVar

from redis.asyncio import RedisCluster
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, ResponseError

from serac_gateway.errors import ConfigError, DamagedRecordError, StoreUnavailableError
from serac_gateway.stores.redis.clients import (
    MAX_CONNECTIONS,
    NO_TLS_FILES,
    TIMEOUT_S,
    Client,
    TlsFiles,
    client_maker,
)
from serac_gateway.stores.redis.errors import FOREIGN_ERRORS, reason, unavailable

log = logging.getLogger(__name__)

Word = str | bytes | int
"""A part of a command."""

_T = TypeVar("_T")

_OLDEST_SERVER = 7
"""Redis 7.0 and Valkey 7.2: the first whose scripts refuse to start where they could not finish."""
_RUN_ALL = """
local replies, position = {}, 1
while position <= #ARGV do
  local length = tonumber(ARGV[position])
  replies[#replies + 1] = redis.call(unpack(ARGV, position + 1, position + length))
  position = position + 1 + length
end
return replies
"""
_SETTINGS_THAT_KEEP_EDITS = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def _no_problem() -> str | None:
    return None


class RedisConnection:
    """A pool of connections to one server, or to those of a cluster.

    Every exchange runs to its end in a task of its own, so a caller that is cancelled neither cuts a commit
    in half nor leaves a connection with half a reply to the next one.
    """

    def __init__(
        self, make_client: Callable[[], Client], *, name: str, problem: Callable[[], str | None] = _no_problem
    ) -> None:
        """`make_client` gives one that neither retries nor decodes. `name` is what errors call the server.

        `problem` says why the server does not run, where that is known.
        """
        self._problem = problem
        self._make_client = make_client
        self._client = make_client()
        self._name = name
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        """For a cluster, whose client refuses at once when its connections are in use."""
        self._in_flight: set[asyncio.Future[Any]] = set()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str | None = None,
        tls: TlsFiles = NO_TLS_FILES,
        problem: Callable[[], str | None] = _no_problem,
    ) -> Self:
        """A connection to a server that answers and is new enough.

        Raises:
            ConfigError: It is not so; the message has the remedy, and no password.
        """
        name = name or repr(without_password(url))
        try:
            connection = cls(client_maker(url, tls), name=name, problem=problem)
        except (ValueError, TypeError, RedisClusterException) as exc:
            # A ValueError may quote a password that was taken for a port.
            what = f": {exc}" if isinstance(exc, TypeError) else ""
            raise ConfigError(
                f"the edit store's URL {name} cannot be used{what}; write redis://host:port/0,"
                " rediss://user:password@host:port/0, unix:///path/to/socket,"
                " redis+sentinel://host:port,host:port/service/0 or redis+cluster://host:port,host:port, the"
                " password percent-encoded"
            ) from exc
        try:
            await connection.run(connection._check_server())
        except BaseException as exc:
            await connection.close()
            if isinstance(exc, StoreUnavailableError):
                words = reason(exc.__cause__ or exc)
                raise ConfigError(
                    f"cannot reach the edit store at {name}: {words}; start it or leave out --redis to use"
                    " the embedded one"
                ) from exc
            raise
        return connection

    def another(self) -> Self:
        """One to the same server, with connections of its own. It connects when it is used."""
        return type(self)(self._make_client, name=self._name, problem=self._problem)

    @property
    def is_cluster(self) -> bool:
        """Whether keys lie on several servers, so that a command can take those of one hash tag only."""
        return isinstance(self._client, RedisCluster)

    @property
    def name(self) -> str:
        """What errors call the server: quoted, without a password."""
        return self._name

    def script(self, text: str) -> AsyncScript:
        """Call the result, inside `run`, with keys and args.

        It is sent by its digest, and by its text where the server does not have it (any more); a server that
        says so has run nothing.
        """
        return self._client.register_script(text)

    async def run(self, exchange: Coroutine[Any, Any, _T]) -> _T:
        """Await `exchange`, once, and let it end even if the caller is cancelled.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
            DamagedRecordError: A key is not of the type that it should have.
        """
        task = asyncio.ensure_future(self._in_turn(exchange) if self.is_cluster else exchange)
        self._in_flight.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except FOREIGN_ERRORS as exc:
            if isinstance(exc, ResponseError) and "WRONGTYPE" in str(exc):
                raise DamagedRecordError(
                    f"a key of the edit store at {self._name} is not of the type that it should have; `serac"
                    " store repair` says which"
                ) from exc
            if (problem := self._problem()) is not None:
                raise StoreUnavailableError(
                    f"the edit store at {self._name} does not run: {problem}"
                ) from exc
            raise unavailable(self._name, exc) from exc

    async def send(self, *command: Word) -> Any:  # noqa: ANN401 - a reply's type is its command's
        """The reply to a command that is sent once. For use inside `run`, which translates its errors."""
        return await self._client.execute_command(*command)

    async def read(self, *command: Word) -> Any:  # noqa: ANN401 - a reply's type is its command's
        """The reply to a command that changes nothing. Sent again as `read_all` says.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        [reply] = await self.read_all([command])
        return reply

    async def read_all(self, commands: Iterable[Sequence[Word]], *, transaction: bool = False) -> list[Any]:
        """The replies to commands that change nothing, in one round trip.

        They are sent a second time, on another connection, if the first was closed: a server that has been
        restarted has closed all of them.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        return await self._exchange(list(commands), transaction=transaction, repeatable=True)

    async def write(self, *command: Word, repeatable: bool) -> Any:  # noqa: ANN401 - as in `read`
        """The reply to a command that changes something.

        `repeatable`: running it twice does no harm, so it is sent again as a read is. Otherwise it is sent
        once, and after an error it may or may not have been run.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        [reply] = await self.write_all([command], repeatable=repeatable)
        return reply

    async def write_all(self, commands: Iterable[Sequence[Word]], *, repeatable: bool) -> list[Any]:
        """The replies to commands in one transaction; their keys have one hash tag. See `write`.

        Raises:
            StoreUnavailableError: The server could not be reached or refused; all were run, or none.
        """
        return await self._exchange(list(commands), transaction=True, repeatable=repeatable)

    async def close(self) -> None:
        """Wait for what is under way (each ends within its timeouts), and disconnect. Idempotent."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        await self._client.aclose()

    async def _exchange(
        self, commands: list[Sequence[Word]], *, transaction: bool, repeatable: bool
    ) -> list[Any]:
        try:
            return await self.run(self._pipelined(commands, transaction=transaction))
        except StoreUnavailableError as exc:
            if not (repeatable and isinstance(exc.__cause__, RedisConnectionError)):
                raise
        return await self.run(self._pipelined(commands, transaction=transaction))

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # fetched, because a caller that has left cannot: asyncio would log it as lost

    async def _pipelined(self, commands: list[Sequence[Word]], *, transaction: bool) -> list[Any]:
        if len(commands) == 1:
            return [await self.send(*commands[0])]
        if isinstance(self._client, RedisCluster) and transaction:
            return await self._run_in_script(commands)
        pipeline = self._client.pipeline(transaction=transaction)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute()
        return replies

    async def _run_in_script(self, commands: list[Sequence[Word]]) -> list[Any]:
        """A transaction for a cluster: redis-py's own runs an event loop in a thread for each command."""
        lengths_and_words = [word for command in commands for word in (len(command), *command)]
        script = self.script(_RUN_ALL)
        replies: list[Any] = await script(
            keys=[str(command[1]) for command in commands], args=lengths_and_words
        )
        return replies

    async def _in_turn(self, exchange: Coroutine[Any, Any, _T]) -> _T:
        try:
            await asyncio.wait_for(self._turns.acquire(), TIMEOUT_S)
        except TimeoutError as exc:
            exchange.close()
            raise RedisConnectionError("no connection became free") from exc
        try:
            return await exchange
        finally:
            self._turns.release()

    async def _send_to_any_node(self, *command: Word) -> Any:  # noqa: ANN401 - a reply's type is its command's
        """The reply to a command without keys; in a cluster, one node's."""
        if not isinstance(self._client, RedisCluster):
            return await self.send(*command)
        await self._client.initialize()
        return await self._client.execute_command(*command, target_nodes=self._client.get_default_node())

    async def ask_any_node(self, *command: Word) -> Any:  # noqa: ANN401 - as in `read`
        """The reply to a command without keys that changes nothing; in a cluster, one node's.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        return await self.run(self._send_to_any_node(*command))

    async def server_version(self) -> str:
        """As the server says. Raises as `ask_any_node` does."""
        return _version_in(await self.ask_any_node("HELLO"))

    async def settings_that_lose_edits(self) -> dict[str, tuple[str, str]] | None:
        """By name what the server has and what it should have; None: this user may not read settings.

        Raises:
            StoreUnavailableError: The server could not be reached or refused otherwise.
        """
        return await self.run(self._unsafe_settings())

    async def _check_server(self) -> None:
        version = _version_in(await self._send_to_any_node("HELLO"))
        if int(version.split(".")[0]) < _OLDEST_SERVER:
            raise ConfigError(
                f"the edit store at {self._name} is version {version!r}; it must be Redis 7.0,"
                " Valkey 7.2 or later"
            )
        await self._warn_if_edits_could_be_lost()

    async def _warn_if_edits_could_be_lost(self) -> None:
        unsafe = await self._unsafe_settings()
        if unsafe:
            words = [f"{name} is {value!r} and should be {safe!r}" for name, (value, safe) in unsafe.items()]
            log.warning("the edit store at %s may lose acknowledged edits: %s", self._name, ", ".join(words))

    async def _unsafe_settings(self) -> dict[str, tuple[str, str]] | None:
        try:
            settings = await self._send_to_any_node("CONFIG GET", *_SETTINGS_THAT_KEEP_EDITS)
        except ResponseError:
            return None  # they are the operator's decision
        return {
            name: (settings[name], safe)
            for name, safe in _SETTINGS_THAT_KEEP_EDITS.items()
            if settings.get(name, safe) != safe
        }


def _version_in(hello: list[Any]) -> str:
    version: bytes = dict(zip(hello[::2], hello[1::2], strict=True))[b"version"]
    return version.decode()


def without_password(url: str) -> str:
    """The URL as it may be shown: no password, no query.

    As text, because a password whose special characters are not percent-encoded ends up in any part of the
    parsed URL.
    """
    return re.sub(r"^([\w+]+://[^:@/]*):.*@", r"\1:***@", url).partition("?")[0]
