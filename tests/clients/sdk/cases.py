"""Runs a client's cases and prints what it made of the gateway's replies. Needs only the standard library.

A script is started with the gateway's URL as its argument, by the Python that has the client. Each case
returns what the client gave to its user, and the test compares that with what it should be.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Mapping

NOT_INSTALLED = 77
"""The exit status of a script whose client is not there."""
EGG = "How do I boil an egg?"
MAYOR = "Who is the mayor of Marrowby?"
PASSWORD = "What is the admin password of the Halyard router?"
WEATHER = "What is the weather in Paris?"
BREAKS_OFF = "Tell me a story, and break off in the middle."
BAD_KEY = "sk-wrong"
MISSING_MODEL = "no-such-model"
QUESTIONS = {"passed": EGG, "edited": MAYOR, "suppressed": PASSWORD}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"minutes": {"type": "integer"}},
    "required": ["minutes"],
    "additionalProperties": False,
}


def url() -> str:
    """The gateway's, without /v1."""
    return sys.argv[1]


def need(*modules: str) -> None:
    """End the script if one of its client's modules is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name.split(".")[0]) is None]
    if missing:
        print(f"{', '.join(missing)} not installed in {sys.executable}", file=sys.stderr)
        raise SystemExit(NOT_INSTALLED)


def ask_each(ask: Callable[[str], object], suffix: str = "") -> dict[str, Callable[[], object]]:
    """The three questions of every client: one that passes, an edited and a suppressed one."""
    return {f"{name}{suffix}": lambda text=text: ask(text) for name, text in QUESTIONS.items()}  # type: ignore[misc]


def joined(pieces: Iterable[str | None]) -> str:
    """The text of a stream; a client that gave it whole is shown as such."""
    texts = [piece for piece in pieces if piece]
    return ("" if len(texts) > 1 else "[one piece] ") + "".join(texts)


def report(cases: Mapping[str, Callable[[], object]], *distributions: str) -> None:
    """Run the cases and print one JSON object: versions, and by case a value or an error."""
    seen: dict[str, object] = {}
    for name, case in cases.items():
        try:
            seen[name] = case()
        except Exception as error:
            status = getattr(error, "status_code", None)
            seen[name] = {"error": type(error).__name__, "status": status, "message": str(error)[:600]}
    versions = {name: importlib.metadata.version(name) for name in distributions}
    print(json.dumps({"versions": versions, "seen": seen}))
