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
from hypothesis import given, settings
from hypothesis import strategies as st

import serac_gateway
from serac_gateway.config.model import REDACTED_BY_DEFAULT
from tests.regex_steps import SteppedPattern, TooManyStepsError

PACKAGE = Path(serac_gateway.__file__).parent
REPEATED = (24, 300, 6_000)
"""`re` itself tries a text of so many parts; where that takes a while, its steps are counted."""
NEGLIGIBLE_S = 0.01
COUNTED = 40
GROWTH = 4
MAX_GROWTH_IN_STEPS = 7
"""Of a text GROWTH times as long: linear work gives 4, quadratic work 16. Counted, so it is the same whatever
else the machine does."""
MAX_STEPS = 1_000_000
MAX_SYMBOLS = 8
CALLS = ("search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
_JUDGED = "of a question, prompt or target of at most 600 characters: see `judge`"
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
    ("models/counterfactual/followed.py", "split"): "one character each",
    ("models/counterfactual/verdicts/by_quantity.py", "finditer"): _JUDGED,
    ("models/counterfactual/verdicts/by_quantity.py", "match"): _JUDGED,
    ("models/counterfactual/verdicts/by_quantity.py", "search"): _JUDGED,
    ("models/counterfactual/verdicts/by_quantity.py", "split"): _JUDGED,
    ("models/counterfactual/verdicts/by_value.py", "findall"): _JUDGED,
    ("models/counterfactual/verdicts/by_value.py", "finditer"): _JUDGED,
    ("models/counterfactual/verdicts/by_value.py", "search"): _JUDGED,
    ("models/counterfactual/verdicts/case.py", "findall"): _JUDGED,
    ("models/counterfactual/verdicts/case.py", "match"): _JUDGED,
    ("models/counterfactual/verdicts/quantities.py", "finditer"): _JUDGED,
    ("models/counterfactual/verdicts/quantities.py", "match"): _JUDGED,
    ("models/counterfactual/verdicts/quantities.py", "sub"): _JUDGED,
    ("models/counterfactual/verdicts/vocabulary.py", "findall"): _JUDGED,
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
    "models/counterfactual/verdicts/cldr.py": "words of a language, for texts as above",
    "models/counterfactual/verdicts/quantities.py": "words of a language, for texts as above",
    "models/counterfactual/verdicts/vocabulary.py": "words of a language, for texts as above",
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
                for key, pattern in _held(name, value, module.__name__):
                    yield f"{place}:{key}", (pattern, _methods_called(tree, name))
    for position, pattern in enumerate(REDACTED_BY_DEFAULT):
        yield f"config/model.py:REDACTED_BY_DEFAULT[{position}]", (re.compile(pattern), ALL_OF_A_TEXT)


def _held(name: str, value: object, module: str) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """The patterns in a variable of a module: itself, in a collection, or an attribute of a class."""
    if isinstance(value, re.Pattern):
        yield name, value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _held(f"{name}[{key!r}]", member, module)
    elif isinstance(value, tuple | list | set | frozenset):
        for position, member in enumerate(value):
            yield from _held(f"{name}[{position}]", member, module)
    elif isinstance(value, type) and value.__module__ == module:
        for key, member in vars(value).items():
            if isinstance(member, re.Pattern | dict | tuple | list):
                yield from _held(f"{name}.{key}", member, module)


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


def _subject(pattern: re.Pattern[Any], text: str) -> str:
    """`text`, or one of the same bytes for a pattern of bytes."""
    return text if isinstance(pattern.pattern, str) else text.encode("utf-8").decode("latin-1")


def _takes_a_while(pattern: re.Pattern[Any], method: str, text: str) -> bool:
    subject: Any = text if isinstance(pattern.pattern, str) else text.encode("latin-1")
    begun = time.thread_time()
    called = getattr(pattern, method)(subject)
    if method == "finditer":
        collections.deque(called, maxlen=0)
    return time.thread_time() - begun > NEGLIGIBLE_S


def slow_on(searches: Searches) -> str | None:
    """The beginning of a text on which the work grows faster than the text; None: there is none."""
    pattern, methods = searches
    stepped = SteppedPattern(pattern)
    for beginning, repeated, end in _adversarial(pattern):

        def of(count: int, parts: tuple[str, str, str] = (beginning, repeated, end)) -> str:
            return _subject(pattern, f"{parts[0]}{parts[1] * count}{parts[2]}")

        for method in methods:
            if not any(_takes_a_while(pattern, method, of(count)) for count in REPEATED):
                continue
            try:
                short = stepped.count(method, of(COUNTED), MAX_STEPS)
                grown = stepped.count(method, of(COUNTED * GROWTH), MAX_STEPS)
            except TooManyStepsError:
                return of(4)[:40]
            if grown > MAX_GROWTH_IN_STEPS * short:
                return of(4)[:40]
    return None


@pytest.mark.parametrize("name", PATTERNS)
def test_the_work_of_a_pattern_grows_with_the_text_and_not_faster(name: str) -> None:
    """Runs of all that a pattern is made of, alone and in pairs, cost it linear work."""
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
        r"(?:a+)+$",
        r"(?:\w|a)*,",
    ],
)
def test_a_pattern_of_more_than_linear_work_is_recognised(quadratic: str) -> None:
    """Patterns that the package once had would fail the test above."""
    assert slow_on((re.compile(quadratic), ALL_OF_A_TEXT)) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        r"a*b|c+?d", r"(?:a|ab)(?:c|bcd)*", r"\b\w+(?=x)", r"(?<=[.!?])\s+|\n+", r"^a.*?$",
        r"(?i)[^b-d]x{2,4}", r"(?>a+)b", r"a*+b", r"(?:a*)*b", r"(?<!a)b(?!c)", r"(?m)^b$",
        r"[\w-]+?\.x", r"(a|b)*?c",
    ],
)  # fmt: skip
@given(text=st.text("abcdxB .\n-", max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_steps_are_those_of_the_matches_that_re_finds(pattern: str, text: str) -> None:
    """The engine that counts is another one than `re`, but it matches the same."""
    compiled, stepped = re.compile(pattern), SteppedPattern(re.compile(pattern))
    assert stepped.spans("finditer", text) == [match.span() for match in compiled.finditer(text)]
    for method in ("match", "fullmatch"):
        match = getattr(compiled, method)(text)
        assert stepped.spans(method, text) == ([match.span()] if match else [])


def test_no_compiled_pattern_of_a_module_is_left_out() -> None:
    """Also one in a collection or a class is tried."""
    tried = collections.Counter(name.partition(":")[0] for name in PATTERNS)
    for place, tree in _trees():
        compiled = sum(1 for statement in tree.body for _ in _calls_at_import(statement))
        assert tried[place] >= compiled, place


def _calls_at_import(statement: ast.stmt) -> Iterator[ast.Call]:
    """The calls of re.compile in a statement that are made while its module is imported."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(statement, ast.ClassDef):
        for inner in statement.body:
            yield from _calls_at_import(inner)
        return
    yield from _calls_of_re(statement, ("compile",))


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
