"""The table of APIs."""

from __future__ import annotations

from serac_gateway.data_plane.protocols.base import ApiProtocol
from serac_gateway.data_plane.protocols.chat_completions import ChatCompletionsProtocol
from serac_gateway.data_plane.protocols.completions import CompletionsProtocol
from serac_gateway.data_plane.protocols.messages import MessagesProtocol
from serac_gateway.data_plane.protocols.responses import ResponsesProtocol
from serac_gateway.domain.endpoints import Endpoint

PROTOCOLS: dict[Endpoint, ApiProtocol] = {
    protocol.endpoint: protocol
    for protocol in (
        ChatCompletionsProtocol(),
        CompletionsProtocol(),
        ResponsesProtocol(),
        MessagesProtocol(),
    )
}
