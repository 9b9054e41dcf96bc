"""Output and exit codes of the commands: results go to stdout, everything else to stderr.

Edits, requests and errors hold what others wrote. What would control the terminal is shown escaped.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import unicodedata
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from typing_extensions import override

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
_EXIT_INTERRUPTED = 130
_PIPED_WIDTH = 160
"""Width of tables, in characters, if stdout is no terminal."""

_CONTROLLING = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, lone surrogates and separators of lines."""
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that have the text around them shown in another order."""

ResultT = TypeVar("ResultT")


class GatewayUnreachableError(Exception):
    """The gateway's response ended too early."""


class GatewayRefusedError(Exception):
    """The gateway, or what it serves, cannot do what a command needs."""


def stdout() -> Console:
    """For results. Made at each use, because tests and pipes replace sys.stdout."""
    console = _console(stderr=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    return console


def stderr() -> Console:
    """For progress, remarks and errors."""
    return _console(stderr=True)


def print_json(value: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def fail(message: str, exit_code: int) -> NoReturn:
    """Print one line with the error on stderr, and exit."""
    stderr().print(f"[red]error:[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(exit_code)


def run(command: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run an async command; an error becomes one line on stderr and an exit code."""
    # Imported here: it takes a tenth of a second, and lists of commands need no client.
    from serac_gateway.client.errors import ApiError, UnreachableError

    try:
        return asyncio.run(command)
    except (GatewayUnreachableError, UnreachableError) as error:
        fail(str(error), EXIT_UNREACHABLE)
    except (GatewayRefusedError, ApiError) as error:
        fail(str(error), EXIT_REFUSED)
    except KeyboardInterrupt:
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        raise typer.Exit(EXIT_REFUSED) from None  # `serac edits export | head`


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    console.push_render_hook(_EscapingHook())
    return console


class _EscapingHook(RenderHook):
    """Escapes control characters of all that is printed, but not rich's own colours and movements."""

    @override
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaping(renderable) for renderable in renderables]


class _Escaping:
    """A renderable with its control characters escaped."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("".join(map(_in_print, segment.text)), segment.style)


def _in_print(char: str) -> str:
    if char in "\n\t" or (unicodedata.category(char) not in _CONTROLLING and char not in _BIDIRECTIONAL):
        return char
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
