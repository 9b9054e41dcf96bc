"""The house rules that a machine can read: names, sizes, reasons."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import itertools
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import serac_gateway
import training
from serac_gateway import errors

ROOT = Path(__file__).parents[2]
OURS_AT_RUN_TIME = sorted((ROOT / "serac_gateway").rglob("*.py"))
OURS = [*OURS_AT_RUN_TIME, *sorted((ROOT / "training").rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_LINES = 400
LONGER_BECAUSE = {
    "tests/http/test_upstreams.py": "the choice among several upstreams, case by case",
    "serac_gateway/config/model.py": "every configuration key with its default, as one tree",
    "serac_gateway/errors.py": "every error with its status and code, as one tree",
    "serac_gateway/server/wiring.py": "what the gateway consists of, and how each part is opened",
    "serac_gateway/routing/router.py": "the decision and its record, in the order in which it is made",
    "serac_gateway/domain/edits.py": "what an edit is, how its next version is made, its rules",
    "serac_gateway/stores/redis/store.py": "the port to the edit store, method by method, in Redis",
    "serac_gateway/stores/memory/store.py": "a whole store as a dictionary, to be read beside commit.lua",
    "tests/http/test_reloading.py": "every outcome of a reload, on one gateway that can be reloaded",
}
"""Files that may be longer, each one idea that would lose by a split."""
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "factory", "service"}
NOT_IN_GLOSSARY = {
    "embedder": "encoder",
    "vectorizer": "encoder",
    "backend": "upstream or base model",
    "score": "similarity or scope_probability",
    "scores": "similarities or scope_probabilities",
    "cutoff": "scope_threshold",
    "cachehit": "in scope",
}

NAMES_NOTHING = {"tell", "tells", "telling", "told", "untold", "found", "asked", "shown"}
"""Words that say where a value comes from instead of what it holds."""
SAYS_WHAT_IT_HOLDS = {
    "serac_gateway/control_plane/http/preview.py": {"asked_as", "shown"},
    "serac_gateway/errors.py": {
        "ApiKeyNotFoundError",
        "EditNotFoundError",
        "ProposalNotFoundError",
        "RequestNotFoundError",
        "WebhookNotFoundError",
    },
}
"""Names with such a word that are fields of the REST API, or the meaning of a 404."""


@cache
def parsed(path: Path) -> ast.Module:
    """The module; six rules read each."""
    return ast.parse(path.read_text("utf-8"))


def words(name: str) -> set[str]:
    """The lower-case words of a snake_case or CamelCase name, and each pair of neighbours joined."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    return {*parts, *(left + right for left, right in itertools.pairwise(parts))}


def defined_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def variables(tree: ast.AST) -> Iterator[str]:
    """Arguments, assigned names and loop variables; no functions, classes or attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def names_of_nothing(tree: ast.AST) -> set[str]:
    """Defined names with a word of `NAMES_NOTHING`, and variables named `one`.

    A test's name is a sentence and may say that something is found or shown.
    """
    flagged = {name for name in variables(tree) if name == "one"}
    for name in {*defined_names(tree), *variables(tree)}:
        in_sentence = {"found", "asked", "shown"} if name.startswith("test_") else set()
        if words(name) & (NAMES_NOTHING - in_sentence):
            flagged.add(name)
    return flagged


def class_names(tree: ast.AST) -> Iterator[str]:
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_file_is_longer_than_400_lines_without_a_reason() -> None:
    """And no exemption outlives its file, or the file's length."""
    longer = {
        path.relative_to(ROOT).as_posix()
        for path in [*OURS, *TESTS]
        if len(path.read_text("utf-8").splitlines()) > MAX_LINES
    }
    assert longer == LONGER_BECAUSE.keys()


def test_no_module_or_class_has_a_name_that_says_nothing() -> None:
    for path in [*OURS, *TESTS]:
        names = [
            *path.relative_to(ROOT).with_suffix("").parts,
            *class_names(parsed(path)),
        ]
        assert [name for name in names if words(name) & EMPTY_NAMES] == [], path


def test_names_are_the_glossarys() -> None:
    for path in OURS:
        names = defined_names(parsed(path))
        wrong = {
            name: NOT_IN_GLOSSARY[word] for name in names for word in words(name) & NOT_IN_GLOSSARY.keys()
        }
        assert wrong == {}, path


