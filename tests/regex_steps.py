"""Counts the steps that a backtracking engine takes for a regular expression: the same on every machine.

`re` says only how long a search took, which on a busy machine says little. This engine reads the tree of
`re`'s own parser and backtracks as `re` does, one step at a time, without its shortcuts; so its steps grow
with the text as those of `re` do, or faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

Instruction = tuple[Any, ...]
_WORD, _DIGIT, _SPACE = re.compile(r"\w"), re.compile(r"\d"), re.compile(r"\s")
_CATEGORIES = {
    sre.CATEGORY_WORD: (_WORD, True), sre.CATEGORY_NOT_WORD: (_WORD, False),
    sre.CATEGORY_DIGIT: (_DIGIT, True), sre.CATEGORY_NOT_DIGIT: (_DIGIT, False),
    sre.CATEGORY_SPACE: (_SPACE, True), sre.CATEGORY_NOT_SPACE: (_SPACE, False),
}  # fmt: skip


class TooManyStepsError(Exception):
    """More than the limit."""


class SteppedPattern:
    """A pattern, made into instructions."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
        self._is_ascii = isinstance(pattern.pattern, bytes) or bool(pattern.flags & re.ASCII)
        self._program: list[Instruction] = []
        self._marks = 0
        self._emit_all(_parser.parse(text, pattern.flags & ~re.UNICODE), pattern.flags, self._program)
        self._program.append(("match",))
        self.steps = 0
        self._limit = 0

    def count(self, method: str, text: str, limit: int) -> int:
        """The steps of `method` (match, fullmatch or finditer) on `text`.

        Raises:
            TooManyStepsError: More than `limit`.
        """
        self.spans(method, text, limit)
        return self.steps

    def spans(self, method: str, text: str, limit: int = 10**9) -> list[tuple[int, int]]:
        """What it matches: at most one span but for finditer."""
        self.steps, self._limit = 0, limit
        if method != "finditer":
            end = self._run(self._program, text, 0, to_end=method == "fullmatch")
            return [] if end is None else [(0, end)]
        matched: list[tuple[int, int]] = []
        start = 0
        while start <= len(text):
            end = self._run(self._program, text, start)
            if end is None or (end == start and matched and matched[-1][1] == end and matched[-1][0] < end):
                start += 1
                continue
            matched.append((start, end))
            start = end if end > start else start + 1
        return matched

    def _run(self, program: list[Instruction], text: str, at: int, *, to_end: bool = False) -> int | None:
        """The end of a match that begins at `at`."""
        stack: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(0, at, ())]
        while stack:
            place, position, marks = stack.pop()
            while True:
                self.steps += 1
                if self.steps > self._limit:
                    raise TooManyStepsError
                instruction = program[place]
                kind = instruction[0]
                place += 1
                if kind == "char":
                    if position == len(text) or not instruction[1](text[position]):
                        break
                    position += 1
                elif kind == "split":
                    stack.append((instruction[2], position, marks))
                    place = instruction[1]
                elif kind == "jump":
                    place = instruction[1]
                elif kind == "mark":
                    marks = (
                        *(mark for mark in marks if mark[0] != instruction[1]),
                        (instruction[1], position),
                    )
                elif kind == "moved":
                    if (instruction[1], position) in marks:
                        break
                elif kind == "at":
                    if not instruction[1](text, position):
                        break
                elif kind == "atomic":
                    end = self._run(instruction[1], text, position)
                    if end is None:
                        break
                    position = end
                elif kind == "look":
                    start = position - instruction[2]
                    seen = start >= 0 and self._run(instruction[1], text, start) is not None
                    if seen is instruction[3]:
                        break
                elif kind == "fail" or (to_end and position != len(text)):
                    break
                else:
                    return position
        return None

    def _emit_all(self, nodes: Iterable[Any], flags: int, program: list[Instruction]) -> None:
        for operation, argument in nodes:
            self._emit(operation, argument, flags, program)

    def _emit(self, operation: Any, argument: Any, flags: int, program: list[Instruction]) -> None:  # noqa: ANN401
        if operation in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            program.append(("char", self._character(operation, argument, flags)))
        elif operation is sre.SUBPATTERN:
            _, added, removed, nodes = argument
            self._emit_all(nodes, (flags | added) & ~removed, program)
        elif operation is sre.BRANCH:
            self._emit_branch(argument[1], flags, program)
        elif operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            self._emit_repeat(argument, flags, program, greedy=operation is sre.MAX_REPEAT)
        elif operation is sre.POSSESSIVE_REPEAT:
            inner: list[Instruction] = []
            self._emit_repeat(argument, flags, inner, greedy=True)
            program.append(("atomic", [*inner, ("match",)]))
        elif operation is sre.ATOMIC_GROUP:
            program.append(("atomic", self._separate(argument, flags)))
        elif operation in (sre.ASSERT, sre.ASSERT_NOT):
            direction, nodes = argument
            width = nodes.getwidth()[0] if direction < 0 else 0
            program.append(("look", self._separate(nodes, flags), width, operation is sre.ASSERT_NOT))
        elif operation is sre.AT:
            program.append(("at", _at(argument, flags)))
        elif operation is sre.FAILURE:
            program.append(("fail",))
        else:
            raise NotImplementedError(f"{operation} is not counted yet; add it to {__name__}")

    def _separate(self, nodes: Any, flags: int) -> list[Instruction]:  # noqa: ANN401 - the parser's own trees
        program: list[Instruction] = []
        self._emit_all(nodes, flags, program)
        return [*program, ("match",)]

    def _emit_branch(self, branches: list[Any], flags: int, program: list[Instruction]) -> None:
        jumps = []
        for branch in branches[:-1]:
            split = len(program)
            program.append(())
            self._emit_all(branch, flags, program)
            jumps.append(len(program))
            program.append(())
            program[split] = ("split", split + 1, len(program))
        self._emit_all(branches[-1], flags, program)
        for jump in jumps:
            program[jump] = ("jump", len(program))

    def _emit_repeat(self, argument: Any, flags: int, program: list[Instruction], *, greedy: bool) -> None:  # noqa: ANN401
        least, most, nodes = argument
        for _ in range(least):
            self._emit_all(nodes, flags, program)
        splits = []
        if most is sre.MAXREPEAT:
            loop = len(program)
            splits.append(loop)
            program.append(())
            may_be_empty = nodes.getwidth()[0] == 0
            self._marks += 1
            mark = self._marks
            if may_be_empty:
                program.append(("mark", mark))
            self._emit_all(nodes, flags, program)
            if may_be_empty:
                program.append(("moved", mark))
            program.append(("jump", loop))
        else:
            for _ in range(most - least):
                splits.append(len(program))
                program.append(())
                self._emit_all(nodes, flags, program)
        end = len(program)
        for split in splits:
            program[split] = ("split", split + 1, end) if greedy else ("split", end, split + 1)

    def _character(self, operation: Any, argument: Any, flags: int) -> Callable[[str], bool]:  # noqa: ANN401
        """Whether a character matches, remembered for each."""
        cases: Callable[[str], set[str]] = (
            (lambda text: {text, text.lower(), text.upper(), text.casefold()})
            if flags & re.IGNORECASE
            else (lambda text: {text})
        )
        known: dict[str, bool] = {}

        def is_in(text: str) -> bool:
            if operation is sre.ANY:
                return bool(flags & re.DOTALL) or text != "\n"
            if operation in (sre.LITERAL, sre.NOT_LITERAL):
                return (chr(argument) in cases(text)) is (operation is sre.LITERAL)
            negated = argument[0][0] is sre.NEGATE
            return any(self._is_member(member, text, cases) for member in argument[negated:]) is not negated

        def is_in_once(text: str) -> bool:
            if text not in known:
                known[text] = is_in(text)
            return known[text]

        return is_in_once

    def _is_member(self, member: Any, text: str, cases: Callable[[str], set[str]]) -> bool:  # noqa: ANN401
        operation, argument = member
        if operation is sre.LITERAL:
            return chr(argument) in cases(text)
        if operation is sre.RANGE:
            return any(argument[0] <= ord(case) <= argument[1] for case in cases(text) if len(case) == 1)
        pattern, is_within = _CATEGORIES[argument]
        return (pattern.match(text) is not None and (text.isascii() or not self._is_ascii)) is is_within


def _at(code: Any, flags: int) -> Callable[[str, int], bool]:  # noqa: ANN401 - a constant of the parser
    def is_word(text: str, position: int) -> bool:
        return 0 <= position < len(text) and _WORD.match(text[position]) is not None

    def is_boundary(text: str, position: int) -> bool:
        return is_word(text, position - 1) is not is_word(text, position)

    if code is sre.AT_BOUNDARY:
        return is_boundary
    if code is sre.AT_NON_BOUNDARY:
        return lambda text, position: not is_boundary(text, position)
    if code is sre.AT_BEGINNING and flags & re.MULTILINE:
        return lambda text, position: position == 0 or text[position - 1] == "\n"
    if code in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        return lambda text, position: position == 0
    if code is sre.AT_END and flags & re.MULTILINE:
        return lambda text, position: position == len(text) or text[position] == "\n"
    if code is sre.AT_END:
        return lambda text, position: text[position:] in ("", "\n")
    assert code is sre.AT_END_STRING, code
    return lambda text, position: position == len(text)
