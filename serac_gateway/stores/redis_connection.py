"""How the edit store talks to its server: what is sent twice, how errors come out, who may serve."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.stores.redis_errors import FOREIGN_ERRORS, reason, unavailable

log = logging.getLogger(__name__)

Word = str | bytes | int
"""A part of a command."""

_T = TypeVar("_T")

_OLDEST_SERVER = 7
"""Redis 7.0 and Valkey 7.2: the first whose scripts refuse to start where they could not finish."""
_MAX_CONNECTIONS = 32
_TIMEOUT_S = 5.0
"""For a connection, for a free one, and for an answer."""
_SETTINGS_THAT_KEEP_EDITS = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class RedisConnection:
    """A pool of connections to one server.

    Every exchange runs to its end in a task of its own, so a caller that is cancelled neither cuts a commit
    in half nor leaves a connection with half a reply to the next one.
    """

    is_cluster = False

    def __init__(self, make_client: Callable[[], Redis], *, name: str) -> None:
        """`make_client` gives one that neither retries nor decodes. `name` is what errors call the server."""
        self._make_client = make_client
        self._client = make_client()
        self._name = name
        self._in_flight: set[asyncio.Future[Any]] = set()

    @classmethod
    async def open(cls, url: str, *, name: str | None = None) -> Self:
        """A connection to a server that answers and is new enough.

        Raises:
            ConfigError: It is not so; the message has the remedy, and no password.
        """
        name = name or repr(without_password(url))
        try:
            connection = cls(lambda: _client(url), name=name)
        except (ValueError, TypeError) as exc:
            # A ValueError may quote a password that was taken for a port.
            what = f": {exc}" if isinstance(exc, TypeError) else ""
            raise ConfigError(
                f"the edit store's URL {name} cannot be used{what}; write redis://host:port/0,"
                " rediss://user:password@host:port/0 or unix:///path/to/socket, the password percent-encoded"
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
        return type(self)(self._make_client, name=self._name)

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

    async def run(self, exchange: Awaitable[_T]) -> _T:
        """Await `exchange`, once, and let it end even if the caller is cancelled.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        task = asyncio.ensure_future(exchange)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        try:
            return await asyncio.shield(task)
        except FOREIGN_ERRORS as exc:
            raise unavailable(self._name, exc) from exc

    async def send(self, *command: Word) -> Any:  # noqa: ANN401 - a reply's type is its command's
        """The reply to a command that is sent once. For use inside `run`, which translates its errors."""
        return await self._client.execute_command(*command)

    async def read(self, *command: Word) -> Any:  # noqa: ANN401 - a reply's type is its command's
        """The reply to a reading command.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        [reply] = await self.read_all([command])
        return reply

    async def read_all(self, commands: Iterable[Sequence[Word]], *, transaction: bool = False) -> list[Any]:
        """The replies to reading commands, in one round trip.

        They are sent once more on another connection if theirs was closed: all are when the server has been
        restarted.

        Raises:
            StoreUnavailableError: The server could not be reached or refused.
        """
        commands = list(commands)
        try:
            return await self.run(self._pipelined(commands, transaction=transaction))
        except StoreUnavailableError as exc:
            if not isinstance(exc.__cause__, RedisConnectionError):
                raise
        return await self.run(self._pipelined(commands, transaction=transaction))

    async def write_all(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """The replies to commands that are sent once, in one transaction. Their keys have one hash tag.

        Raises:
            StoreUnavailableError: The server could not be reached or refused; all were done, or none.
        """
        return await self.run(self._pipelined(list(commands), transaction=True))

    async def close(self) -> None:
        """Wait for what is under way (each ends within its timeouts), and disconnect. Idempotent."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        await self._client.aclose()

    async def _pipelined(self, commands: list[Sequence[Word]], *, transaction: bool) -> list[Any]:
        if len(commands) == 1:
            return [await self.send(*commands[0])]
        pipeline = self._client.pipeline(transaction=transaction)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute()
        return replies

    async def _check_server(self) -> None:
        hello = await self.send("HELLO")
        facts = dict(zip(hello[::2], hello[1::2], strict=True))
        version = facts[b"version"].decode()
        if int(version.split(".")[0]) < _OLDEST_SERVER:
            raise ConfigError(
                f"the edit store at {self._name} is version {version!r}; it must be Redis 7.0,"
                " Valkey 7.2 or later"
            )
        await self._warn_if_edits_could_be_lost()

    async def _warn_if_edits_could_be_lost(self) -> None:
        try:
            settings = await self.send("CONFIG GET", *_SETTINGS_THAT_KEEP_EDITS)
        except ResponseError:
            return  # not allowed to ask: whoever runs the server has decided
        unsafe = [
            f"{name} is {settings[name]!r} and should be {safe!r}"
            for name, safe in _SETTINGS_THAT_KEEP_EDITS.items()
            if settings.get(name, safe) != safe
        ]
        if unsafe:
            log.warning("the edit store at %s may lose acknowledged edits: %s", self._name, ", ".join(unsafe))


def _client(url: str) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_MAX_CONNECTIONS,
        timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # by default it sends ten times, commits too
        protocol=2,
        client_name="serac_gateway",
    )
    pool.make_connection()  # refuses what it does not know in the URL's query
    return Redis.from_pool(pool)


def without_password(url: str) -> str:
    """The URL as it may be shown: no password, no query.

    As text, because a password whose special characters are not percent-encoded ends up in any part of the
    parsed URL.
    """
    return re.sub(r"^(\w+://[^:@/]*):.*@", r"\1:***@", url).partition("?")[0]
