"""The questions of `serac demo`: each edit's before and after, and one request with and without gateway."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from serac_gateway.cli.ask import CHAT_PATH, first_model
from serac_gateway.cli.client import CommandClient
from serac_gateway.cli.terminal import GatewayRefusedError
from serac_gateway.client.replies import Reply
from serac_gateway.routing.router import Route

NAMESPACE = "demo"
MAX_ANSWER_TOKENS = 20
_UNRELATED = "Write one sentence about the sea."
_PER_REPLY = re.compile(rb'"(?:id|created)"\s*:\s*(?:"[^"]*"|\d+)')


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The questions about one edit of edits.jsonl, identified by its prompt."""

    prompt: str
    expected: str
    """A text in the answers to prompt and paraphrase once the edit is stored."""
    paraphrase: str
    same_subject: str
    """Another question about the same subject: its answer must not change."""
    neighbour: str
    """The same question about another subject: its answer must not change."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One reply of the gateway."""

    text: str
    route: str
    latency_ms: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    kind: str = msgspec.field(name="asked")
    """"question", "paraphrase", "same subject", "neighbour" or "unrelated"."""
    question: str
    before: str
    after: str
    route: str
    latency_ms: float
    problem: str | None = None
    """How the line differs from what it should be; None: not at all."""


def load_demo() -> tuple[bytes, list[Probe]]:
    """The bytes of edits.jsonl, and the probes."""
    folder = _demo_folder()
    lines = (folder / "probes.jsonl").read_bytes().splitlines()
    return (folder / "edits.jsonl").read_bytes(), [msgspec.json.decode(line, type=Probe) for line in lines]


def request_count(probes: list[Probe]) -> int:
    """How many chat requests a walk sends."""
    return 2 * 4 * len(probes) + 2


async def walk(url: str, on_answer: Callable[[], None], *, with_key: bool) -> AsyncIterator[Line]:
    """Ask all questions, and yield one line after another; `on_answer` is called for every answer.

    Raises:
        UnreachableError, ApiError, GatewayRefusedError: A call failed.
    """
    edits, probes = load_demo()
    async with CommandClient(url, namespace=NAMESPACE, with_key=with_key) as gateway:
        await _clear(gateway)
        model = await first_model(gateway)

        async def answer(question: str) -> Answer:
            answered = await _ask(gateway, model, question)
            on_answer()
            return answered

        questions = [question for probe in probes for _, question in _questions(probe)]
        before = {question: await answer(question) for question in questions}
        await _import(gateway, edits)
        for probe in probes:
            for kind, question in _questions(probe):
                after = await answer(question)
                yield _line(probe, kind, question, before[question], after)
        yield await _unrelated(gateway, model, on_answer)


def _demo_folder() -> Traversable | Path:
    """configs/demo of a checkout; in an installed wheel the same files are package data."""
    checkout = Path(__file__).parents[2] / "configs" / "demo"
    return checkout if checkout.is_dir() else resources.files("serac_gateway") / "demo"


def _questions(probe: Probe) -> tuple[tuple[str, str], ...]:
    return (
        ("question", probe.prompt),
        ("paraphrase", probe.paraphrase),
        ("same subject", probe.same_subject),
        ("neighbour", probe.neighbour),
    )


async def _clear(gateway: CommandClient) -> None:
    """Retire the edits of an earlier run."""
    while edits := (await gateway.call("GET", "/serac/v1/edits", query={"state": "live"})).json()["edits"]:
        for edit in edits:
            await gateway.call(
                "DELETE", f"/serac/v1/edits/{edit['id']}", headers={"if-match": f'"{edit["version"]}"'}
            )


async def _import(gateway: CommandClient, edits: bytes) -> None:
    async with gateway.stream("POST", "/serac/v1/edits:import", content=edits) as response:
        async for line in response.lines():
            if error := msgspec.json.decode(line).get("error"):
                raise GatewayRefusedError(f"configs/demo/edits.jsonl: {error['detail']}")


def _chat(model: str, question: str) -> dict[str, object]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_ANSWER_TOKENS,
        "temperature": 0,
    }


async def _ask(gateway: CommandClient, model: str, question: str) -> Answer:
    begun = time.perf_counter()
    reply = await gateway.call("POST", CHAT_PATH, body=_chat(model, question))
    latency_ms = (time.perf_counter() - begun) * 1_000
    return Answer(text=_text(reply), route=reply.headers.get("x-serac-route", "none"), latency_ms=latency_ms)


def _text(reply: Reply) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def _line(probe: Probe, kind: str, question: str, before: Answer, after: Answer) -> Line:
    edited = kind in ("question", "paraphrase")
    route = Route.COUNTERFACTUAL if edited else Route.BASE
    problem = None
    if before.route != Route.BASE:
        problem = f"route {before.route} before the edit, not {Route.BASE}"
    elif after.route != route:
        problem = f"route {after.route}, not {route}"
    elif edited and probe.expected.casefold() not in after.text.casefold():
        problem = f"the answer lacks {probe.expected!r}"
    elif not edited and after.text != before.text:
        problem = "the answer changed"
    return Line(
        kind=kind,
        question=question,
        before=before.text,
        after=after.text,
        route=after.route,
        latency_ms=after.latency_ms,
        problem=problem,
    )


async def _unrelated(gateway: CommandClient, model: str, on_answer: Callable[[], None]) -> Line:
    """The same request to the upstream itself and through the gateway: the replies must be the same bytes."""
    upstream_url = (await gateway.call("GET", "/serac/v1/stats")).json()["upstream_url"]
    body = _chat(model, _UNRELATED)
    async with CommandClient(
        upstream_url.removesuffix("/v1"), namespace=NAMESPACE, with_key=False
    ) as upstream:
        direct = await upstream.call("POST", CHAT_PATH, body=body)
    on_answer()
    begun = time.perf_counter()
    passed = await gateway.call("POST", CHAT_PATH, body=body)
    latency_ms = (time.perf_counter() - begun) * 1_000
    on_answer()
    route = passed.headers.get("x-serac-route", "none")
    problem = None
    if route != Route.BASE:
        problem = f"route {route}, not {Route.BASE}"
    elif _without_ids(direct.raw) != _without_ids(passed.raw):
        problem = "the reply is not the upstream's"
    return Line(
        kind="unrelated",
        question=_UNRELATED,
        before=_text(direct),
        after=_text(passed),
        route=route,
        latency_ms=latency_ms,
        problem=problem,
    )


def _without_ids(reply: bytes) -> bytes:
    """The reply without id and time, which an upstream other than the embedded one makes anew each time."""
    return _PER_REPLY.sub(b"", reply)
