"""Finds many patterns in a text that arrives character by character (Aho and Corasick, CACM 18, 1975).

pyahocorasick (C, BSD) searches whole texts faster. It does not say how long the pending beginning of a match
is, which is what has to be held back, and it has one state, where a text is read in several ways at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

ROOT = 0
_CODES = 0x110000


class PatternAutomaton:
    """States are numbers; `ROOT` is the one without a pending beginning. Immutable once built."""

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        """`patterns` are texts, none empty, each with the number that a match reports."""
        self._next: dict[int, int] = {}
        """State and character, in one number -> the state."""
        self._fallback: list[int] = [ROOT]
        self.depth: list[int] = [0]
        """Of a state: how many of the latest characters begin a pattern."""
        self.matches: list[tuple[tuple[int, int], ...]] = [()]
        """Of a state: number and length of the patterns that end there."""
        self._insert(patterns)
        self.first = frozenset(chr(key) for key in self._next if key < _CODES)
        """The characters with which a pattern begins."""

    def step(self, state: int, char: str) -> int:
        """The state after one more character."""
        code = ord(char)
        following = self._next.get
        while True:
            after = following(state * _CODES + code)
            if after is not None:
                return after
            if state == ROOT:
                return ROOT
            state = self._fallback[state]

    def _insert(self, patterns: Iterable[tuple[str, int]]) -> None:
        children: dict[int, list[tuple[str, int]]] = {}
        for text, number in patterns:
            state = ROOT
            for char in text:
                key = state * _CODES + ord(char)
                after = self._next.get(key)
                if after is None:
                    after = self._next[key] = len(self.depth)
                    self.depth.append(self.depth[state] + 1)
                    self._fallback.append(ROOT)
                    self.matches.append(())
                    children.setdefault(state, []).append((char, after))
                state = after
            self.matches[state] += ((number, len(text)),)
        waiting = deque(after for _, after in children.get(ROOT, ()))
        while waiting:
            state = waiting.popleft()
            for char, after in children.get(state, ()):
                fallback = self._fallback[after] = self.step(self._fallback[state], char)
                self.matches[after] += self.matches[fallback]
                waiting.append(after)
