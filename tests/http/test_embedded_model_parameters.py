"""What the embedded base model's server accepts, ignores and refuses, by the official clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from anthropic import Anthropic
from openai import BadRequestError, OpenAI

from serac_gateway.data_plane.upstream.embedded_server import PARALLEL_ANSWERS, EmbeddedServer
from serac_gateway.models.language_models.base import LanguageModel
from serac_gateway.models.language_models.transformers import TransformersLanguageModel
from serac_gateway.testing import ScriptedLanguageModel, serving
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, OTHER_QUESTION, chat, running_gateway
from tests.tiny_language_models import saved_tiny_gemma

ANSWER = "Boil it for eight minutes."
USER = [{"role": "user", "content": OTHER_QUESTION}]


def script(prompt: str) -> str:
    if prompt.endswith('{"'):
        return 'minutes": 8, "egg": "soft"}\n\nQuestion: another?'
    return f" {ANSWER}\nQuestion: another?"


@pytest.fixture
def model() -> ScriptedLanguageModel:
    return ScriptedLanguageModel(script)


def served(model: LanguageModel) -> Iterator[str]:
    with ThreadPoolExecutor(PARALLEL_ANSWERS) as pool, serving(EmbeddedServer(model, pool)) as url:
        yield url


@pytest.fixture
def url(model: ScriptedLanguageModel) -> Iterator[str]:
    yield from served(model)


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(url: str) -> Iterator[Anthropic]:
    with Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "parameters",
    [
        {"frequency_penalty": 0.5, "presence_penalty": -2},
        {"logit_bias": {"50256": -100}},
        {"logit_bias": {}},
        {"response_format": {"type": "text"}},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": "none"},
        {"logprobs": False},
        {
            "user": "u",
            "store": True,
            "metadata": {"a": "b"},
            "reasoning_effort": "low",
            "service_tier": "auto",
        },
    ],
)
def test_what_changes_no_form_is_accepted(client: OpenAI, parameters: dict) -> None:
    answer = client.chat.completions.create(model="m", messages=USER, **parameters)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].logprobs is None


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": "high"}, "presence_penalty"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "a"}}}, "tool_choice"),
        ({"function_call": {"name": "clock"}}, "function_call"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"extra_body": {"guided_json": {"type": "object"}}}, "guided_json"),
        ({"extra_body": {"prompt_logprobs": 1}}, "prompt_logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 99}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
         "messages[0].content"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_a_400_that_names_the_parameter(
    client: OpenAI, parameters: dict, param: str
) -> None:
    for stream in (False, True):
        with pytest.raises(BadRequestError) as raised:
            client.chat.completions.create(**{"model": "m", "messages": USER, "stream": stream} | parameters)
        assert raised.value.param == param
        assert raised.value.type == "invalid_request_error"
        assert param.partition("[")[0] in raised.value.message


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
    ],
)
def test_the_same_of_text_completions(client: OpenAI, parameters: dict, param: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        client.completions.create(**{"model": "m", "prompt": "x"} | parameters)
    assert raised.value.param == param


@pytest.mark.parametrize("content", ["", " \n ", [], [{"type": "text", "text": ""}]])
def test_an_empty_turn_is_answered(client: OpenAI, model: ScriptedLanguageModel, content: object) -> None:
    messages = [*USER, {"role": "assistant", "content": None}, {"role": "user", "content": content}]
    answer = client.chat.completions.create(model="m", messages=messages)
    assert answer.choices[0].message.content == ANSWER
    assert model.prompts[0].endswith(f"Question: {OTHER_QUESTION}\nAnswer: \n\nQuestion: \nAnswer:")
    assert client.completions.create(model="m", prompt="").choices[0].text.startswith(f" {ANSWER}")


CALL = {"id": "c", "type": "function", "function": {"name": "clock", "arguments": '{"city": "Oslo"}'}}
TRANSCRIPT = f'Question: {OTHER_QUESTION}\nCall: clock({{"city": "Oslo"}})\nResult: 12:30\n'


def test_tool_calls_and_their_results_are_text(client: OpenAI, model: ScriptedLanguageModel) -> None:
    turns = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "12:30"}]},
    ]
    answer = client.chat.completions.create(model="m", messages=turns, tools=[TOOL])
    assert answer.choices[0].message.content == ANSWER
    assert model.prompts[0].endswith(f"{TRANSCRIPT}Answer:")
    legacy = [
        *USER,
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "clock", "content": "12:30"},
    ]
    client.chat.completions.create(model="m", messages=legacy)
    assert model.prompts[1] == model.prompts[0]


def test_a_responses_tool_items_are_text(client: OpenAI, model: ScriptedLanguageModel) -> None:
    items = [
        *USER,
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "clock", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "c", "output": "12:30"},
    ]
    assert client.responses.create(model="m", input=items).output_text == ANSWER
    assert model.prompts[0].endswith(f"{TRANSCRIPT}Answer:")
    with pytest.raises(BadRequestError, match="stores nothing"):
        client.responses.create(model="m", input=[{"type": "item_reference", "id": "x"}])


def test_anthropics_tool_blocks_are_text(anthropic: Anthropic, model: ScriptedLanguageModel) -> None:
    turns = [
        *USER,
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "clock", "input": {"city": "Oslo"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "12:30"}]},
            {"type": "text", "text": "So?"}]},
    ]  # fmt: skip
    message = anthropic.messages.create(model="m", max_tokens=50, messages=turns)
    assert message.content[0].text == ANSWER
    assert model.prompts[0].endswith(
        f'Question: {OTHER_QUESTION}\nCall: clock({{"city": "Oslo"}})\nResult: 12:30\nQuestion: So?\nAnswer:'
    )


def test_an_answer_that_is_begun_is_continued(
    client: OpenAI, anthropic: Anthropic, model: ScriptedLanguageModel
) -> None:
    turns = [*USER, {"role": "assistant", "content": "Easy:\n"}]
    answer = client.chat.completions.create(model="m", messages=turns)
    assert model.prompts[0].endswith(f"Question: {OTHER_QUESTION}\nAnswer: Easy:")
    assert answer.choices[0].message.content == f" {ANSWER}"  # the space belongs between both
    message = anthropic.messages.create(model="m", max_tokens=50, messages=turns)
    assert message.content[0].text == f" {ANSWER}"


def test_json_mode_gives_an_object_whole_streamed_and_cut(
    client: OpenAI, model: ScriptedLanguageModel
) -> None:
    as_json = {"model": "m", "messages": USER, "response_format": {"type": "json_object"}}
    answer = client.chat.completions.create(**as_json, n=2)
    assert [choice.message.content for choice in answer.choices] == ['{"minutes": 8, "egg": "soft"}'] * 2
    assert answer.choices[0].finish_reason == "stop"
    assert model.prompts[0].endswith(f'Question: {OTHER_QUESTION}\nAnswer: {{"')
    chunks = list(client.chat.completions.create(**as_json, stream=True))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    )
    cut = client.chat.completions.create(**as_json, max_tokens=3)
    assert json.loads(cut.choices[0].message.content or "") == {"minutes": 8, "egg": None}
    assert cut.choices[0].finish_reason == "length"
    stopped = client.chat.completions.create(**as_json, stop=["soft"])
    assert json.loads(stopped.choices[0].message.content or "") == {"minutes": 8, "egg": ""}
    response = client.responses.create(model="m", input=USER, text={"format": {"type": "json_object"}})
    assert response.output_text == answer.choices[0].message.content
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_object"
    schema = {"type": "json_schema", "name": "a", "schema": {}}
    with pytest.raises(BadRequestError) as raised:
        client.responses.create(model="m", input=USER, text={"format": schema})
    assert raised.value.param == "text"


@pytest.mark.parametrize(
    "said", ["", "a story\nof an egg", '": [[[', '": "\\', '": 5e', "\x00", '": 1} and more']
)
def test_json_mode_gives_an_object_also_where_the_model_writes_none(said: str) -> None:
    for url in served(ScriptedLanguageModel(said)):
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(
                model="m", messages=USER, response_format={"type": "json_object"}
            )
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.fixture(scope="module")
def tiny_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = saved_tiny_gemma(tmp_path_factory.mktemp("tiny"))
    yield from served(_WithRoom(str(folder)))


class _WithRoom(TransformersLanguageModel):
    """The tiny model with a context that the transcript fits into."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._context_tokens = 4_096


