"""Sessions of the console, with a clock of the test's own."""

from __future__ import annotations

from serac_gateway.config.model import ConsoleConfig
from serac_gateway.console.sessions import KeptForm, Notice, Sessions

CONFIG = ConsoleConfig(session_idle_s=10, session_lifetime_s=25)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_session_lasts_while_it_is_used_and_no_longer_than_its_lifetime() -> None:
    """Idle and absolute limit both count."""
    clock = Clock()
    sessions = Sessions(clock)
    session_id, session = sessions.start("k1")
    for clock.now_s in (9, 18, 25):
        assert sessions.resume(session_id, CONFIG) is session
    clock.now_s = 26
    assert sessions.resume(session_id, CONFIG) is None
    idle_id, _ = sessions.start("k1")
    clock.now_s += 11
    assert sessions.resume(idle_id, CONFIG) is None
    assert len(sessions) == 0


def test_no_two_sessions_share_an_id_or_a_token() -> None:
    """Each is made anew."""
    sessions = Sessions()
    started = [sessions.start("k1") for _ in range(100)]
    assert len({session_id for session_id, _ in started}) == 100
    assert len({session.csrf_token for _, session in started}) == 100


def test_beyond_the_limit_the_session_that_was_idle_longest_ends() -> None:
    """So nobody can fill the memory."""
    sessions = Sessions(limit=2)
    first, second = (sessions.start(None)[0] for _ in range(2))
    sessions.resume(first, CONFIG)
    sessions.start(None)
    assert sessions.resume(second, CONFIG) is None
    assert sessions.resume(first, CONFIG) is not None


def test_an_ended_session_stays_ended_and_unknown_ids_are_nobodys() -> None:
    """Ending it twice does nothing."""
    sessions = Sessions()
    session_id, _ = sessions.start("k1")
    sessions.end(session_id)
    sessions.end(session_id)
    sessions.end(None)
    for other in (session_id, "planted", None, "\ud800"):
        assert sessions.resume(other, CONFIG) is None


def test_kept_text_is_for_its_own_page_and_only_once() -> None:
    """Another page's form does not take it."""
    _, session = Sessions().start("k1")
    session.kept = KeptForm(path="/console/a", fields={"x": "y"})
    assert session.take_kept("/console/b") is None
    assert session.take_kept("/console/a") == {"x": "y"}
    assert session.take_kept("/console/a") is None


def test_notices_are_for_the_next_page_alone() -> None:
    """And no more than ten wait."""
    _, session = Sessions().start("k1")
    for number in range(12):
        session.notify(Notice(key=f"n{number}"))
    assert [notice.key for notice in session.take_notices()] == [f"n{number}" for number in range(2, 12)]
    assert session.take_notices() == []
