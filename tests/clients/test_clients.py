"""Clients of others against the gateway: what their users see of passed, edited and suppressed questions.

``make clients`` installs them and runs this. Without it, the openai and anthropic packages of the gateway's
own environment are tried, and all others skip: `SERAC_CLIENTS_PYTHON` names the Python that has them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attacks.attacked_gateway import NEW_ANSWER, REFUSAL
from tests.clients.client_process import seen_by
from tests.clients.vendor_upstream import BASE_TEXT, CALL, STRUCTURED, TOOL_TEXT

FOLDER = Path(__file__).parent
PYTHON = os.environ.get("SERAC_CLIENTS_PYTHON", sys.executable)
NODE = shutil.which("node")
ONE_PIECE = "[one piece] "
"""Before the text of a stream that the client gave whole, as short answers are sent."""


@dataclass(frozen=True)
class Client:
    """A script, and the APIs by which its client asks."""

    script: str
    apis: tuple[str, ...]
    """Ends of the cases' names; "" is chat completions."""
    whole_only: tuple[str, ...] = ()
    """APIs that it is not asked to stream by."""


CLIENTS = (
    Client("sdk/openai_client.py", ("", "_completions", "_responses", "_azure")),
    Client("sdk/anthropic_client.py", ("_message",)),
    Client("sdk/langchain_client.py", ("", "_completions", "_responses", "_azure", "_messages")),
    Client("sdk/llama_index_client.py", ("", "_completions", "_responses")),
    Client("sdk/litellm_client.py", ("", "_completions", "_responses", "_azure", "_messages")),
    Client("sdk/llm_client.py", ("", "_completions")),
    Client("node/openai_client.mjs", ("", "_completions", "_responses", "_azure"), ("_completions",)),
    Client("node/anthropic_client.mjs", ("_message",)),
    Client(
        "node/vercel_ai_client.mjs",
        ("", "_completions", "_responses", "_azure", "_messages", "_compatible"),
    ),
)
TEXTS = {"passed": BASE_TEXT, "edited": NEW_ANSWER, "suppressed": REFUSAL}
VALUES: dict[str, object] = {
    "tools": CALL,
    "tool_result": TOOL_TEXT,
    "structured": STRUCTURED,
    "continued_responses": NEW_ANSWER,
    "usage": True,
    "request_id": ["req_vendor", True, "base"],
    "models": ["m"],
    "models_azure": ["m"],
    "model": "m",
    "embeddings": [0, 0.6, -0.8],
    "count_tokens": 7,
    "batch": [BASE_TEXT, NEW_ANSWER, REFUSAL],
    "batch_completions": [NEW_ANSWER, NEW_ANSWER],
}
ERRORS = {
    "error_401": (401, "Incorrect API key provided."),
    "error_404_model": (404, "does not exist"),
    "error_404": (404, "end the client's base URL with /v1"),
    "error_400_own": (400, "send the prompt as text"),
    "error_400": (400, "temperature is over 2"),
    "error_stream": (None, "the upstream broke the connection off"),
}
"""Status, which not every client gives of an error within a stream, and words of the message."""


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.script)
async def test_a_client_gives_its_user_what_the_api_means(client: Client, tmp_path: Path) -> None:
    seen = await seen_by(*command_of(client), folder=tmp_path)
    assert [name for name in demanded(client) if name not in seen] == []
    assert {name: value for name, value in seen.items() if not is_right(name, value)} == {}


def command_of(client: Client) -> tuple[str, str]:
    script = str(FOLDER / client.script)
    if script.endswith(".py"):
        return PYTHON, script
    if NODE is None or not (FOLDER / "node" / "node_modules").exists():
        pytest.skip("node or its clients are not installed; make clients installs the clients")
    return NODE, script


def demanded(client: Client) -> list[str]:
    """The cases that the script must have."""
    ways = [(api, end) for api in client.apis for end in ("", "_stream")]
    suffixes = [f"{api}{end}" for api, end in ways if not (end and api in client.whole_only)]
    texts = [f"{kind}{way}" for kind in TEXTS for way in suffixes]
    return [*texts, "error_404_model", "error_stream"]


def is_right(name: str, value: object) -> bool:
    """Whether the client gave its user what the case is about."""
    if name.startswith("error_"):
        status, words = next(ERRORS[case] for case in ERRORS if name.startswith(case))
        return isinstance(value, dict) and words in value["message"] and status in (None, value["status"])
    if name.startswith("suppressed_structured"):  # some clients raise the refusal, some that it is no JSON
        return value == REFUSAL or (isinstance(value, dict) and "error" in value)
    if name in VALUES:
        return value == VALUES[name] or _decoded(value) == VALUES[name]
    kind, _, way = name.partition("_")
    if kind in ("tools", "structured"):
        return _decoded(value) == VALUES[kind]
    if name.startswith("tool_result"):
        return value == TOOL_TEXT
    if "message" in way and isinstance(value, list):
        text, *rest = value
        return text.removeprefix(ONE_PIECE) == TEXTS[kind] and rest in (["end_turn", True], ["end_turn"])
    if kind == "passed":
        return value == BASE_TEXT
    return isinstance(value, str) and value.removeprefix(ONE_PIECE) == TEXTS[kind]


def _decoded(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("passed", NEW_ANSWER),
        ("passed_stream", ONE_PIECE + BASE_TEXT),
        ("edited_message", [NEW_ANSWER, "max_tokens", True]),
        ("suppressed_azure", BASE_TEXT),
        ("tools_stream", "{}"),
        ("suppressed_structured", BASE_TEXT),
        ("error_401", {"error": "APIError", "status": 500, "message": "Incorrect API key provided."}),
        ("error_404", {"error": "NotFoundError", "status": 404, "message": "Error code: 404"}),
        ("error_stream", BASE_TEXT),
    ],
)
def test_what_a_user_must_not_see_is_noticed(name: str, value: object) -> None:
    assert not is_right(name, value)
