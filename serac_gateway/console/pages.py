"""Templates and how they are rendered: everything that is not markup of a template is escaped."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined

from serac_gateway import __version__
from serac_gateway.console.diffs import words_diff
from serac_gateway.console.paths import CONSOLE_PREFIX, STATIC_PREFIX, page_path

HTMX_FILE = "htmx-2.0.11.min.js"
STATIC_FILES = {
    HTMX_FILE: "text/javascript",
    "console.js": "text/javascript",
    "console.css": "text/css",
    "icon.svg": "image/svg+xml",
}
"""All that pages load, and its type."""


def rendered(template: str, **values: object) -> str:
    """The HTML of a template.

    Raises:
        jinja2.UndefinedError: It reads a value that is not given.
    """
    return _environment().get_template(template).render(**values)


@cache
def static_file(name: str) -> bytes:
    """The content of one of `STATIC_FILES`."""
    return (resources.files("serac_gateway.console") / "static" / name).read_bytes()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {
        "version": __version__,
        "htmx_file": HTMX_FILE,
        "static": _static_url,
        "console": CONSOLE_PREFIX,
        "page_path": page_path,
        "words_diff": words_diff,
    }
    environment.filters |= {"moment": _moment, "person": _person}
    return environment


@cache
def _static_url(name: str) -> str:
    return f"{STATIC_PREFIX}/{name}?v={hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def _source(name: str) -> str | None:
    file = resources.files("serac_gateway.console") / "templates" / name
    return file.read_text("utf-8") if file.is_file() else None


def _moment(value: datetime | str | None) -> str:
    """A moment of the API as date and time in UTC, to the second."""
    if value is None:
        return ""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _person(author: str) -> str:
    """The name of an author without the key's id or the token's subject, which the page of the edit has."""
    return author.partition(" (key ")[0].partition(" (subject ")[0]
