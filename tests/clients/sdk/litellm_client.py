"""LiteLLM's SDK with its providers openai, text-completion-openai, azure and anthropic."""

from __future__ import annotations

import os
from typing import Any

import cases

cases.need("litellm")
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched; read when litellm is imported

import litellm  # noqa: E402 - after the look whether it is there

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": cases.PARAMETERS}}


def main() -> None:
    litellm.suppress_debug_info = True
    openai: dict[str, Any] = {
        "model": "openai/m",
        "api_base": f"{cases.url()}/v1",
        "api_key": "k",
        "max_retries": 0,
    }
    text_model = {**openai, "model": "text-completion-openai/m"}
    azure = {**openai, "model": "azure/m", "api_base": cases.url(), "api_version": "2024-10-21"}
    anthropic = {**openai, "model": "anthropic/m", "api_base": cases.url(), "max_tokens": 64}

    def turns(text: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": text}]

    def complete(text: str, settings: dict[str, Any], **more: object) -> Any:  # noqa: ANN401 - a response
        return litellm.completion(messages=turns(text), **settings, **more).choices[0].message

    def ask(settings: dict[str, Any]) -> Any:  # noqa: ANN401 - a function
        return lambda text: complete(text, settings).content

    def stream(settings: dict[str, Any]) -> Any:  # noqa: ANN401 - a function
        def streamed(text: str) -> str:
            chunks = litellm.completion(messages=turns(text), stream=True, **settings)
            return cases.joined(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)

        return streamed

    def arguments(settings: dict[str, Any]) -> object:
        return complete(cases.WEATHER, settings, tools=[TOOL]).tool_calls[0].function.arguments

    def streamed_arguments(settings: dict[str, Any]) -> str:
        chunks = litellm.completion(messages=turns(cases.WEATHER), stream=True, tools=[TOOL], **settings)
        whole = litellm.stream_chunk_builder(list(chunks))
        return str(whole.choices[0].message.tool_calls[0].function.arguments)

    def respond(text: str) -> object:
        return litellm.responses(input=text, **openai).output[0].content[0].text

    def respond_stream(text: str) -> str:
        events = litellm.responses(input=text, stream=True, **openai)
        return cases.joined(event.delta for event in events if event.type == "response.output_text.delta")

    def embeddings() -> list[float]:
        vector = litellm.embedding(input=["egg"], **openai).data[0]["embedding"]
        return [round(value, 3) for value in vector]

    cases.report(
        {
            **cases.ask_each(ask(openai)),
            **cases.ask_each(stream(openai), "_stream"),
            **cases.ask_each(ask(text_model), "_completions"),
            **cases.ask_each(stream(text_model), "_completions_stream"),
            **cases.ask_each(ask(azure), "_azure"),
            **cases.ask_each(stream(azure), "_azure_stream"),
            **cases.ask_each(ask(anthropic), "_messages"),
            **cases.ask_each(stream(anthropic), "_messages_stream"),
            **cases.ask_each(respond, "_responses"),
            **cases.ask_each(respond_stream, "_responses_stream"),
            "tools": lambda: arguments(openai),
            "tools_stream": lambda: streamed_arguments(openai),
            "tools_messages": lambda: arguments(anthropic),
            "tools_messages_stream": lambda: streamed_arguments(anthropic),
            "edited_tools": lambda: complete(cases.MAYOR, openai, tools=[TOOL]).content,
            "error_401": lambda: complete(cases.EGG, openai | {"api_key": cases.BAD_KEY}),
            "error_401_messages": lambda: complete(cases.EGG, anthropic | {"api_key": cases.BAD_KEY}),
            "error_404": lambda: complete(cases.EGG, openai | {"api_base": cases.url()}),
            "error_404_model": lambda: complete(
                cases.EGG, openai | {"model": f"openai/{cases.MISSING_MODEL}"}
            ),
            "error_400": lambda: complete(cases.EGG, openai, temperature=99),
            "error_stream": lambda: stream(openai)(cases.BREAKS_OFF),
            "embeddings": embeddings,
        },
        "litellm",
    )


main()
