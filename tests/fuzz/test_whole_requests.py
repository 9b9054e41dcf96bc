"""The harness for whole requests, without atheris: seeds and what some thousand changes make of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.fuzz import targets, whole_requests
from tests.fuzz.targets import check_steps
from tests.fuzz.whole_requests import SEEDS, WholeRequests

CHANGED = 1_500
_WORDS = (
    b'"', b"\\", b"\\u00", b"\xef\xbb\xbf", b"\xff", b"NaN", b"{", b"[" * 50, b"\\ud800", b'"model":1,',
    b"\t",
)  # fmt: skip
_PIECES = (b'{"a":', b"[", b'"', b"\\", b"1,", b'{"messages":[', b'{"role":"user","content":"Who? "},')


@pytest.fixture(scope="module")
def requests() -> Iterator[WholeRequests]:
    made = WholeRequests()
    yield made
    made.close()


def changed(seed: bytes, chance: random.Random) -> bytes:
    """The seed after a few changes: bytes replaced, cut out, doubled, or a piece of awkward JSON put in."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        end = min(len(data), place + chance.randint(1, 30))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                del data[max(1, place) : end]
            case 2:
                data[place:place] = data[place:end]
            case _:
                data[place:place] = chance.choice(_WORDS)
    return bytes(data)


def test_changed_requests_pass_as_they_are_or_are_answered_or_refused(requests: WholeRequests) -> None:
    chance = random.Random(12)
    for seed in SEEDS:
        requests.check(seed)
    for _ in range(CHANGED):
        requests.check(changed(chance.choice(SEEDS), chance))
    assert min(requests.outcomes[end] for end in ("passed", "answered", "refused")) > CHANGED // 20


def test_bodies_are_read_in_steps_linear_in_their_length() -> None:
    for endpoint in range(4):
        for piece in _PIECES:
            check_steps(bytes([endpoint]) + piece * 1_000)
        turns = b'{"messages":[{"role":"user","content":"' + b"Who runs it? " * 2_000 + b'"}]}'
        check_steps(bytes([endpoint]) + turns)


def test_the_check_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte, a leak, an undocumented status, and a reader that takes too many steps."""
    question = SEEDS[-1]
    passed = WholeRequests()
    monkeypatch.setattr(whole_requests, "REPLY_STATUS", 500)
    with pytest.raises(AssertionError, match="500"):
        passed.check(question)
    monkeypatch.undo()
    monkeypatch.setattr(whole_requests, "asks_last", lambda path, headers, body: True)
    leaking = whole_requests.request_of(0, {"model": "m", "messages": []})
    with pytest.raises(AssertionError, match="leaked"):
        passed.check(leaking.replace(b"[]", b'[{"role":"user","content":"Hi there"}]'))
    monkeypatch.undo()
    monkeypatch.setattr(whole_requests, "passed_headers", lambda headers: [])
    with pytest.raises(AssertionError):
        passed.check(question)
    passed.close()
    monkeypatch.setattr(targets, "MAX_STEPS", 0)
    monkeypatch.setattr(targets, "MAX_STEPS_PER_BYTE", 0)
    with pytest.raises(AssertionError):
        check_steps(b"\x00{}")
