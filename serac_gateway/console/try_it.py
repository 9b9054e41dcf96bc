"""Try it: a question, what is decided about it and why, and the answers with edits and without."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath

from serac_gateway.config.model import AudienceSource
from serac_gateway.console.planes import RefusedError, Reply
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.data_plane.upstream.base import UpstreamRequest
from serac_gateway.domain.audiences import label_value
from serac_gateway.errors import GatewayError

MAX_ANSWER_TOKENS = 200
_BASE, _ROUTED = "base", "routed"


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
        base, routed = await asyncio.gather(
            _base_answer(visit, question, model), _routed_answer(visit, question, model)
        )
        answers = {_BASE: base, _ROUTED: routed}
        return _page(visit, question=question, model=model, decision=decision, answers=answers)

    @post("/{side:str}", status_code=200)
    async def answer(self, visit: Visiting, side: FromPath[str]) -> Response[str]:
        """One of the two answers: a part of the page."""
        question, model = visit.fields.get("question", ""), visit.fields.get("model", "").strip()
        ask = _base_answer if side == _BASE else _routed_answer
        answer = await ask(visit, question, model)
        return visit.page("_try_answer.html", side=side, answer=answer, question=question)


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


async def _routed_answer(visit: Visit, question: str, model: str) -> Answer:
    """As any client would get it."""
    key = visit.fields.get("upstream_key", "").strip()
    headers = {"x-serac-debug": "true"} | ({"authorization": f"Bearer {key}"} if key else {})
    sources = _label_sources(visit)
    for label, typed in _labels(visit).items():
        if (value := label_value(typed)) is not None:  # what is no value the decision has refused
            headers[str(sources[label].header).lower()] = value
    try:
        body = _chat_body(question, model or await _first_model(visit))
        reply = await visit.client.chat(body, headers)
    except RefusedError as refusal:
        return Answer(text=None, problem=refusal.detail)
    return Answer(
        text=_said(reply.json),
        route=reply.headers.get("x-serac-route"),
        reason=reply.headers.get("x-serac-reason"),
        edit_id=reply.headers.get("x-serac-edit-id"),
        timings=_timings(reply),
    )


async def _base_answer(visit: Visit, question: str, model: str) -> Answer:
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
            content = b"".join([chunk async for chunk in response.body])
    except RefusedError as refusal:
        return Answer(text=None, problem=refusal.detail)
    except GatewayError as error:
        return Answer(text=None, problem=error.message)
    reply = Reply(status=response.status, headers={}, body=content)
    if reply.status >= 400:
        return Answer(text=None, problem=RefusedError(reply).detail)
    return Answer(text=_said(reply.json))


def _chat_body(question: str, model: str) -> dict[str, object]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "max_tokens": MAX_ANSWER_TOKENS}


async def _first_model(visit: Visit) -> str:
    """The model that is asked where nobody names one, as `serac ask` chooses it."""
    models = ((await visit.client.models()).json or {}).get("data") or [{}]
    return str(models[0].get("id", ""))


def _said(completion: Any) -> str:  # noqa: ANN401 - decoded JSON of a server of others
    """The text of a chat completion; empty if there is none."""
    try:
        return str(completion["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        return ""


def _timings(reply: Reply) -> tuple[tuple[str, str], ...]:
    """Name and milliseconds of each step, out of a header in the format of Server-Timing."""
    steps = [step.strip().partition(";dur=") for step in reply.headers.get("x-serac-timings", "").split(",")]
    return tuple((name, duration) for name, _, duration in steps if name and duration)
