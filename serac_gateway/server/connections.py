"""Keeps the open connections below the limit on open files: beyond it, those that do nothing are closed.

Otherwise clients that only connect would take every file descriptor, and nobody else could connect, not even
the probe of /health/live.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from collections.abc import Collection
from operator import itemgetter
from typing import Protocol

log = logging.getLogger(__name__)

_WANTED_FILES = 65_536
"""The limit on open files is raised to this if the system lets it: more clients no process could serve."""
_OTHER_FILES = 256
"""Descriptors for the store, models, log, and connections beyond the limit."""
_FILES_A_CONNECTION = 2
"""Its own socket and the one of its request to the upstream."""
_MIN_CONNECTIONS = 64
_SPARE_CONNECTIONS = 64
"""Further connections that are served while all below the limit are in use: a probe gets its answer."""
_CLOSED_SHARE = 16
"""With 1/16 of the connections closed at a time, the search among them is paid by many new ones."""
_LOG_INTERVAL_S = 10.0


class LimitedConnection(Protocol):
    """A connection that can be closed to make room."""

    since_s: float
    """When it was opened, in seconds of any clock."""

    def idleness(self) -> int | None:
        """How little is lost if it is closed, 0 least; None: a response is due on it."""
        ...

    def close_to_make_room(self) -> None:
        """Close it; a request whose body has not arrived is answered with 503."""
        ...

    def abort(self) -> None:
        """Close it at once."""
        ...


class ConnectionLimit:
    """A bound on the connections of one process. Belongs to one event loop."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._logged_s = -_LOG_INTERVAL_S
        self._closed = 0

    def admit(self, newest: LimitedConnection, connections: Collection[LimitedConnection]) -> None:
        """Make room for `newest`, which is among `connections`: close the idlest others, the oldest first."""
        if len(connections) <= self.maximum:
            return
        idle = [
            (idleness, connection.since_s, connection)
            for connection in connections
            if connection is not newest and (idleness := connection.idleness()) is not None
        ]
        idle.sort(key=itemgetter(0, 1))
        # Of one rank at a time: who has sent nothing goes before whoever has.
        closed = [entry for entry in idle if entry[0] == idle[0][0]][: max(1, self.maximum // _CLOSED_SHARE)]
        for _, _, connection in closed:
            connection.close_to_make_room()
        refused = not closed and len(connections) > self.maximum + _SPARE_CONNECTIONS
        if refused:
            newest.abort()
        self._closed += len(closed) + refused
        self._log(len(connections))

    def _log(self, count: int) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s < _LOG_INTERVAL_S:
            return
        log.warning(
            "%d connections are open and the limit is %d: %d were closed to make room, idle ones first; if"
            " clients need more, raise the limit on open files (LimitNOFILE, ulimit -n) and"
            " server.max_connections",
            count,
            self.maximum,
            self._closed,
        )
        self._logged_s, self._closed = now_s, 0


class SlowRequestLog:
    """Logs requests that were ended since they did not arrive in time, one line for all of an interval."""

    def __init__(self) -> None:
        self._logged_s = -_LOG_INTERVAL_S
        self._counts: Counter[str] = Counter()

    def note(self, section: str) -> None:
        """Count a request of which that section did not arrive, and log if it is time."""
        self._counts[section] += 1
        now_s = time.monotonic()
        if now_s - self._logged_s < _LOG_INTERVAL_S:
            return
        log.warning(
            "requests did not arrive in time and were refused: %d in their head, %d in their body; if clients"
            " need longer, raise server.head_timeout_s and server.body_gap_timeout_s",
            self._counts["head"],
            self._counts["body"],
        )
        self._logged_s, self._counts = now_s, Counter()


def connection_limit(configured: int | None) -> ConnectionLimit:
    """The limit as `configured`, but never more than the process's open files allow; None: as many."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = max(_MIN_CONNECTIONS, (files - _OTHER_FILES) // _FILES_A_CONNECTION)
    if configured is None:
        return ConnectionLimit(allowed)
    if configured > allowed:
        log.warning(
            "server.max_connections is %d, but %d open files allow %d; raise LimitNOFILE or ulimit -n to %d",
            configured,
            files,
            allowed,
            configured * _FILES_A_CONNECTION + _OTHER_FILES,
        )
    return ConnectionLimit(min(configured, allowed))


def raise_file_limit() -> None:
    """Raise the process's soft limit on open files towards its hard limit; child processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    log.info("the limit on open files was raised from %d to %d", soft, wanted)