def test_the_glossary_check_sees_fields_arguments_and_camel_case() -> None:
    tree = ast.parse("class HttpBackend:\n  score: float\n  def f(self, cache_hit): self.embedder = 1")
    flagged = {word for name in defined_names(tree) for word in words(name) & NOT_IN_GLOSSARY.keys()}
    assert flagged == {"backend", "score", "cachehit", "embedder"}


def test_names_say_what_they_hold() -> None:
    for path in [*OURS, *TESTS]:
        allowed = SAYS_WHAT_IT_HOLDS.get(path.relative_to(ROOT).as_posix(), set())
        assert names_of_nothing(parsed(path)) - allowed == set(), path


def test_every_allowed_name_is_still_there() -> None:
    for path, allowed in SAYS_WHAT_IT_HOLDS.items():
        assert names_of_nothing(parsed(ROOT / path)) == allowed, path


def test_the_check_of_names_sees_fields_arguments_attributes_and_loop_variables() -> None:
    source = """
class Telling:
    asked_cases: int
    def shown(self, told_by):
        self.found = [one for one in told_by]
        try: pass
        except KeyError as told: pass
async def f(one):
    for founder, untold in one.foundations(found=1): pass
def test_it_is_shown_and_found(): pass
def test_it_tells(): pass
"""
    assert names_of_nothing(ast.parse(source)) == {
        *("Telling", "asked_cases", "shown", "told_by", "found", "told", "untold", "one", "test_it_tells"),
    }
    assert names_of_nothing(ast.parse("def one(self): return self.one")) == set()
    for loop in ("for one in x: pass", "{one: 1 for one in x}", "f = lambda one: 1", "(one := 1)"):
        assert names_of_nothing(ast.parse(loop)) == {"one"}


def test_tests_use_fakes_and_no_mocks() -> None:
    for path in TESTS:
        imported = imported_modules(parsed(path))
        assert [name for name in imported if "mock" in name.split(".")] == [], path


def test_every_dependency_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line.strip() for line in section.splitlines()]
    dependencies = [line for line in lines if re.match(r'("|\w+ = \[")', line)]
    assert len(dependencies) > 30
    assert [line for line in dependencies if not re.search(r"[,\]]\s+# \S", line)] == []


def test_the_error_tree_in_the_docstring_is_the_error_tree() -> None:
    for package in (serac_gateway, training):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)

    def drawn(error: type, depth: int = 0) -> Iterator[tuple[str, int]]:
        yield error.__name__, depth
        for inner in error.__subclasses__():
            yield from drawn(inner, depth + 1)

    in_docstring = {
        (match[2], len(match[1]) // 4)
        for match in re.finditer(r"^    ([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", flags=re.MULTILINE)
    }
    assert in_docstring == set(drawn(errors.GatewayError))


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *itertools.chain.from_iterable(project["optional-dependencies"][extra] for extra in extras),
    ]
    return {canonicalize_name(Requirement(requirement).name) for requirement in wanted}


def test_whatever_is_imported_is_declared_where_it_is_needed() -> None:
    """What another package happens to bring may be gone with its next release."""
    distributions = importlib.metadata.packages_distributions()
    clients = ROOT / "tests" / "clients" / "sdk"
    listed = (clients.parent / "requirements.txt").read_text("utf-8").splitlines()
    of_clients = {
        canonicalize_name(Requirement(line.partition("#")[0]).name) for line in listed if line[0] != "#"
    }
    for path in sorted(clients.glob("*.py")):
        tops = {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text("utf-8")))}
        foreign = tops - sys.stdlib_module_names - {"cases"}  # beside it
        known = {
            top
            for top in foreign
            for name in of_clients
            if f"{name}-".startswith(f"{canonicalize_name(top)}-")
        }
        assert foreign == known, path
    for paths, allowed in (
        (OURS_AT_RUN_TIME, declared("cpu", "otel", "mcp")),
        (OURS, declared("cpu", "otel", "mcp", "train")),
        (
            [path for path in TESTS if path.parent != clients],
            declared("cpu", "otel", "mcp", "train", "dev", "fuzz"),
        ),
    ):
        for path in paths:
            tops = {name.split(".")[0] for name in imported_modules(parsed(path))}
            undeclared = {
                top
                for top in tops - sys.stdlib_module_names - {"serac_gateway", "training", "tests"}
                if not {canonicalize_name(name) for name in distributions.get(top, [top])} & allowed
            }
            assert undeclared == set(), path
