"""Try it: a question, what is decided about it and why, and the answers with edits and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from html import escape
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath
from litestar.response import Stream

from serac_gateway.config.model import AudienceSource
from serac_gateway.console.pages import rendered
from serac_gateway.console.planes import RefusedError, StreamedReply, headers_of
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.data_plane.upstream.base import UpstreamRequest
from serac_gateway.domain.audiences import label_value
from serac_gateway.errors import GatewayError

MAX_ANSWER_TOKENS = 200
_BASE, _ROUTED = SIDES = ("base", "routed")
OPENED = '<p class="said" hx-disable>'


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one side says."""

    text: str | None
    """None: it failed."""
    problem: str | None = None
    """Why, in English."""
    route: str | None = None
    """Who answered; None for the base model itself."""
    reason: str | None = None
    edit_id: str | None = None
    timings: tuple[tuple[str, str], ...] = ()
    """Of the decision, in milliseconds."""


class TryPages(Controller):
    """/console/n/{namespace}/try."""

    path = "/n/{namespace:str}/try"

    @get()
    async def form(self, visit: Visiting) -> Response[str]:
        """The question, which a link may bring along."""
        typed = visit.typed or {}
        question = str(typed.get("question") or visit.request.query_params.get("question", ""))
        return _page(visit, question=question, model=typed.get("model", ""))

    @post(status_code=200)
    async def ask(self, visit: Visiting) -> Response[str]:
        """Decide; with JavaScript the answers follow by themselves, else they are in the page."""
        question, model = visit.fields.get("question", ""), visit.fields.get("model", "").strip()
        if not question.strip():
            return _page(visit, question=question, model=model)
        try:
            decision = await _decision(visit, question)
        except RefusedError as refusal:
            return _page(visit, question=question, model=model, problem=refusal.detail)
        if visit.is_fragment:
            return visit.page("_try_outcome.html", decision=decision, answers=None, question=question)
        answers = dict(
            zip(
                SIDES,
                await asyncio.gather(*(_whole(_answering(visit, side, question, model)) for side in SIDES)),
                strict=True,
            )
        )
        return _page(visit, question=question, model=model, decision=decision, answers=answers)

    @post("/{side:str}", status_code=200)
    async def answer(self, visit: Visiting, side: FromPath[str]) -> Stream:
        """One of the two answers: a part of the page, which comes as it is said."""
        question, model = visit.fields.get("question", ""), visit.fields.get("model", "").strip()
        return Stream(_panel(visit, side, question, model), media_type=MediaType.HTML)


async def _panel(visit: Visit, side: str, question: str, model: str) -> AsyncGenerator[str, None]:
    """The HTML of an answer while it is said. Pieces stand in a paragraph that is open meanwhile."""
    values = {"t": visit.texts, "namespace": visit.namespace, "side": side, "question": question}
    yield rendered("_try_answer_begin.html", **values)
    is_open = False
    async with aclosing(_answering(visit, side, question, model)) as speaking:
        async for said in speaking:
            if isinstance(said, str):
                yield ("" if is_open else OPENED) + escape(said)
                is_open = True
            else:
                yield "</p>" if is_open else ""
                yield rendered("_try_answer_end.html", answer=said, is_said=is_open, **values)


def _page(
    visit: Visit,
    *,
    question: str,
    model: str,
    decision: dict[str, Any] | None = None,
    answers: dict[str, Answer] | None = None,
    problem: str | None = None,
) -> Response[str]:
    if visit.is_fragment:
        return visit.page("_try_problem.html", problem=problem)
    return visit.page(
        "try.html",
        question=question,
        model=model,
        decision=decision,
        answers=answers,
        problem=problem,
        sources=_label_sources(visit),
        labels=_labels(visit),
    )


def _label_sources(visit: Visit) -> dict[str, AudienceSource]:
    """The labels that can be asked with: those of headers. What an API key has belongs to it."""
    return {
        label: source
        for label, source in visit.client.planes.config.routing.audience_from.items()
        if source.header is not None
    }


def _labels(visit: Visit) -> dict[str, str]:
    """The labels that the form gives to the question."""
    typed = {label: visit.fields.get(f"label.{label}", "").strip() for label in _label_sources(visit)}
    return {label: value for label, value in typed.items() if value}


async def _decision(visit: Visit, question: str) -> dict[str, Any]:
    reply = await visit.client.control(
        "POST", "/scope", body={"queries": [question], "labels": _labels(visit)}
    )
    decision: dict[str, Any] = reply.json["decisions"][0]
    return decision


