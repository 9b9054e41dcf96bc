"""However a path is written, it names the endpoint that a server would take it for."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.data_plane.paths import classified_path, is_data_plane_path, normal_path
from serac_gateway.domain.endpoints import Endpoint


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/%63hat/completions",
        "/v1/chat/%63ompletions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%252Fcompletions",
        "/v1/chat%5Ccompletions",
        "/v1//chat/completions",
        "/v1/chat//completions/",
        "/v1/chat/completions%20",
        "/v1/chat/completions%3Fx=1",
        "/v1/chat/completions;x=1",
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/Chat/Completions",
        "/v1/v1/chat/completions",
        "/v1/openai/v1/chat/completions",
        "/v1/engine-of-mine/chat/completions",
        "/openai/v1/chat/completions",
        "/v1/%2563hat/completions",
        "/v1/%%36%33hat/completions",
    ],
)
def test_a_chat_completion_is_one_in_whatever_spelling(path: str) -> None:
    assert classified_path(path.encode()).endpoint is Endpoint.CHAT


@pytest.mark.parametrize(
    ("path", "endpoint", "model"),
    [
        ("/openai/deployments/gpt-4o/chat/completions", Endpoint.CHAT, "gpt-4o"),
        ("/v1/deployments/GPT-4o/chat/completions", Endpoint.CHAT, "GPT-4o"),
        ("/openai/deployments/org%2Fname/completions", Endpoint.COMPLETIONS, "org/name"),
        ("/v1/engines/davinci/completions", Endpoint.COMPLETIONS, "davinci"),
        ("/openai/responses", Endpoint.RESPONSES, None),
        ("/v1/anthropic/v1/messages", Endpoint.MESSAGES, None),
        ("/v1/completions/", Endpoint.COMPLETIONS, None),
        ("/openai/deployments/gpt-4o/embeddings", None, None),
        ("/v1/threads/thread_1/messages", None, None),
        ("/v1/responses/resp_1", None, None),
        ("/v1/chat/completions/chatcmpl-1", None, None),
        ("/v1/models", None, None),
        ("/v1", None, None),
        ("/", None, None),
    ],
)
def test_a_path_names_endpoint_and_model(path: str, endpoint: Endpoint | None, model: str | None) -> None:
    path_read = classified_path(path.encode())
    assert (path_read.endpoint, path_read.model) == (endpoint, model)


def test_a_path_below_an_endpoint_belongs_to_its_api() -> None:
    assert classified_path(b"/v1/messages/count_tokens").api is Endpoint.MESSAGES
    assert classified_path(b"/v1/%6dessages/count_tokens").api is Endpoint.MESSAGES
    assert classified_path(b"/v1/models").api is None


@pytest.mark.parametrize(
    ("path", "is_here"),
    [("/v1", True), ("/openai/deployments/m/chat/completions", True), ("/openai", True), ("/v10", False),
     ("/openapi", False), ("/", False), ("/serac/v1/edits", False)],
)  # fmt: skip
def test_the_paths_of_the_data_plane(path: str, is_here: bool) -> None:
    assert is_data_plane_path(path) is is_here


@given(st.lists(st.sampled_from([*"%/\\.;?# aA", "25", "2f", "63", "..", "chat", "é"]), max_size=40))
def test_the_normal_form_is_idempotent(pieces: list[str]) -> None:
    path = normal_path("".join(pieces).encode("latin-1"))
    assert normal_path(path.encode("latin-1")) == path
    assert "//" not in path
    assert "/../" not in f"{path}/"


def test_escapes_within_escapes_take_linear_time() -> None:
    begun = time.process_time()
    assert normal_path(b"/%4" + b"%3" * 20_000 + b"1") == "/A"
    normal_path(b"/" + b"%25" * 20_000 + b"41")
    assert time.process_time() - begun < 0.5
