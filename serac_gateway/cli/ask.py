"""`serac ask` and `serac explain`: send one question through the gateway, or show only its decision."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table

from serac_gateway.cli.client import CommandClient
from serac_gateway.cli.options import chosen_namespace, chosen_url
from serac_gateway.cli.terminal import (
    EXIT_USAGE,
    GatewayRefusedError,
    fail,
    print_json,
    run,
    stderr,
    stdout,
)
from serac_gateway.client.clients import StreamedReply
from serac_gateway.domain.audiences import audience_text

CHAT_PATH = "/v1/chat/completions"
_LINE_CHARS = 300
_HEADER = re.compile(r"([A-Za-z0-9_-]+):[ \t]*([!-~][ -~]*)")


def ask(
    question: str,
    *,
    model: str | None,
    max_tokens: int,
    user: str | None,
    headers: dict[str, str],
    url: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Stream the answer to stdout; the route goes to stderr."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "stream": True,
    }
    body |= {} if user is None else {"user": user}
    run(_ask(body, model, headers, chosen_url(url), chosen_namespace(namespace), as_json))


def header_options(texts: Iterable[str]) -> dict[str, str]:
    """The headers that `--header` writes as NAME:VALUE, by name; ends the command if one is none."""
    headers = {}
    for text in texts:
        match = _HEADER.fullmatch(text)
        if match is None:
            fail(f"--header {text!r} is no header; write it as x-region:eu", EXIT_USAGE)
        headers[match[1].lower()] = match[2]
    return headers


def explain(
    messages: list[dict[str, Any]],
    labels: dict[str, str],
    *,
    user: str | None,
    url: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Print the decision on a chat request of `user` with these messages and labels, as a table."""
    body = {"queries": [{"messages": messages}], "labels": labels, "user": user}
    run(_explain(body, chosen_url(url), chosen_namespace(namespace), as_json))


def explained_messages(question: str | None, system: str | None, request: str | None) -> list[dict[str, Any]]:
    """The messages that the options of `serac explain` name; ends the command if they name none."""
    if (question is None) == (request is None):
        fail("give either a question or --request with a file", EXIT_USAGE)
    if request is None:
        turns = [{"role": "user", "content": question}]
        return turns if system is None else [{"role": "system", "content": system}, *turns]
    if system is not None:
        fail("--system goes with a question: the request has its own system prompt", EXIT_USAGE)
    try:
        body = msgspec.json.decode(request.encode(), type=_ChatBody)
    except msgspec.DecodeError as exc:
        fail(f'the request is no chat request in JSON, {{"messages": […]}}: {exc}', EXIT_USAGE)
    return body.messages


def _print_read(read: dict[str, Any] | None) -> None:
    """What the decision was made on, where that is more than the question."""
    if read is None:
        return
    lines = [("system prompt", read["instructions"])] if read["instructions"] else []
    lines += [("earlier turn", turn) for turn in read["context"]]
    lines += [("question in the text", read["question"])] if read["question"] else []
    for name, text in [*lines, ("read", read["text"])] if lines else []:
        stdout().print(f"[dim]{name}:[/] {escape(_shortened(text))}", soft_wrap=True)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LINE_CHARS else f"{line[: _LINE_CHARS // 2]} … {line[-_LINE_CHARS // 2 :]}"


async def first_model(client: CommandClient, headers: Mapping[str, str] | None = None) -> str:
    """The id of the upstream's first model, as it is listed for a request with `headers`.

    Raises:
        GatewayRefusedError: The upstream lists no model.
    """
    models = (await client.call("GET", "/v1/models", headers=headers)).json().get("data") or []
    if not models:
        raise GatewayRefusedError("the upstream lists no models; name one with --model")
    return str(models[0]["id"])


async def _ask(
    body: dict[str, Any],
    model: str | None,
    headers: dict[str, str],
    url: str,
    namespace: str,
    as_json: bool,
) -> None:
    async with CommandClient(url, namespace=namespace) as client:
        body = {"model": model or await first_model(client, headers), **body}
        out = stdout()
        answer = ""
        async with client.stream(
            "POST", CHAT_PATH, content=msgspec.json.encode(body), headers={**headers, "x-serac-debug": "true"}
        ) as response:
            async for piece in _pieces(response):
                answer += piece
                if not as_json:
                    out.print(piece, end="", markup=False, soft_wrap=True)
            attributes = {
                name.removeprefix("x-serac-").replace("-", "_"): value
                for name, value in ((name.lower(), value) for name, value in response.headers.items())
                if name.startswith("x-serac-")
            }
    if as_json:
        print_json({"answer": answer, **attributes})
    else:
        out.print()
        remark = " · ".join(f"{name} {value}" for name, value in attributes.items())
        stderr().print(f"[dim]{escape(remark)}[/]", soft_wrap=True)


async def _pieces(response: StreamedReply) -> AsyncIterator[str]:
    """The texts in a stream of chat completion chunks."""
    async for line in response.lines():
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        event = msgspec.json.decode(data)
        if "error" in event:
            raise GatewayRefusedError(f"the answer broke off: {event['error'].get('message')}")
        for choice in event.get("choices", ()):
            yield choice.get("delta", {}).get("content") or ""


class _ChatBody(msgspec.Struct):
    """The part of a chat request that decides."""

    messages: list[dict[str, Any]]


async def _explain(body: dict[str, Any], url: str, namespace: str, as_json: bool) -> None:
    async with CommandClient(url, namespace=namespace) as client:
        reply = await client.call("POST", "/serac/v1/scope", body=body)
    (decision,) = reply.json()["decisions"]
    if as_json:
        print_json(decision)
        return
    out = stdout()
    scope = "in scope" if decision["in_scope"] else "out of scope"
    out.print(f"[bold]{scope}[/] · route [bold]{decision['route']}[/] ({escape(decision['reason'])})")
    _print_read(decision["read_as"])
    for part in decision["parts"]:
        out.print(f"[dim]{part['edit_id']} answers:[/] {escape(_shortened(part['text']))}", soft_wrap=True)
    if decision["scope_threshold"] is not None:
        out.print(f"in scope from a scope probability of {decision['scope_threshold']:.3f}")
    if decision["context_edit_ids"]:
        out.print(f"stated to the base model: {', '.join(decision['context_edit_ids'])}")
    for other in decision["other_audiences"]:
        out.print(
            f"in scope of {other['edit_id']}, which holds for {audience_text(other['audience'])} alone"
            f" ({other['scope_probability']:.3f})",
            soft_wrap=True,
        )
    if not decision["candidates"]:
        out.print("no edit lies near this question")
        return
    if (on_trial := decision["shadow"]) is not None:
        verdict = f"in scope of {on_trial['edit_id']}" if on_trial["in_scope"] else "out of scope"
        probability, threshold = on_trial["scope_probability"], on_trial["scope_threshold"]
        numbers = "" if probability is None else f" ({probability:.3f}, in scope from {threshold:.3f})"
        out.print(f"the classifier on trial: [bold]{verdict}[/]{numbers}")
    table = Table("scope probability", "similarity", "edit", "prompt", "new answer", "nearest form")
    for candidate in decision["candidates"]:
        chosen = candidate["edit_id"] == decision["edit_id"]
        cells = (
            f"{candidate['scope_probability']:.3f} of {candidate['scope_threshold']:.3f}",
            f"{candidate['similarity']:.3f}",
            f"{candidate['edit_id']} v{candidate['edit_version']}",
            *(escape(candidate[name]) for name in ("prompt", "target_new", "form")),
        )
        table.add_row(*cells, style="bold green" if chosen else None)
    out.print(table)
