"""What the embedded base model's server accepts of a request. Pure.

That is more than the gateway answers by itself. The gateway leaves to the upstream whatever it cannot do
exactly as asked; here is the upstream, where a refusal is the end. So what can be done is done, what can be
ignored without harm is ignored as other small servers do, and the rest is refused with the parameter's name.
How the gateway decides is not touched by it: parameters that are read here are taken out of the request
before `ApiProtocol.parse_request`, which both use, sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Any

import msgspec

from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.upstream.transcript import STOP_TEXTS, Prompt, chat_prompt, text_prompt
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass
from serac_gateway.errors import InvalidRequestError
from serac_gateway.models.language_models.base import Sampling

DEFAULT_MAX_TOKENS = 64
MAX_CHOICES = 8
"""Each takes the model; the gateway allows more, as it repeats its own answers."""
MAX_LOGPROBS = 20

_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Likeliest = Annotated[int, msgspec.Meta(ge=0, le=MAX_LOGPROBS)]

_READ_HERE = frozenset({"frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs"})
"""Parameters on which the gateway would leave the request to its upstream."""
_WITH_OPENAIS_PARAMETERS = (Endpoint.CHAT, Endpoint.COMPLETIONS)
"""Where those exist."""
_STORED = ("previous_response_id", "conversation")


class EmbeddedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the embedded base model answers."""

    completion: CompletionRequest
    prompt: Prompt
    as_json: bool = False
    """Whether the answer has to be a JSON object."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None
    """See `Sampling.logprobs`."""

    def sampling(self, seed: int) -> Sampling:
        """How to sample one choice."""
        request = self.completion
        is_line = request.endpoint is not Endpoint.COMPLETIONS and not self.as_json
        return Sampling(
            max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=request.temperature or 0.0,
            top_p=request.top_p,
            seed=seed,
            stop=(*STOP_TEXTS, *request.stop) if is_line else request.stop,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logprobs=self.logprobs,
        )


def read_request(endpoint: Endpoint, body: object) -> EmbeddedRequest:
    """What is to be done for a decoded request body.

    Raises:
        InvalidRequestError: It cannot be done; `field` is the parameter at fault, where it is one.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("the body must be a JSON object")
    for name in _STORED:
        if body.get(name) is not None:
            raise InvalidRequestError(
                f"the embedded base model's server stores no responses and no conversations, so {name!r}"
                " names nothing; send the earlier turns along",
                field=name,
            )
    as_json = _wants_json_object(endpoint, body)
    completion = _completion(endpoint, body, as_json=as_json)
    is_text = endpoint is Endpoint.COMPLETIONS
    prompt = text_prompt(body) if is_text else chat_prompt(endpoint, body, as_json=as_json)
    if endpoint not in _WITH_OPENAIS_PARAMETERS:
        return EmbeddedRequest(completion=completion, prompt=prompt, as_json=as_json)
    _parameter(body, "logit_bias", dict[str, float])  # ignored: the ids are of a tokenizer that clients lack
    return EmbeddedRequest(
        completion=completion,
        prompt=prompt,
        as_json=as_json,
        frequency_penalty=_parameter(body, "frequency_penalty", _Penalty) or 0.0,
        presence_penalty=_parameter(body, "presence_penalty", _Penalty) or 0.0,
        logprobs=_text_logprobs(body) if is_text else _chat_logprobs(body),
    )


def _completion(endpoint: Endpoint, body: Mapping[str, Any], *, as_json: bool) -> CompletionRequest:
    read_here: Set[str] = _READ_HERE if endpoint in _WITH_OPENAIS_PARAMETERS else frozenset()
    rest = {name: value for name, value in body.items() if name not in read_here}
    if as_json and endpoint is Endpoint.CHAT:
        del rest["response_format"]
    elif as_json:
        rest["text"] = {**body["text"], "format": {"type": "text"}}
    completion = PROTOCOLS[endpoint].parse_request(rest)
    if isinstance(completion, Bypass):
        raise _refusal(endpoint, rest, completion)
    if completion.choices > MAX_CHOICES:
        raise InvalidRequestError(
            f"n is {completion.choices}, and the embedded base model gives at most {MAX_CHOICES} choices",
            field="n",
        )
    if "text" in completion.echoed:
        return msgspec.structs.replace(completion, echoed={**completion.echoed, "text": body["text"]})
    return completion


def _refusal(endpoint: Endpoint, body: Mapping[str, Any], reason: Bypass) -> InvalidRequestError:
    """Names the first parameter that would be refused alone."""
    needed: dict[str, object] = (
        {"model": "m", "max_tokens": 1} if endpoint is Endpoint.MESSAGES else {"model": "m"}
    )
    for name, value in body.items():
        outcome = PROTOCOLS[endpoint].parse_request({**needed, name: value})
        if not isinstance(outcome, Bypass):
            continue
        if outcome == MALFORMED:
            return InvalidRequestError(
                f"{name} is {_abbreviated(value)}, which is not allowed there", field=name
            )
        return InvalidRequestError(
            f"the embedded base model cannot answer this: {outcome.reason}; leave out {name!r}, or name a"
            " larger model's server with upstream.url",
            field=name,
        )
    missing = next((name for name in needed if body.get(name) is None), None)
    if missing is not None:
        return InvalidRequestError(f"{missing} is missing", field=missing)
    return InvalidRequestError(f"the embedded base model cannot answer this: {reason.reason}")


def _wants_json_object(endpoint: Endpoint, body: Mapping[str, Any]) -> bool:
    form = body.get("response_format") if endpoint is Endpoint.CHAT else None
    if endpoint is Endpoint.RESPONSES and isinstance(body.get("text"), Mapping):
        form = body["text"].get("format")
    return isinstance(form, Mapping) and form.get("type") == "json_object"


def _chat_logprobs(body: Mapping[str, Any]) -> int | None:
    likeliest: int | None = _parameter(body, "top_logprobs", _Likeliest)
    if _parameter(body, "logprobs", bool):
        return likeliest or 0
    if likeliest:
        raise InvalidRequestError(
            f"top_logprobs is {likeliest}, which needs logprobs to be true", field="top_logprobs"
        )
    return None


def _text_logprobs(body: Mapping[str, Any]) -> int | None:
    likeliest: bool | int | None = _parameter(body, "logprobs", bool | _Likeliest)
    return None if likeliest is None or likeliest is False else int(likeliest)


def _parameter(body: Mapping[str, Any], name: str, kind: Any) -> Any:  # noqa: ANN401
    """The parameter's value as a `kind`; None if it is not given."""
    value = body.get(name)
    if value is None:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise InvalidRequestError(f"{name} is {_abbreviated(value)}: {exc}", field=name) from exc


def _abbreviated(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
