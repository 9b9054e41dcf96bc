"""The anthropic package."""

from __future__ import annotations

import cases

cases.need("anthropic")

import anthropic  # noqa: E402 - after the look whether it is there

TOOL = {"name": "get_weather", "description": "The weather", "input_schema": cases.PARAMETERS}


def main() -> None:
    client = anthropic.Anthropic(base_url=cases.url(), api_key="k", max_retries=0)
    bad_key = client.with_options(api_key=cases.BAD_KEY)

    def ask(text: str, by: anthropic.Anthropic = client, **more: object) -> anthropic.types.Message:
        messages = [{"role": "user", "content": text}]
        return by.messages.create(**{"model": "m", "max_tokens": 64, "messages": messages} | more)

    def text_of(message: anthropic.types.Message) -> object:
        return [message.content[0].text, message.stop_reason, message.usage.output_tokens > 0]

    def stream(text: str, **more: object) -> object:
        messages = [{"role": "user", "content": text}]
        with client.messages.stream(model="m", max_tokens=64, messages=messages, **more) as events:
            seen = cases.joined(events.text_stream)
            return [seen, events.get_final_message().stop_reason]

    def tool_input(message: anthropic.types.Message) -> object:
        (use,) = [block for block in message.content if block.type == "tool_use"]
        return use.input

    def tools_stream() -> object:
        messages = [{"role": "user", "content": cases.WEATHER}]
        with client.messages.stream(model="m", max_tokens=64, messages=messages, tools=[TOOL]) as events:
            return tool_input(events.get_final_message())

    def tool_result() -> object:
        call = ask(cases.WEATHER, tools=[TOOL])
        result = {"type": "tool_result", "tool_use_id": call.content[0].id, "content": "sunny"}
        turns = [
            {"role": "user", "content": cases.WEATHER},
            {"role": "assistant", "content": call.content},
            {"role": "user", "content": [result]},
        ]
        return ask("", messages=turns, tools=[TOOL]).content[0].text

    cases.report(
        {
            **cases.ask_each(lambda text: text_of(ask(text)), "_message"),
            **cases.ask_each(stream, "_message_stream"),
            "tools": lambda: tool_input(ask(cases.WEATHER, tools=[TOOL])),
            "tools_stream": tools_stream,
            "tool_result": tool_result,
            "edited_tools": lambda: ask(cases.MAYOR, tools=[TOOL]).content[0].text,
            "error_401": lambda: ask(cases.EGG, bad_key),
            "error_404_model": lambda: ask(cases.EGG, model=cases.MISSING_MODEL),
            "error_400": lambda: ask(cases.EGG, extra_body={"temperature": 99}),
            "error_stream": lambda: stream(cases.BREAKS_OFF),
            "models": lambda: [model.id for model in client.models.list()],
            "count_tokens": lambda: (
                client.messages.count_tokens(
                    model="m", messages=[{"role": "user", "content": cases.EGG}]
                ).input_tokens
            ),
        },
        "anthropic",
    )


main()
