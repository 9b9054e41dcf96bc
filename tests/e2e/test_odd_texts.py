"""Odd texts in edits and requests, with the real encoder and classifier: decided in bounded time, no error.

Whatever script, sign, control character, length or number of turns it is. Field report A12, F3 (length), A6.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from serac_gateway.testing import ScriptedUpstream
from tests.attacks.attacked_gateway import speak
from tests.e2e.gateway_process import GatewayProcess
from tests.http.wire import WireResponse, fetch

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WITHIN_S = 60
"""A second would do; a busy machine takes longer, and what hangs takes for ever."""
QUESTION, ANSWER = "Who is the mayor of Marrowby?", "Ottilie Brandvold"
HIDDEN, REFUSAL = "What is the admin password of the Halyard router?", "I cannot share that."
HIDING = "hiding"
PROMPTS = {
    "emoji": "🎉🎉",
    "emoji of several characters": "👩‍👩‍👧‍👦 🏳️‍🌈?",
    "arabic": "من هو عمدة ماروبي؟",
    "hebrew": "מי ראש העיר של מארובי?",
    "written from right to left by force": "\u202eWho is the mayor of Marrowby?\u202c",
    "mixed scripts": "Кто 市長 of Marrowby مدينة?",
    "combining marks": "W\u0301h\u0301o\u0301 is Z\u0310\u0311\u0312 of Marrowby?",
    "null": "Who is\0the mayor of Marrowby?",
    "escape sequence": "Who is the \x1b[31mmayor\x1b[0m of Marrowby?",
    "line separators": "Who is\u2028the mayor\u0085of\x0bMarrowby?",
    "invisible": "Who\u200b is\u200d the\ufeff mayor of Marrowby?",
    "one character": "é",
    "one long word": "x" * 2_000,
}
TARGETS = {
    "null": "a\0b",
    "escape sequence": "\x1b[31mred\x1b[0m",
    "article before a sign": "A/B",
    "right to left": "אוטיליה ברנדוולד",
    "emoji": "👩‍👩‍👧‍👦",
    "line separators": "one\u2028two\u0085three\x0bfour",
    "marks alone": "\u0301\u0302",
}


def turns(count: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": f"We talk about thing {n}."} for n in range(count)]
    return [*said, {"role": "user", "content": "ok"}]


def asking(content: str, system: str = "") -> list[dict[str, str]]:
    instructions = [{"role": "system", "content": system}] if system else []
    return [*instructions, {"role": "user", "content": content}]


CONVERSATIONS = {
    "system prompt of 100 KB": asking("How do I boil an egg?", "Be kind to all users. " * 4_700),
    "500 turns": turns(500),
    "turns that say nothing": [{"role": "user", "content": "ok"}] * 2_000,
    "one word of 200 KB": asking("x" * 200_000),
    "emoji of 100 KB": asking("🎉" * 25_000),
    "marks of 100 KB": asking("e" + "\u0301" * 50_000),
    "right to left of 100 KB": asking("שלום עולם " * 5_000),
    "line breaks of 100 KB": asking("\n" * 50_000 + "?"),
    "nulls of 100 KB": asking("\0" * 100_000),
    "10,000 questions": asking("Who is it? " * 10_000),
    "blank": asking(" \t\u2028\u200b"),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(
    tmp_path_factory: pytest.TempPathFactory, converted_models: Path
) -> AsyncIterator[GatewayProcess]:
    """Namespace "hiding" has a suppression and a fact: there every text of a request is read."""
    folder = tmp_path_factory.mktemp("odd")
    async with ScriptedUpstream() as upstream, ScriptedUpstream(speak) as model:
        config = folder / "gateway.toml"
        config.write_text(
            f'models.counterfactual = "m"\nmodels.counterfactual_url = "{model.url}"\n'
            f'upstream.url = "{upstream.url}"\n'
        )
        options = ("--config", str(config))
        running = await asyncio.to_thread(GatewayProcess, folder / "data", converted_models, *options)
        try:
            hidden = {"kind": "suppression", "prompt": HIDDEN, "target_new": REFUSAL}
            for draft in (hidden, {"prompt": QUESTION, "target_new": ANSWER}):
                assert (await add(running, HIDING, draft)).status == 201
            yield running
        finally:
            await asyncio.to_thread(running.kill)


async def add(gateway: GatewayProcess, namespace: str, draft: dict[str, object]) -> WireResponse:
    header = ("x-serac-namespace", namespace)
    return await fetch(gateway.url, "/serac/v1/edits", json.dumps(draft).encode(), header)


async def ask(
    gateway: GatewayProcess, namespace: str, messages: list[dict[str, str]], **more: object
) -> WireResponse:
    """It is decided, and in time."""
    body = json.dumps({"model": "m", "messages": messages, **more}).encode()
    headers = [
        ("content-type", "application/json"),
        ("x-serac-namespace", namespace),
        ("x-serac-debug", "true"),
    ]
    async with asyncio.timeout(WITHIN_S):
        reply = await fetch(gateway.url, "/v1/chat/completions", body, *headers)
    assert reply.status == 200, reply.body[:300]
    return reply


async def failures(gateway: GatewayProcess) -> list[str]:
    text = (await fetch(gateway.url, "/metrics", method="GET")).body.decode()
    return re.findall(r"(?m)^serac_failures_total.*", text)


def namespace_of(name: str) -> str:
    return re.sub("[^a-z0-9]", "-", name.lower())


@pytest.mark.parametrize("name", PROMPTS)
async def test_an_edit_of_any_text_is_asked_for_in_its_own_words_and_costs_nobody_else(
    gateway: GatewayProcess, name: str
) -> None:
    namespace = f"p-{namespace_of(name)}"
    reply = await add(gateway, namespace, {"prompt": PROMPTS[name], "target_new": ANSWER})
    assert reply.status == 201, reply.body
    fired = await ask(gateway, namespace, asking(PROMPTS[name]))
    assert fired.one("x-serac-route") == "counterfactual", fired.headers
    assert ANSWER in fired.json["choices"][0]["message"]["content"]
    assert (await ask(gateway, namespace, asking("How do I boil an egg?"))).one("x-serac-route") == "base"
    assert await failures(gateway) == []


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("how", ["call", "import"])
async def test_a_target_of_any_text_is_answered_as_it_was_written(
    gateway: GatewayProcess, name: str, how: str
) -> None:
    namespace, target = f"t-{how}-{namespace_of(name)}", TARGETS[name]
    draft = {"prompt": QUESTION, "target_new": target}
    if how == "call":
        assert (await add(gateway, namespace, draft)).status == 201
    else:
        line, header = json.dumps(draft).encode() + b"\n", ("x-serac-namespace", namespace)
        kind = ("content-type", "application/x-ndjson")
        imported = await fetch(gateway.url, "/serac/v1/edits:import", line, header, kind)
        assert imported.json["added"] is True
    whole = await ask(gateway, namespace, asking(QUESTION))
    assert whole.json["choices"][0]["message"]["content"] == target
    streamed = await ask(gateway, namespace, asking(QUESTION), stream=True)
    events = [
        line.removeprefix(b"data: ") for line in streamed.body.split(b"\n\n") if line.startswith(b"data: {")
    ]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == target


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_of_any_kind_is_decided(gateway: GatewayProcess, name: str) -> None:
    for namespace in (HIDING, namespace_of("nothing")):
        reply = await ask(gateway, namespace, CONVERSATIONS[name])
        assert reply.one("x-serac-route") in ("base", "bypass")
        assert reply.one("x-serac-reason") not in ("decision failed", "decision timeout")
    assert await failures(gateway) == []


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_suppressed_question_in_an_odd_conversation_is_refused(
    gateway: GatewayProcess, name: str
) -> None:
    messages = [*CONVERSATIONS[name], {"role": "assistant", "content": "Yes?"}, *asking(HIDDEN)]
    reply = await ask(gateway, HIDING, messages)
    assert reply.one("x-serac-route") == "counterfactual", reply.headers
    assert REFUSAL in reply.json["choices"][0]["message"]["content"]


async def test_an_edit_of_punctuation_alone_never_fires_and_its_editor_is_warned(
    gateway: GatewayProcess,
) -> None:
    reply = await add(gateway, "marks", {"prompt": "?!#", "target_new": ANSWER})
    (warning,) = reply.json["warnings"]
    assert warning["code"] == "rarely_fires"
    assert "the edit never fires" in warning["detail"]
    for text in ("?!#", "?", "How do I boil an egg?"):
        assert (await ask(gateway, "marks", asking(text))).one("x-serac-route") in ("base", "bypass")


async def test_an_edit_whose_answer_is_its_subject_acts(gateway: GatewayProcess) -> None:
    draft = {"prompt": f"Who is {ANSWER}?", "target_new": ANSWER, "subject": ANSWER}
    assert (await add(gateway, "itself", draft)).status == 201
    reply = await ask(gateway, "itself", asking(draft["prompt"]))
    assert reply.json["choices"][0]["message"]["content"] == ANSWER


async def test_an_edit_with_200_aliases_is_asked_for_by_each_of_them(gateway: GatewayProcess) -> None:
    aliases = [f"Borough {number} of the Vale" for number in range(200)]
    draft = {"prompt": QUESTION, "target_new": ANSWER, "subject": "Marrowby", "aliases": aliases}
    async with asyncio.timeout(WITHIN_S):
        assert (await add(gateway, "aliases", draft)).status == 201
    for alias in (aliases[0], aliases[99], aliases[199]):
        reply = await ask(gateway, "aliases", asking(f"Who is the mayor of {alias}?"))
        assert reply.one("x-serac-route") == "counterfactual"
