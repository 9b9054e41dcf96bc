"""The README and the pages of docs/ name only links, paths, commands, keys and metrics that exist."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.exceptions import TyperException

from serac_gateway.cli.main import app as serac_app
from serac_gateway.config.model import GatewayConfig
from training.cli import app as train_app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "serac_gateway" / "docs"
OPERATIONS = DOCS / "operations.md"
PAGES = [
    README,
    *sorted(DOCS.glob("*.md")),
    *sorted((ROOT / "training").rglob("README.md")),
    *sorted((ROOT / "serac_gateway" / "models" / "weights").rglob("README.md")),
]
SUBJECTS = {
    "api",
    "architecture",
    "changelog",
    "console",
    "decisions",
    "editing",
    "getting_started",
    "guides",
    "methods",
    "operations",
    "results",
    "threat_model",
    "training",
    "tutorial",
}

MAX_README_LINES = 200
ROOTS = ("serac_gateway", "training", "tests", "configs", "docker")
FILE_TYPES = ("py", "md", "toml", "lua", "json", "jsonl", "txt", "yaml", "yml", "service", "Dockerfile")
COMMANDS: dict[str, Any] = {
    "serac": typer.main.get_command(serac_app),
    "serac-train": typer.main.get_command(train_app),
}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(rf"(?:{'|'.join(ROOTS)})/[\w./*-]*|[\w-]+(?:/[\w-]+)*/[\w-]+\.(?:{'|'.join(FILE_TYPES)})")
_MODULE = re.compile(r"(?:serac_gateway|training|tests)(?:\.\w+)+")
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*")
_SEPARATORS = {";", "|", "||", "&", "&&"}


# -- what a page names


def without_fences(text: str) -> str:
    return _FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    return _INLINE.findall(without_fences(text))


def links(text: str) -> list[str]:
    """The targets of links that lead to files of the repository, or to a heading of the page."""
    return [link for link in _LINK.findall(without_fences(text)) if "://" not in link]


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = (re.sub(r"[`*]", "", heading).lower() for heading in _HEADING.findall(without_fences(text)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in headings}


def command_lines(text: str) -> Iterator[list[str]]:
    """Every command in the page's fenced blocks of shell, as words; one for each part of a pipe."""
    for language, block in _FENCE.findall(text):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield from commands_in(line)


