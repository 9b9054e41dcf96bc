"""No regular expression of the package takes more than linear time, whatever text it is given.

`re` holds the interpreter while it searches: a pattern of quadratic time stops the whole process for seconds
on a text of some kilobytes. The patterns are read from the sources, so that a new one needs no line here.
"""

from __future__ import annotations

import ast
import collections
import importlib
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import serac_gateway
from serac_gateway.config.model import REDACTED_BY_DEFAULT

PACKAGE = Path(serac_gateway.__file__).parent
REPEATED = 1_000
GROWTH = 6
MAX_GROWTH_IN_TIME = 15
"""Of a text GROWTH times as long: linear time gives 6, quadratic time 36."""
NEGLIGIBLE_S = 0.01
MAX_SYMBOLS = 8
CALLS = ("search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
NOT_COMPILED_AT_IMPORT = {
    ("auth/api_keys.py", "fullmatch"): "a key's id, of fixed length",
    ("config/loading.py", "search"): "the operator's own file, read once",
    ("config/model.py", "sub"): "an upstream's name, read once",
    (
        "control_plane/http/problems.py",
        "fullmatch",
    ): "a route's path; one class of characters between slashes",
    ("control_plane/http/problems.py", "sub"): "a route's own format",
    ("control_plane/paraphrases.py", "sub"): "anchored literal",
    ("cli/bench/processes.py", "findall"): "the kernel's text",
    ("data_plane/upstream/allowed_requests.py", "split"): "the operator's own paths, read once",
    ("domain/followups.py", "findall"): "runs of one class",
    ("domain/followups.py", "search"): "the first of one class",
    ("models/counterfactual/matching.py", "sub"): "literals",
    ("stores/redis/clients.py", "search"): "the operator's URL",
    ("stores/redis/connection.py", "sub"): "the operator's URL",
    ("stores/redis/errors.py", "search"): "an operating system's error",
    ("testing.py", "findall"): "of a fake for tests",
}
"""Patterns that are written where they are used, each with the reason why it cannot be slow."""
COMPILED_LATER = {
    "stores/traffic_recorder.py": "the operator's own patterns; a text has at most 2,000 characters",
    "data_plane/upstream/allowed_requests.py": "the operator's own paths with asterisks",
    "data_plane/upstream/by_model.py": "the operator's model names with asterisks",
}


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))


def _calls_of_re(tree: ast.AST, names: tuple[str, ...]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in names
        ):
            yield node


Searches = tuple[re.Pattern[Any], frozenset[str]]
"""A pattern, and the methods of it that are called."""
ALL_OF_A_TEXT = frozenset({"finditer"})


def _patterns() -> Iterator[tuple[str, Searches]]:
    """Every compiled pattern that a module of the package holds, with a name for it."""
    for place, tree in _trees():
        if any(_calls_of_re(statement, ("compile",)) for statement in tree.body):
            module = importlib.import_module(
                "serac_gateway." + place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            )
            for name, value in vars(module).items():
                if isinstance(value, re.Pattern):
                    yield f"{place}:{name}", (value, _methods_called(tree, name))
    for position, pattern in enumerate(REDACTED_BY_DEFAULT):
        yield f"config/model.py:REDACTED_BY_DEFAULT[{position}]", (re.compile(pattern), ALL_OF_A_TEXT)


def _methods_called(tree: ast.Module, name: str) -> frozenset[str]:
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }
    anchored = called & {"match", "fullmatch"}
    return frozenset(anchored) if called and called <= {"match", "fullmatch"} else ALL_OF_A_TEXT | anchored


PATTERNS = dict(_patterns())


def _literals(parsed: Any) -> Iterator[str]:  # noqa: ANN401 - the parser's own trees
    """The runs of literal characters in a pattern, and a character of each class, in order."""
    run = ""
    for operation, argument in parsed:
        if operation is sre.LITERAL:
            run += chr(argument)
            continue
        if run:
            yield run
            run = ""
        if operation is sre.IN:
            yield from _members(argument)
        elif operation is sre.NOT_LITERAL or operation is sre.ANY:
            yield "x"
        elif operation is sre.BRANCH:
            for branch in argument[1]:
                yield from _literals(branch)
        elif operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            yield from _literals(argument[2])
        elif operation in (sre.SUBPATTERN, sre.ASSERT, sre.ASSERT_NOT):
            yield from _literals(argument[-1])
        elif operation is sre.ATOMIC_GROUP:
            yield from _literals(argument)
    if run:
        yield run


