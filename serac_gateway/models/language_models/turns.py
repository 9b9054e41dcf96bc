"""Lets answers that are generated at once progress together, token by token.

The operating system shares the cores among threads, but the more of them generate, the longer everything else
in the process waits. So only as many as there are cores compute a token at a time; the others wait in the
order in which they came, each for one token.
"""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """Shared by the answers of a model. Thread-safe."""

    def __init__(self, at_once: int) -> None:
        """So many turns, at least 1, are taken at a time."""
        self._free = at_once
        self._waiting: deque[threading.Lock] = deque()
        self._changing = threading.Lock()

    def take(self) -> None:
        """Wait for a turn, behind those that wait already."""
        with self._changing:
            if self._free:
                self._free -= 1
                return
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        called.acquire()

    def give(self) -> None:
        """End a turn: the first that waits has it at once, so that nobody comes in between."""
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


class Turn:
    """The turns of one answer; used by one thread."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._taken = False

    def next(self) -> None:
        """Let the others compute a token, then go on."""
        self.end()
        self._turns.take()
        self._taken = True

    def end(self) -> None:
        """The answer needs no turn any more. Idempotent."""
        if self._taken:
            self._taken = False
            self._turns.give()