def commands_in(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _SEPARATORS:
            words.append(word)
            continue
        while words and _ASSIGNMENT.fullmatch(words[0]):
            del words[0]
        if words:
            yield words
        words = []


# -- what is wrong with it; None: nothing


def link_problem(page: Path, link: str) -> str | None:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return f"the link {link!r} leads nowhere"
    if anchor and anchor not in anchors(target.read_text("utf-8")):
        return f"the link {link!r} names a heading that {target.name} does not have"
    return None


def path_problem(text: str, page: Path = README) -> str | None:
    """Of a path or module in backticks; a text that looks like neither has no problem."""
    if _MODULE.fullmatch(text) and not text.endswith(FILE_TYPES):
        file = ROOT.joinpath(*text.split("."))
        exists = file.is_dir() or file.with_suffix(".py").is_file()
        return None if exists else f"there is no module {text!r}"
    if not _PATH.fullmatch(text):
        return None
    for base in (ROOT, ROOT / "serac_gateway", ROOT / "training", page.parent):
        if any(base.glob(text.rstrip("/"))):
            return None
    return f"there is no path {text!r}"


def command_problem(words: list[str], *, whole: bool) -> str | None:
    """Of a command of ours or a make target; any other has none. `whole`: its arguments must be complete."""
    program, *rest = words
    if program == "make":
        unknown = [word for word in rest if "=" not in word and word not in make_targets()]
        return f"make has no target {unknown[0]!r}" if unknown else None
    if program not in COMMANDS:
        return None
    command, known_as = COMMANDS[program], program
    if rest[:1] == ["feedback"] and rest[1:] and rest[1] not in command.commands["feedback"].commands:
        rest.insert(1, "report")  # the short form that cli/feedback.py takes
    while hasattr(command, "commands"):
        if not rest:
            return None
        known_as, *rest = rest
        if known_as not in command.commands:
            return f"{' '.join(words)!r}: there is no command {known_as!r}"
        command = command.commands[known_as]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options:
            return f"{' '.join(words)!r}: there is no option {word!r}"
    if whole:
        try:
            command.make_context(known_as, list(rest))
        except TyperException as error:
            return f"{' '.join(words)!r}: {error}"
    return None


@functools.cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def problems(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    problem_texts = [link_problem(page, link) for link in links(text)]
    for code in inline_code(text):
        problem_texts.append(path_problem(code, page))
        if code.split()[0] in {*COMMANDS, "make"} and not re.search("[<…|]", code):
            problem_texts.append(command_problem(shlex.split(code), whole=False))
    for words in command_lines(text):
        problem_texts.append(command_problem(words, whole=True))
        problem_texts += [path_problem(word, page) for word in words if word.startswith(ROOTS)]
    return [problem for problem in problem_texts if problem is not None]


# -- the pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_paths_and_commands_exist(page: Path) -> None:
    assert problems(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_stands_in_fences_that_name_their_language(page: Path) -> None:
    """An unlabelled or indented block would hide its commands from the checks."""
    text = page.read_text("utf-8")
    assert [block[:40] for language, block in _FENCE.findall(text) if not language] == []
    assert re.findall(r"^ {4,}(?:serac|serac-train|make) .*", without_fences(text), re.MULTILINE) == []


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert ["make", "run"] in list(command_lines(text))
    assert ["make", "test"] in list(command_lines(text))


def test_there_is_a_page_for_each_subject_and_the_readme_links_all_of_them() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == SUBJECTS
    linked = {Path(link.partition("#")[0]) for link in links(README.read_text("utf-8"))}
    assert {page.relative_to(ROOT) for page in DOCS.glob("*.md")} <= linked


def configuration_keys(section: msgspec.Struct, prefix: str = "") -> Iterator[str]:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            yield from configuration_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_operations_has_every_configuration_key_and_no_other() -> None:
    text = OPERATIONS.read_text("utf-8")
    tables = text[text.index("### General") : text.index("### Several upstreams")]
    documented = [
        key for row in re.findall(r"^\| (`[^|]*`) \|", tables, re.MULTILINE) for key in _INLINE.findall(row)
    ]
    assert sorted(documented) == sorted(configuration_keys(GatewayConfig()))


def test_operations_has_every_metric_and_no_other() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "serac_gateway").rglob("observability/*.py"))
    registered = set(re.findall(r'"(serac_[a-z_]+)",', code)) - {"serac_gateway"}
    text = OPERATIONS.read_text("utf-8")
    table = text[text.index("| metric |") : text.index("`process_*`")]
    documented = {
        name.removesuffix("_total")
        for row in re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
        for name in _INLINE.findall(row)
    }
    assert documented == registered
    assert len(documented) > 20


# -- the checks themselves


@pytest.mark.parametrize(
    "link", ["no_such_page.md", "serac_gateway/docs/api.md#no-such-heading", "#no-such-heading"]
)
def test_a_wrong_link_is_caught(link: str) -> None:
    (named,) = links(f"See [there]({link}).")
    assert link_problem(README, named) is not None


@pytest.mark.parametrize("link", ["serac_gateway/docs/api.md#endpoints", "#two-commands", "LICENSE"])
def test_a_right_link_is_not(link: str) -> None:
    assert link_problem(README, link) is None


@pytest.mark.parametrize(
    "path",
    [
        "serac_gateway/no_such_room/",
        "serac_gateway/cli/no_such_file.py",
        "cli/no_such_file.py",
        "configs/gateway/no_such.toml",
        "serac_gateway.cli.no_such_module",
    ],
)
def test_a_wrong_path_is_caught(path: str) -> None:
    (named,) = inline_code(f"It stands in `{path}`.")
    assert path_problem(named) is not None


@pytest.mark.parametrize(
    "path",
    [
        "serac_gateway/cli/",
        "serac_gateway/cli/main.py",
        "cli/main.py",
        "serac_gateway.cli.main",
        "a/b",
        "1/2",
    ],
)
def test_a_right_path_and_what_is_no_path_are_not(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    "line",
    [
        "serac no-such-command",
        "serac edits no-such-command",
        "serac serve --no-such-option 1",
        "serac serve --port not-a-number",
        "serac edits add only-a-prompt",
        "serac keys create --name without-a-role",
        "serac feedback REQUEST_ID no_such_verdict",
        "serac-train evaluate no-such-command",
        "serac-train evaluate scope",
        "SERAC_URL=http://x serac edits export | serac no-such-command",
        "make no-such-target",
    ],
)
def test_a_wrong_command_is_caught(line: str) -> None:
    problem_texts = [command_problem(words, whole=True) for words in command_lines(f"```sh\n{line}\n```\n")]
    assert [problem for problem in problem_texts if problem is not None] != []


@pytest.mark.parametrize(
    "line",
    [
        "serac feedback REQUEST_ID right   # a comment",
        "serac serve --port 9000 \\\n  --workers 2",
        "HF_HUB_OFFLINE=1 make test PYTEST_ARGS=-q",
        "redis-cli --no-such-option",
    ],
)
def test_a_right_command_and_one_of_others_are_not(line: str) -> None:
    problem_texts = [command_problem(words, whole=True) for words in command_lines(f"```sh\n{line}\n```\n")]
    assert problem_texts == [None] * len(problem_texts)
    assert problem_texts != []
