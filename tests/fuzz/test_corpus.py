"""What fuzzing found worth keeping is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import check, check_body, check_stream

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def test_the_corpus_reaches_both_targets_and_is_kept_small() -> None:
    firsts = {path.read_bytes()[0] % 2 for path in CORPUS}
    assert firsts == {0, 1}
    assert sum(path.stat().st_size for path in CORPUS) < 1_000_000


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_fuzzing_found_is_handled(path: Path) -> None:
    check(path.read_bytes())


def test_a_target_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks can fail: a boundary finder that loses a byte, and a query that is not capped."""
    from tests.fuzz import targets

    class Losing(targets.EventBoundaries):
        def feed(self, chunk: bytes) -> bytes:
            return super().feed(chunk)[1:]

    monkeypatch.setattr(targets, "EventBoundaries", Losing)
    with pytest.raises(AssertionError):
        check_stream(b"xdata: 1\n\ndata: 2\n\n")
    monkeypatch.setattr(targets, "MAX_QUERY_CHARS", 3)
    with pytest.raises(AssertionError):
        check_body(b'\x00{"messages": [{"role": "user", "content": "Who runs it?"}]}')
