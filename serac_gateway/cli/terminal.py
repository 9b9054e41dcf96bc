"""Output and exit codes of the commands: results go to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
_EXIT_INTERRUPTED = 130
_PIPED_WIDTH = 160
"""Width of tables, in characters, if stdout is no terminal."""

ResultT = TypeVar("ResultT")


class GatewayUnreachableError(Exception):
    """No gateway answers, or its response broke off."""


class GatewayRefusedError(Exception):
    """The gateway answered with an error."""


def stdout() -> Console:
    """For results. Made at each use, because tests and pipes replace sys.stdout."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    return console


def stderr() -> Console:
    """For progress, remarks and errors."""
    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def fail(message: str, exit_code: int) -> NoReturn:
    """Print one line with the error on stderr, and exit."""
    stderr().print(f"[red]error:[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(exit_code)


def run(command: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run an async command; an error becomes one line on stderr and an exit code."""
    try:
        return asyncio.run(command)
    except GatewayUnreachableError as error:
        fail(str(error), EXIT_UNREACHABLE)
    except GatewayRefusedError as error:
        fail(str(error), EXIT_REFUSED)
    except KeyboardInterrupt:
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        raise typer.Exit(EXIT_REFUSED) from None  # `serac edits export | head`


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