def _members(members: Any) -> Iterator[str]:  # noqa: ANN401 - the parser's own trees
    examples = {
        sre.CATEGORY_DIGIT: "1", sre.CATEGORY_SPACE: " ", sre.CATEGORY_WORD: "a",
        sre.CATEGORY_NOT_SPACE: "a", sre.CATEGORY_NOT_WORD: ",", sre.CATEGORY_NOT_DIGIT: "a",
    }  # fmt: skip
    for operation, argument in members:
        if operation is sre.LITERAL:
            yield chr(argument)
        elif operation is sre.RANGE:
            yield chr(argument[0])
        elif operation is sre.CATEGORY:
            yield examples[argument]
        elif operation is sre.NEGATE:
            yield "x"


def _adversarial(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """(beginning, repeated, end): the parts of texts that almost match."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    symbols = list(dict.fromkeys(itertools.islice(_literals(_parser.parse(text, pattern.flags)), 200)))
    if len(symbols) > MAX_SYMBOLS:  # of many words every n-th, and all single characters
        single = [symbol for symbol in symbols if len(symbol) == 1][:MAX_SYMBOLS]
        words = [symbol for symbol in symbols if len(symbol) > 1]
        symbols = [*single, *words[:: max(1, len(words) // 3)][:3]]
    symbols = list(dict.fromkeys([*symbols, " ", "\n", "a"]))
    for first, second in itertools.product(symbols, ["", *symbols]):
        for beginning in ("", *symbols[:3]):
            yield from ((beginning, first + second, end) for end in ("\x00", ""))


def _search_s(searches: Searches, text: str) -> float:
    pattern, methods = searches
    subject: Any = text if isinstance(pattern.pattern, str) else text.encode("utf-8")
    begun = time.thread_time()
    for method in methods:
        called = getattr(pattern, method)(subject)
        if method == "finditer":
            collections.deque(called, maxlen=0)
    return time.thread_time() - begun


def slow_on(searches: Searches) -> str | None:
    """The beginning of a text on which the time grows faster than the text; None: there is none."""
    pattern, _ = searches
    for beginning, repeated, end in _adversarial(pattern):
        text = f"{beginning}{repeated * (REPEATED * GROWTH)}{end}"
        long_s = _search_s(searches, text)
        if long_s < NEGLIGIBLE_S:
            continue
        short = f"{beginning}{repeated * REPEATED}{end}"
        short_s = min(_search_s(searches, short) for _ in range(3))
        long_s = min(long_s, _search_s(searches, text), _search_s(searches, text))
        if long_s > MAX_GROWTH_IN_TIME * short_s:
            return text[:40]
    return None


@pytest.mark.parametrize("name", PATTERNS)
def test_the_time_of_a_pattern_grows_with_the_text_and_not_faster(name: str) -> None:
    """Runs of all that a pattern is made of, alone and in pairs, cost it linear time."""
    assert slow_on(PATTERNS[name]) is None


@pytest.mark.parametrize(
    "quadratic",
    [
        r"[.?!,;:\n]\s*who\b",
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        r"\b(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{24,}\b",
        r'\s*(W/)?"([^"]*)"\s*(?:,|$)',
        r"“([^”]+)”",
        r"token\s*(?:is|:|=)?\s*\S+$",
    ],
)
def test_a_quadratic_pattern_is_recognised(quadratic: str) -> None:
    """Patterns that the package once had would fail the test above."""
    assert slow_on((re.compile(quadratic), ALL_OF_A_TEXT)) is not None


def test_every_pattern_is_compiled_at_import_or_listed() -> None:
    """A pattern written inside a function is not tested above, so each has its reason in a table here."""
    inline = set()
    compiled_later = set()
    for place, tree in _trees():
        inline |= {(place, call.func.attr) for call in _calls_of_re(tree, CALLS)}  # type: ignore[attr-defined]
        functions = (
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        compiled_later |= {place for function in functions for _ in _calls_of_re(function, ("compile",))}
    assert inline == set(NOT_COMPILED_AT_IMPORT)
    assert compiled_later == set(COMPILED_LATER)
