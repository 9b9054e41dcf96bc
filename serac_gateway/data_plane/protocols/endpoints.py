"""From an endpoint to its API's shape: how its requests are read and how its answers are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serac_gateway.data_plane.protocols.base import AnswerHead, AnswerWriter, CompletionRequest
from serac_gateway.data_plane.protocols.chat_completions import ChatWriter
from serac_gateway.data_plane.protocols.completions import TextWriter, parse_text_request
from serac_gateway.data_plane.protocols.messages import MessagesWriter, parse_messages_request
from serac_gateway.data_plane.protocols.openai_common import parse_choices_request
from serac_gateway.data_plane.protocols.responses import ResponsesWriter, parse_responses_request
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass

_WRITERS: dict[Endpoint, Callable[[AnswerHead, CompletionRequest], AnswerWriter]] = {
    Endpoint.CHAT: ChatWriter,
    Endpoint.COMPLETIONS: TextWriter,
    Endpoint.RESPONSES: ResponsesWriter,
    Endpoint.MESSAGES: MessagesWriter,
}


def answer_writer(head: AnswerHead, request: CompletionRequest) -> AnswerWriter:
    """What writes the answer to `request` in the shape of its API."""
    return _WRITERS[request.endpoint](head, request)


def parse_completion_request(endpoint: Endpoint, body: object) -> CompletionRequest | Bypass:
    """What we understand of a decoded request body, or why it cannot be answered here.

    Whatever would change the form of the answer and cannot be honoured is a `Bypass`, and so is what the
    upstream has to refuse in its own words. Hints that change no form (`user`, `store`, `top_k`, …) are
    ignored.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("model"), str):
        return MALFORMED
    match endpoint:
        case Endpoint.CHAT:
            return parse_choices_request(endpoint, body)
        case Endpoint.COMPLETIONS:
            return parse_text_request(body)
        case Endpoint.RESPONSES:
            return parse_responses_request(body)
        case Endpoint.MESSAGES:
            return parse_messages_request(body)