Speaking = AsyncGenerator[str | Answer, None]
"""What one side says, piece by piece, and at the end the whole answer."""


def _answering(visit: Visit, side: str, question: str, model: str) -> Speaking:
    return (_base if side == _BASE else _routed)(visit, question, model)


async def _whole(speaking: Speaking) -> Answer:
    """The answer at the end."""
    *_, answer = [said async for said in speaking]
    assert isinstance(answer, Answer)
    return answer


async def _routed(visit: Visit, question: str, model: str) -> Speaking:
    """As any client would get it."""
    key = visit.fields.get("upstream_key", "").strip()
    headers = {"x-serac-debug": "true"} | ({"authorization": f"Bearer {key}"} if key else {})
    sources = _label_sources(visit)
    for label, typed in _labels(visit).items():
        if (value := label_value(typed)) is not None:  # what is no value the decision has refused
            headers[str(sources[label].header).lower()] = value
    try:
        body = _chat_body(question, model or await _first_model(visit))
        async with visit.client.chat(body, headers) as reply:
            async for said in _said(reply):
                yield (
                    said
                    if isinstance(said, str)
                    else msgspec.structs.replace(
                        said,
                        route=reply.headers.get("x-serac-route"),
                        reason=reply.headers.get("x-serac-reason"),
                        edit_id=reply.headers.get("x-serac-edit-id"),
                        timings=_timings(reply.headers.get("x-serac-timings", "")),
                    )
                )
    except RefusedError as refusal:
        yield Answer(text=None, problem=refusal.detail)


async def _base(visit: Visit, question: str, model: str) -> Speaking:
    """As the base model says it itself: no edit is looked at, and no suppression either."""
    key = visit.fields.get("upstream_key", "").strip()
    headers = [(b"content-type", b"application/json"), (b"accept-encoding", b"identity")]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode("latin-1", "replace")))
    try:
        body = msgspec.json.encode(_chat_body(question, model or await _first_model(visit)))
        request = UpstreamRequest(
            method="POST",
            target=b"/chat/completions",
            headers=[*headers, (b"content-length", str(len(body)).encode())],
            body=body,
            sender=visit.principal,
        )
        async with visit.client.planes.upstream.send(request) as response:
            got = headers_of(response.headers)
            async for said in _said(StreamedReply(status=response.status, headers=got, chunks=response.body)):
                yield said
    except RefusedError as refusal:
        yield Answer(text=None, problem=refusal.detail)
    except GatewayError as error:
        yield Answer(text=None, problem=error.message)


async def _said(reply: StreamedReply) -> Speaking:
    """The text of a chat completion as it comes. Raises RefusedError if the status is 400 or higher."""
    if reply.status >= 400:
        raise RefusedError(await reply.whole())
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):  # it cannot stream
        text = _content_of((await reply.whole()).json, "message")
        yield text
        yield Answer(text=text)
        return
    pieces: list[str] = []
    async for data in _event_data(reply.chunks):
        if isinstance(data, dict) and isinstance(error := data.get("error"), dict):
            yield Answer(text=None, problem=str(error.get("message") or error))
            return
        if piece := _content_of(data, "delta"):
            pieces.append(piece)
            yield piece
    yield Answer(text="".join(pieces))


async def _event_data(chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The JSON of each event of a stream; what is none is left out."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            with suppress(msgspec.DecodeError):
                if line.startswith(b"data:"):
                    yield msgspec.json.decode(line.removeprefix(b"data:"))


def _chat_body(question: str, model: str) -> dict[str, object]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "max_tokens": MAX_ANSWER_TOKENS, "stream": True}


async def _first_model(visit: Visit) -> str:
    """The model that is asked where nobody names one, as `serac ask` chooses it."""
    models = ((await visit.client.models()).json or {}).get("data") or [{}]
    return str(models[0].get("id", ""))


def _content_of(completion: Any, holder: str) -> str:  # noqa: ANN401 - decoded JSON of a server of others
    """The text of a chat completion, or of a piece of one; empty if there is none."""
    try:
        return str(completion["choices"][0][holder]["content"] or "")
    except (KeyError, IndexError, TypeError):
        return ""


def _timings(header: str) -> tuple[tuple[str, str], ...]:
    """Name and milliseconds of each step, out of a header in the format of Server-Timing."""
    steps = [step.strip().partition(";dur=") for step in header.split(",")]
    return tuple((name, duration) for name, _, duration in steps if name and duration)
