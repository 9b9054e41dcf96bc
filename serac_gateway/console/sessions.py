"""Sessions of the console: who has logged in, kept in this process; the browser has an id and nothing else.

An id is made here and at login alone. One that a browser brings along is looked up, never adopted, so nobody
can prepare a session for somebody else (session fixation). Only digests of ids are kept.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from serac_gateway.auth.tokens import Claims
from serac_gateway.config.model import ConsoleConfig

MAX_SESSIONS = 1_000
"""Beyond it the session that was idle longest ends."""
MAX_KEPT_CHARS = 200_000
_MAX_NOTICES = 10


class KeptForm(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody had typed when their session was over."""

    path: str
    """Of the page with the form."""
    fields: Mapping[str, str]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the next page that is rendered."""

    key: str
    """Of the catalogue."""
    values: Mapping[str, str] = {}
    details: tuple[str, ...] = ()
    """Texts of the API, in English."""


@dataclass(kw_only=True)
class Session:
    """One login. Belongs to one event loop."""

    key_id: str | None
    """Of the API key; None: it began with a login of the identity provider, or no key is demanded."""
    claims: Claims | None = None
    """Of that login; None: there was none."""
    started_s: float
    seen_s: float
    """Of the last request, on the clock of `Sessions`."""
    csrf_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Every form of the session has it."""
    notices: list[Notice] = field(default_factory=list)
    kept: KeptForm | None = None

    def notify(self, notice: Notice) -> None:
        """Have the next page say it."""
        self.notices = [*self.notices, notice][-_MAX_NOTICES:]

    def take_notices(self) -> list[Notice]:
        """The messages for the page that is being rendered, which no other page has."""
        notices, self.notices = self.notices, []
        return notices

    def take_kept(self, path: str) -> Mapping[str, str] | None:
        """What was typed into the form of that page before the session began; only once."""
        if self.kept is None or self.kept.path != path:
            return None
        fields, self.kept = self.kept.fields, None
        return fields


class Sessions:
    """All sessions of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, limit: int = MAX_SESSIONS) -> None:
        """`clock` gives seconds and never goes back."""
        self._clock = clock
        self._limit = limit
        self._by_digest: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_digest)

    def start(self, key_id: str | None, claims: Claims | None = None) -> tuple[str, Session]:
        """A new session, and its id, which nobody had before."""
        now_s = self._clock()
        session_id = secrets.token_urlsafe(32)
        session = Session(key_id=key_id, claims=claims, started_s=now_s, seen_s=now_s)
        self._by_digest[_digest(session_id)] = session
        while len(self._by_digest) > self._limit:
            self._by_digest.popitem(last=False)
        return session_id, session

    def resume(self, session_id: str | None, config: ConsoleConfig) -> Session | None:
        """The session of that id, which goes on; None: there is none, or its time is over."""
        if session_id is None:
            return None
        digest, now_s = _digest(session_id), self._clock()
        session = self._by_digest.get(digest)
        if session is None:
            return None
        if (
            now_s - session.seen_s > config.session_idle_s
            or now_s - session.started_s > config.session_lifetime_s
        ):
            del self._by_digest[digest]
            return None
        session.seen_s = now_s
        self._by_digest.move_to_end(digest)
        return session

    def end(self, session_id: str | None) -> None:
        """Forget the session. Idempotent."""
        if session_id is not None:
            self._by_digest.pop(_digest(session_id), None)


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()
