"""Simon Willison's `llm` with a model of its extra-openai-models.yaml, as its users add a server."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import cases

cases.need("llm")
FOLDER = tempfile.TemporaryDirectory(prefix="llm-")
os.environ["LLM_USER_PATH"] = FOLDER.name  # read when llm is imported

import llm  # noqa: E402 - after the look whether it is there

MODELS = """
- {{model_id: chat, model_name: m, api_base: "{url}/v1", supports_tools: true, supports_schema: true}}
- {{model_id: text, model_name: m, api_base: "{url}/v1", completion: true}}
- {{model_id: missing, model_name: no-such-model, api_base: "{url}/v1"}}
- {{model_id: without-v1, model_name: m, api_base: "{url}"}}
"""


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "sunny"


def main() -> None:
    Path(FOLDER.name, "extra-openai-models.yaml").write_text(MODELS.format(url=cases.url()), "utf-8")

    def ask(model: str, text: str, key: str = "k", **more: object) -> str:
        return llm.get_model(model).prompt(text, stream=False, key=key, **more).text()

    def stream(model: str, text: str) -> str:
        return cases.joined(llm.get_model(model).prompt(text, stream=True, key="k"))

    def chain() -> str:
        return llm.get_model("chat").chain(cases.WEATHER, tools=[get_weather], stream=False, key="k").text()

    cases.report(
        {
            **cases.ask_each(lambda text: ask("chat", text)),
            **cases.ask_each(lambda text: stream("chat", text), "_stream"),
            **cases.ask_each(lambda text: ask("text", text), "_completions"),
            **cases.ask_each(lambda text: stream("text", text), "_completions_stream"),
            "tool_result": chain,
            "edited_tools": lambda: ask("chat", cases.MAYOR, tools=[get_weather]),
            "structured": lambda: ask("chat", cases.EGG, schema=cases.SCHEMA),
            "error_404": lambda: ask("without-v1", cases.EGG),
            "error_404_model": lambda: ask("missing", cases.EGG),
            "error_stream": lambda: stream("chat", cases.BREAKS_OFF),
        },
        "llm",
    )
    FOLDER.cleanup()


main()