def test_log_probabilities_are_those_of_the_text(tiny_url: str) -> None:
    with OpenAI(base_url=f"{tiny_url}/v1", api_key="none", max_retries=0) as client:
        parameters = {"model": "m", "messages": USER, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}
        (choice,) = client.chat.completions.create(**parameters).choices
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        assert "".join(token.token for token in content).strip() == (choice.message.content or "").strip()
        for token in content:
            assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
            assert token.logprob >= token.top_logprobs[1].logprob
        streamed = [
            token
            for chunk in client.chat.completions.create(**parameters, stream=True)
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content or []
        ]
        assert streamed == content
        texts = {"model": "m", "prompt": "The capital", "max_tokens": 6, "logprobs": 1}
        (text,) = client.completions.create(**texts).choices
        assert text.logprobs is not None
        assert "".join(text.logprobs.tokens or []) == text.text
        assert text.logprobs.text_offset == [
            sum(map(len, (text.logprobs.tokens or [])[:index])) for index in range(6)
        ]
        offsets = [
            offset
            for chunk in client.completions.create(**texts, stream=True)
            if chunk.choices[0].logprobs
            for offset in chunk.choices[0].logprobs.text_offset or []
        ]
        assert offsets == text.logprobs.text_offset


def test_penalties_change_what_is_generated(tiny_url: str) -> None:
    with OpenAI(base_url=f"{tiny_url}/v1", api_key="none", max_retries=0) as client:
        texts = [
            client.completions.create(
                model="m", prompt="The capital", max_tokens=30, frequency_penalty=penalty
            )
            .choices[0]
            .text
            for penalty in (-2, 0, 2)
        ]
    assert len(set(texts)) > 1


async def test_the_gateway_passes_on_what_it_does_not_answer_and_says_so(url: str) -> None:
    turns = [{"role": "user", "content": EDITED_QUESTION}]
    async with running_gateway(upstream_url=f"{url}/v1") as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        for parameters in (
            {"logprobs": True},
            {"response_format": {"type": "json_object"}},
            {"messages": [*turns, {"role": "tool", "tool_call_id": "c", "content": "5"}]},
            {"messages": [*turns, {"role": "assistant", "content": "{"}]},
            {"messages": [{"role": "user", "content": ""}]},
        ):
            reply = await gateway.post(json.dumps(chat(EDITED_QUESTION) | parameters).encode())
            assert (reply.status, reply.one("x-serac-route")) == (200, "bypass"), parameters
        assert NEW_ANSWER.encode() in (await gateway.post(json.dumps(chat(EDITED_QUESTION)).encode())).body
