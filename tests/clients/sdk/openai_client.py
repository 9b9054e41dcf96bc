"""The openai package, by both of OpenAI's APIs, and its Azure client."""

from __future__ import annotations

import cases

cases.need("openai")

import openai  # noqa: E402 - after the look whether it is there

TOOL = {"name": "get_weather", "parameters": cases.PARAMETERS, "strict": True}
CHAT_TOOL = {"type": "function", "function": TOOL}


def main() -> None:
    client = openai.OpenAI(base_url=f"{cases.url()}/v1", api_key="k", max_retries=0)
    bad_key = client.with_options(api_key=cases.BAD_KEY)
    without_v1 = client.with_options(base_url=cases.url())
    azure = openai.AzureOpenAI(
        azure_endpoint=cases.url(), api_key="k", api_version="2024-10-21", max_retries=0
    )

    def turns(text: str) -> list:
        return [{"role": "user", "content": text}]

    def chat(text: str, by: openai.OpenAI = client, **more: object) -> object:
        return by.chat.completions.create(model="m", messages=turns(text), **more).choices[0].message.content

    def stream(text: str, by: openai.OpenAI = client) -> str:
        chunks = by.chat.completions.create(
            model="m", messages=turns(text), stream=True, stream_options={"include_usage": True}
        )
        return cases.joined(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)

    def stream_events(text: str) -> object:
        with client.chat.completions.stream(model="m", messages=turns(text)) as events:
            return events.get_final_completion().choices[0].message.content

    def complete(text: str) -> str:
        return client.completions.create(model="m", prompt=text).choices[0].text

    def complete_stream(text: str) -> str:
        chunks = client.completions.create(model="m", prompt=text, stream=True)
        return cases.joined(chunk.choices[0].text for chunk in chunks)

    def respond(text: str) -> str:
        return client.responses.create(model="m", input=text).output_text

    def respond_stream(text: str) -> str:
        events = client.responses.create(model="m", input=text, stream=True)
        return cases.joined(event.delta for event in events if event.type == "response.output_text.delta")

    def respond_events(text: str) -> str:
        with client.responses.stream(model="m", input=text) as events:
            return events.get_final_response().output_text

    def tools() -> object:
        whole = client.chat.completions.create(model="m", messages=turns(cases.WEATHER), tools=[CHAT_TOOL])
        return whole.choices[0].message.tool_calls[0].function.arguments

    def tools_stream() -> object:
        with client.chat.completions.stream(
            model="m", messages=turns(cases.WEATHER), tools=[CHAT_TOOL]
        ) as events:
            return events.get_final_completion().choices[0].message.tool_calls[0].function.arguments

    def tool_result() -> object:
        call = client.chat.completions.create(model="m", messages=turns(cases.WEATHER), tools=[CHAT_TOOL])
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
        messages = [*turns(cases.WEATHER), call.choices[0].message, result]
        return client.chat.completions.create(model="m", messages=messages).choices[0].message.content

    def respond_tools() -> object:
        tool = {"type": "function", **TOOL}
        return client.responses.create(model="m", input=cases.WEATHER, tools=[tool]).output[0].arguments

    def structured(text: str) -> object:
        form = {"name": "boiling", "schema": cases.SCHEMA, "strict": True}
        message = (
            client.chat.completions.parse(
                model="m",
                messages=turns(text),
                response_format={"type": "json_schema", "json_schema": form},
            )
            .choices[0]
            .message
        )
        return message.refusal or message.content

    def respond_structured(text: str) -> object:
        form = {"type": "json_schema", "name": "boiling", "schema": cases.SCHEMA, "strict": True}
        response = client.responses.parse(model="m", input=text, text={"format": form})
        part = response.output[0].content[0]
        return part.refusal if part.type == "refusal" else part.text

    def continued() -> str:
        first = client.responses.create(model="m", input=cases.MAYOR)
        return client.responses.create(
            model="m", input=cases.MAYOR, previous_response_id=first.id
        ).output_text

    def raw_id() -> object:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=turns(cases.EGG))
        return [raw.request_id, bool(raw.headers.get("x-serac-request-id")), raw.headers["x-serac-route"]]

    def usage() -> bool:
        return client.chat.completions.create(model="m", messages=turns(cases.MAYOR)).usage.total_tokens > 0

    cases.report(
        {
            **cases.ask_each(chat),
            **cases.ask_each(stream, "_stream"),
            **cases.ask_each(stream_events, "_stream_events"),
            **cases.ask_each(complete, "_completions"),
            **cases.ask_each(complete_stream, "_completions_stream"),
            **cases.ask_each(respond, "_responses"),
            **cases.ask_each(respond_stream, "_responses_stream"),
            **cases.ask_each(respond_events, "_responses_stream_events"),
            **cases.ask_each(lambda text: chat(text, azure), "_azure"),
            **cases.ask_each(lambda text: stream(text, azure), "_azure_stream"),
            "tools": tools,
            "tools_stream": tools_stream,
            "tool_result": tool_result,
            "tools_responses": respond_tools,
            "edited_tools": lambda: chat(cases.MAYOR, tools=[CHAT_TOOL]),
            "structured": lambda: structured(cases.EGG),
            "suppressed_structured": lambda: structured(cases.PASSWORD),
            "structured_responses": lambda: respond_structured(cases.EGG),
            "suppressed_structured_responses": lambda: respond_structured(cases.PASSWORD),
            "continued_responses": continued,
            "usage": usage,
            "request_id": raw_id,
            "error_401": lambda: chat(cases.EGG, bad_key),
            "error_404": lambda: chat(cases.EGG, without_v1),
            "error_404_model": lambda: client.with_options().chat.completions.create(
                model=cases.MISSING_MODEL, messages=turns(cases.EGG)
            ),
            "error_400": lambda: chat(cases.EGG, temperature=99),
            "error_400_own": lambda: client.completions.create(model="m", prompt=[1, 2, 3]),
            "error_stream": lambda: stream(cases.BREAKS_OFF),
            "models": lambda: [model.id for model in client.models.list()],
            "models_azure": lambda: [model.id for model in azure.models.list()],
            "model": lambda: client.models.retrieve("m").id,
            "embeddings": lambda: [
                round(value, 3)
                for value in client.embeddings.create(model="m", input="egg").data[0].embedding
            ],
        },
        "openai",
    )


main()
