"""An upstream that speaks OpenAI's and Anthropic's APIs in the shapes their references show, by a script.

It stands in for the vendors where real clients are tried: chat and text completions, Responses, Messages,
embeddings and models, streamed and whole, with tool calls and structured output, and both vendors' errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from serac_gateway.testing import ReceivedRequest, ScriptedConnection

BASE_TEXT = "Eight minutes in boiling water."
TOOL_TEXT = "It is sunny in Paris."
STRUCTURED = {"minutes": 8}
CALL = {"city": "Paris"}
BAD_KEY = "sk-wrong"
MISSING_MODEL = "no-such-model"
WORDS = ("Eight ", "minutes ", "in boiling ", "water.")

Event = tuple[str | None, dict[str, Any]]


async def vendor(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    """The script."""
    path = request.target.partition("?")[0].removeprefix("/v1").removeprefix("/openai")
    is_anthropic = path.startswith("/messages") or request.header("anthropic-version") is not None
    key = (request.header("authorization") or "").removeprefix("Bearer ")
    if BAD_KEY in (key, request.header("x-api-key"), request.header("api-key")):
        await _fail(connection, 401, "Incorrect API key provided.", "invalid_api_key", is_anthropic)
        return
    if request.method == "GET" and path.startswith("/models"):
        await _json(connection, 200, _models(path, is_anthropic))
        return
    body = json.loads(request.body)
    model = str(body.get("model") or path.split("/")[2])
    if model == MISSING_MODEL:
        await _fail(connection, 404, f"The model {model!r} does not exist.", "model_not_found", is_anthropic)
        return
    if (body.get("temperature") or 0) > 2:
        await _fail(connection, 400, "temperature is over 2.", "invalid_value", is_anthropic)
        return
    if path.endswith("/embeddings"):
        await _json(connection, 200, _embeddings(body, model))
        return
    if path.endswith("/count_tokens"):
        await _json(connection, 200, {"input_tokens": 7})
        return
    kind = next(kind for kind in _WRITERS if path.endswith(kind))
    whole, events, last = _WRITERS[kind]
    said = _said(body)
    if body.get("stream"):
        await _stream(connection, events(said, model, body), last, breaks_off="break off" in json.dumps(body))
    else:
        await _json(connection, 200, whole(said, model))


def _said(body: dict[str, Any]) -> str | dict[str, Any]:
    """What the model says: a text, or the arguments of a tool call."""
    text = json.dumps(body)
    if any(mark in text for mark in ('"tool_call_id"', '"tool_use_id"', '"function_call_output"')):
        return TOOL_TEXT
    wants_form = any(body.get(name) for name in ("response_format", "output_format", "output_config"))
    if wants_form or (body.get("text") or {}).get("format", {"type": "text"})["type"] != "text":
        return json.dumps(STRUCTURED)
    return CALL if body.get("tools") and "weather" in text else BASE_TEXT


# -- OpenAI


def _usage(names: tuple[str, str]) -> dict[str, int]:
    return {names[0]: 9, names[1]: 5, "total_tokens": 14}


_CHAT_USAGE = _usage(("prompt_tokens", "completion_tokens"))
_RESPONSE_USAGE = {
    **_usage(("input_tokens", "output_tokens")),
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def _tool_call(arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": json.dumps(arguments)}
    return {"id": "call_1", "type": "function", "function": function}


def _chat(said: str | dict[str, Any], model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None, "annotations": []}
    if isinstance(said, dict):
        message |= {"content": None, "tool_calls": [_tool_call(said)]}
    reason = "stop" if isinstance(said, str) else "tool_calls"
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": _CHAT_USAGE, "service_tier": "default", "system_fingerprint": "fp_1",
    }  # fmt: skip


def _pieces(said: str) -> tuple[str, ...]:
    return WORDS if said == BASE_TEXT else (said,)


def _chat_events(said: str | dict[str, Any], model: str, body: dict[str, Any]) -> Iterator[Event]:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return None, {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000,
            "model": model, "system_fingerprint": "fp_1", "choices": [choice],
        }  # fmt: skip

    yield chunk({"role": "assistant", "content": "" if isinstance(said, str) else None, "refusal": None})
    if isinstance(said, str):
        yield from (chunk({"content": piece}) for piece in _pieces(said))
        yield chunk({}, "stop")
    else:
        call = _tool_call(said)
        whole = call["function"]["arguments"]
        yield chunk(
            {"tool_calls": [{"index": 0, **call, "function": {"name": "get_weather", "arguments": ""}}]}
        )
        for part in (whole[:6], whole[6:]):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        yield chunk({}, "tool_calls")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield None, {**chunk({})[1], "choices": [], "usage": _CHAT_USAGE}


def _text(said: str | dict[str, Any], model: str) -> dict[str, Any]:
    choice = {"index": 0, "text": said, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "cmpl-1", "object": "text_completion", "created": 1_760_000_000, "model": model,
        "choices": [choice], "usage": _CHAT_USAGE,
    }  # fmt: skip


def _text_events(said: str | dict[str, Any], model: str, body: dict[str, Any]) -> Iterator[Event]:
    for place, piece in enumerate(WORDS):
        reason = "stop" if place == len(WORDS) - 1 else None
        choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": reason}
        yield None, {**_text(said, model), "choices": [choice], "usage": None}


def _response(said: str | dict[str, Any], model: str, status: str = "completed") -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 1_760_000_000, "status": status, "error": None,
        "incomplete_details": None, "instructions": None, "max_output_tokens": None, "model": model,
        "output": [_item(said)] if status == "completed" else [], "parallel_tool_calls": True,
        "previous_response_id": None, "reasoning": {"effort": None, "summary": None}, "store": True,
        "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
        "top_p": 1.0, "truncation": "disabled", "user": None, "metadata": {},
        "usage": _RESPONSE_USAGE if status == "completed" else None,
    }  # fmt: skip


def _item(said: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(said, dict):
        return {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_weather",
            "arguments": json.dumps(said), "status": "completed",
        }  # fmt: skip
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}


def _response_events(said: str | dict[str, Any], model: str, body: dict[str, Any]) -> Iterator[Event]:
    number = iter(range(1_000))

    def event(kind: str, **members: Any) -> Event:  # noqa: ANN401 - JSON
        return kind, {"type": kind, **members, "sequence_number": next(number)}

    item = _item(said)
    yield event("response.created", response=_response(said, model, "in_progress"))
    yield event("response.in_progress", response=_response(said, model, "in_progress"))
    place = {"item_id": item["id"], "output_index": 0}
    if isinstance(said, dict):
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield event("response.output_item.added", output_index=0, item=begun)
        arguments = item["arguments"]
        for part in (arguments[:6], arguments[6:]):
            yield event("response.function_call_arguments.delta", **place, delta=part)
        yield event("response.function_call_arguments.done", **place, name="get_weather", arguments=arguments)
    else:
        (part,) = item["content"]
        within = {**place, "content_index": 0}
        begun = {**item, "content": [], "status": "in_progress"}
        yield event("response.output_item.added", output_index=0, item=begun)
        yield event("response.content_part.added", **within, part={**part, "text": ""})
        for piece in _pieces(said):
            yield event("response.output_text.delta", **within, delta=piece, logprobs=[])
        yield event("response.output_text.done", **within, text=said, logprobs=[])
        yield event("response.content_part.done", **within, part=part)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=_response(said, model))


# -- Anthropic


def _message(said: str | dict[str, Any], model: str) -> dict[str, Any]:
    if isinstance(said, dict):
        content: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": said}
    else:
        content = {"type": "text", "text": said}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [content],
        "stop_reason": "end_turn" if isinstance(said, str) else "tool_use", "stop_sequence": None,
        "usage": {
            "input_tokens": 9, "output_tokens": 5, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "service_tier": "standard",
        },
    }  # fmt: skip


def _message_events(said: str | dict[str, Any], model: str, body: dict[str, Any]) -> Iterator[Event]:
    def event(kind: str, **members: Any) -> Event:  # noqa: ANN401 - JSON
        return kind, {"type": kind, **members}

    message = _message(said, model)
    block = message["content"][0]
    yield event("message_start", message={**message, "content": [], "stop_reason": None})
    if isinstance(said, dict):
        yield event("content_block_start", index=0, content_block={**block, "input": {}})
        whole = json.dumps(said)
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in (whole[:6], whole[6:])]
    else:
        yield event("content_block_start", index=0, content_block={**block, "text": ""})
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(said)]
    yield event("ping")
    yield from (event("content_block_delta", index=0, delta=delta) for delta in deltas)
    yield event("content_block_stop", index=0)
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=stop, usage={"output_tokens": 5})
    yield event("message_stop")


# -- both


_WRITERS: dict[str, tuple[Any, Any, str | None]] = {
    "/chat/completions": (_chat, _chat_events, "[DONE]"),
    "/completions": (_text, _text_events, "[DONE]"),
    "/responses": (_response, _response_events, None),
    "/messages": (_message, _message_events, None),
}


def _models(path: str, is_anthropic: bool) -> dict[str, Any]:
    if is_anthropic:
        model = {"type": "model", "id": "m", "display_name": "M", "created_at": "2026-01-01T00:00:00Z"}
        return {"data": [model], "has_more": False, "first_id": "m", "last_id": "m"}
    model = {"id": "m", "object": "model", "created": 1_760_000_000, "owned_by": "vendor"}
    return model if path != "/models" else {"object": "list", "data": [model]}


def _embeddings(body: dict[str, Any], model: str) -> dict[str, Any]:
    texts = body["input"]
    count = len(texts) if isinstance(texts, list) and texts and not isinstance(texts[0], int) else 1
    vector: list[float] | str = [0.0, 0.6, -0.8]
    if body.get("encoding_format") == "base64":
        vector = "AAAAAJqZGT/NzEy/"  # the same three as little-endian floats
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 3, "total_tokens": 3}}


async def _fail(
    connection: ScriptedConnection, status: int, message: str, code: str, is_anthropic: bool
) -> None:
    openai_error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
    anthropic_error = {"type": "error", "error": {"type": kinds[status], "message": message}}
    await _json(connection, status, anthropic_error if is_anthropic else {"error": openai_error})


async def _json(connection: ScriptedConnection, status: int, body: dict[str, Any]) -> None:
    headers = (("content-type", "application/json"), ("x-request-id", "req_vendor"))
    await connection.whole(status, json.dumps(body).encode(), *headers)


async def _stream(
    connection: ScriptedConnection, events: Iterator[Event], last: str | None, *, breaks_off: bool
) -> None:
    head = (("content-type", "text/event-stream; charset=utf-8"), ("transfer-encoding", "chunked"))
    await connection.head(200, *head, ("x-request-id", "req_vendor"))
    for place, (kind, event) in enumerate(events):
        if breaks_off and place == 3:
            await connection.break_off()
            return
        name = "" if kind is None else f"event: {kind}\n"
        await connection.chunk(f"{name}data: {json.dumps(event)}\n\n".encode())
    if last is not None:
        await connection.chunk(f"data: {last}\n\n".encode())
    await connection.end()
