"""LlamaIndex with its OpenAI-like chat model, completions and embeddings."""

from __future__ import annotations

from typing import Any

import cases

cases.need("llama_index.llms.openai_like", "llama_index.embeddings.openai_like")

from llama_index.core.base.llms.types import ChatMessage  # noqa: E402 - after the look whether it is there
from llama_index.core.tools import FunctionTool  # noqa: E402
from llama_index.embeddings.openai_like import OpenAILikeEmbedding  # noqa: E402
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses  # noqa: E402


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "sunny"


def main() -> None:
    base = f"{cases.url()}/v1"
    settings: dict[str, Any] = {"model": "m", "api_base": base, "api_key": "k", "max_retries": 0}
    chat = OpenAILike(**settings, is_chat_model=True, is_function_calling_model=True)
    text_model = OpenAILike(**settings, is_chat_model=False)
    responses = OpenAILikeResponses(**settings)
    weather = FunctionTool.from_defaults(get_weather)

    def turns(text: str) -> list[ChatMessage]:
        return [ChatMessage(role="user", content=text)]

    def broken(**changes: object) -> object:
        return OpenAILike(**settings | changes, is_chat_model=True).chat(turns(cases.EGG))

    def arguments(response: Any) -> Any:  # noqa: ANN401 - a chat response
        return chat.get_tool_calls_from_response(response)[0].tool_kwargs

    cases.report(
        {
            **cases.ask_each(lambda text: chat.chat(turns(text)).message.content),
            **cases.ask_each(
                lambda text: cases.joined(part.delta for part in chat.stream_chat(turns(text))), "_stream"
            ),
            **cases.ask_each(lambda text: chat.complete(text).text, "_complete"),
            **cases.ask_each(lambda text: text_model.complete(text).text, "_completions"),
            **cases.ask_each(
                lambda text: cases.joined(part.delta for part in text_model.stream_complete(text)),
                "_completions_stream",
            ),
            **cases.ask_each(lambda text: responses.chat(turns(text)).message.content, "_responses"),
            **cases.ask_each(
                lambda text: cases.joined(part.delta for part in responses.stream_chat(turns(text))),
                "_responses_stream",
            ),
            "tools": lambda: arguments(chat.chat_with_tools([weather], user_msg=cases.WEATHER)),
            "tools_stream": lambda: arguments(
                list(chat.stream_chat_with_tools([weather], user_msg=cases.WEATHER))[-1]
            ),
            "edited_tools": lambda: chat.chat_with_tools([weather], user_msg=cases.MAYOR).message.content,
            "error_401": lambda: broken(api_key=cases.BAD_KEY),
            "error_404": lambda: broken(api_base=cases.url()),
            "error_404_model": lambda: broken(model=cases.MISSING_MODEL),
            "error_400": lambda: broken(additional_kwargs={"temperature": 99}),
            "error_stream": lambda: cases.joined(
                part.delta for part in chat.stream_chat(turns(cases.BREAKS_OFF))
            ),
            "embeddings": lambda: [
                round(value, 3)
                for value in OpenAILikeEmbedding(
                    model_name="m", api_base=base, api_key="k"
                ).get_text_embedding("egg")
            ],
        },
        "llama-index-llms-openai-like",
        "llama-index-embeddings-openai-like",
        "llama-index-core",
    )


main()
