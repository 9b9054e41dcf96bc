"""LangChain's chat models, completions and embeddings of OpenAI, and its chat model of Anthropic."""

from __future__ import annotations

import asyncio
from typing import Any

import cases

cases.need("langchain_openai", "langchain_anthropic")

from langchain_anthropic import ChatAnthropic  # noqa: E402 - after the look whether it is there
from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAI, OpenAIEmbeddings  # noqa: E402


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return "sunny"


def main() -> None:
    settings: dict[str, Any] = {
        "model": "m",
        "base_url": f"{cases.url()}/v1",
        "api_key": "k",
        "max_retries": 0,
    }
    chat = ChatOpenAI(**settings)
    responses = ChatOpenAI(**settings, use_responses_api=True)
    anthropic = ChatAnthropic(model="m", base_url=cases.url(), api_key="k", max_retries=0)
    azure = AzureChatOpenAI(
        azure_deployment="m",
        azure_endpoint=cases.url(),
        api_key="k",
        api_version="2024-10-21",
        max_retries=0,
    )
    text_model = OpenAI(**settings)

    def ask(model: Any) -> Any:  # noqa: ANN401 - a chat model of any kind
        return lambda text: model.invoke(text).text

    def stream(model: Any) -> Any:  # noqa: ANN401 - a chat model of any kind
        return lambda text: cases.joined(chunk.text for chunk in model.stream(text))

    def arguments(model: Any) -> Any:  # noqa: ANN401 - a chat model of any kind
        return model.bind_tools([get_weather]).invoke(cases.WEATHER).tool_calls[0]["args"]

    def streamed_arguments(model: Any) -> Any:  # noqa: ANN401 - a chat model of any kind
        whole = None
        for chunk in model.bind_tools([get_weather]).stream(cases.WEATHER):
            whole = chunk if whole is None else whole + chunk
        return whole.tool_calls[0]["args"]

    def tool_result(model: Any) -> Any:  # noqa: ANN401 - a chat model of any kind
        turns = [HumanMessage(cases.WEATHER)]
        bound = model.bind_tools([get_weather])
        turns.append(bound.invoke(turns))
        turns.append(ToolMessage("sunny", tool_call_id=turns[-1].tool_calls[0]["id"]))
        return bound.invoke(turns).text

    def structured(model: Any, text: str) -> Any:  # noqa: ANN401 - a chat model of any kind
        schema = {"title": "boiling", "description": "How long", **cases.SCHEMA}
        return model.with_structured_output(schema, method="json_schema").invoke(text)

    async def in_parallel() -> list[str]:
        texts = [cases.EGG, cases.MAYOR, cases.PASSWORD]
        return [message.text for message in await chat.abatch(texts)]

    cases.report(
        {
            **cases.ask_each(ask(chat)),
            **cases.ask_each(stream(chat), "_stream"),
            **cases.ask_each(ask(responses), "_responses"),
            **cases.ask_each(stream(responses), "_responses_stream"),
            **cases.ask_each(ask(anthropic), "_messages"),
            **cases.ask_each(stream(anthropic), "_messages_stream"),
            **cases.ask_each(ask(azure), "_azure"),
            **cases.ask_each(stream(azure), "_azure_stream"),
            **cases.ask_each(text_model.invoke, "_completions"),
            **cases.ask_each(lambda text: cases.joined(text_model.stream(text)), "_completions_stream"),
            "batch": lambda: asyncio.run(in_parallel()),
            "batch_completions": lambda: text_model.batch([cases.MAYOR, cases.MAYOR]),
            "tools": lambda: arguments(chat),
            "tools_responses": lambda: arguments(responses),
            "tools_messages": lambda: arguments(anthropic),
            "tools_stream": lambda: streamed_arguments(chat),
            "tools_responses_stream": lambda: streamed_arguments(responses),
            "tools_messages_stream": lambda: streamed_arguments(anthropic),
            "tool_result": lambda: tool_result(chat),
            "tool_result_responses": lambda: tool_result(responses),
            "tool_result_messages": lambda: tool_result(anthropic),
            "edited_tools": lambda: chat.bind_tools([get_weather]).invoke(cases.MAYOR).text,
            "structured": lambda: structured(chat, cases.EGG),
            "suppressed_structured": lambda: structured(chat, cases.PASSWORD),
            "usage": lambda: chat.invoke(cases.MAYOR).usage_metadata["total_tokens"] > 0,
            "error_401": lambda: ChatOpenAI(**settings | {"api_key": cases.BAD_KEY}).invoke(cases.EGG),
            "error_404": lambda: ChatOpenAI(**settings | {"base_url": cases.url()}).invoke(cases.EGG),
            "error_404_model": lambda: ChatOpenAI(**settings | {"model": cases.MISSING_MODEL}).invoke("x"),
            "error_400": lambda: ChatOpenAI(**settings, temperature=99).invoke(cases.EGG),
            "error_stream": lambda: stream(chat)(cases.BREAKS_OFF),
            "embeddings": lambda: [
                round(value, 3)
                for value in OpenAIEmbeddings(**settings, check_embedding_ctx_length=False).embed_documents(
                    ["egg"]
                )[0]
            ],
        },
        "langchain-openai",
        "langchain-anthropic",
        "langchain-core",
    )


main()
