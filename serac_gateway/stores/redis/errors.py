"""Redis' and the network's errors as ours: the one place where they are translated."""

from __future__ import annotations

import os
import re

from redis import exceptions as redis_exceptions

from serac_gateway.errors import StoreUnavailableError

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    redis_exceptions.RedisError,
    redis_exceptions.RedisClusterException,
    redis_exceptions.ChildDeadlockedError,
    redis_exceptions.IncorrectPolicyType,
    OSError,
)
"""Everything that redis-py raises. `TimeoutError` and `ssl.SSLError` are OSErrors."""

_REMEDIES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (redis_exceptions.NoPermissionError, redis_exceptions.AuthorizationError),
        "grant its user all commands on the keys serac:*",
    ),
    (
        (redis_exceptions.AuthenticationError, redis_exceptions.AuthenticationWrongNumberOfArgsError),
        "check the user and the password in its URL",
    ),
    ((redis_exceptions.BusyLoadingError,), "it is still reading its data; try again shortly"),
    (
        (redis_exceptions.TimeoutError, TimeoutError),
        "a change may or may not have been made; repeat it with its idempotency key",
    ),
    ((redis_exceptions.OutOfMemoryError,), "raise its maxmemory or make room"),
    ((redis_exceptions.ReadOnlyError,), "it is a replica; name its primary"),
    (
        (redis_exceptions.AskError, redis_exceptions.ClusterError, redis_exceptions.RedisClusterException),
        "the cluster does not serve this key here; name a node that does",
    ),
    ((redis_exceptions.ConnectionError, OSError), "start it, or check its URL"),
)
"""The first row that fits counts."""


def unavailable(store_name: str, exc: Exception) -> StoreUnavailableError:
    """The error that our callers get for one of `FOREIGN_ERRORS`, with the server's own words."""
    remedy = next((words for classes, words in _REMEDIES if isinstance(exc, classes)), "see its log")
    return StoreUnavailableError(f"the edit store at {store_name} failed: {reason(exc)}; {remedy}")


def reason(exc: BaseException) -> str:
    """What happened, in a few words: the system's, such as "connection refused", or else the server's."""
    link: BaseException | None = exc
    while link is not None:
        errno = re.search(r"\[Errno (\d+)\]", str(link)) if isinstance(link, OSError) else None
        if errno:  # by number, because asyncio replaces the system's words or lists one error an address
            return os.strerror(int(errno[1])).lower()
        link = link.__cause__ or link.__context__
    return str(exc).rstrip(".") or type(exc).__name__
