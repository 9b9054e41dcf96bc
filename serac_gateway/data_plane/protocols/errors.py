"""Errors in the shape that a client of /v1 reads: as a response, or as the last event of a stream."""

from __future__ import annotations

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.paths import classified_path
from serac_gateway.data_plane.protocols.base import ApiProtocol
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.protocols.messages import VERSION_HEADER
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import GatewayError


def client_protocol(exchange: Exchange) -> ApiProtocol:
    """The API that the client speaks: by its version header or the path; on other paths OpenAI's chat.

    Paths below an endpoint's (`/v1/messages/count_tokens`) belong to the same API.
    """
    if exchange.header(VERSION_HEADER) is not None:
        return PROTOCOLS[Endpoint.MESSAGES]
    return PROTOCOLS[classified_path(exchange.raw_path).api or Endpoint.CHAT]


def error_body(exchange: Exchange, error: GatewayError) -> dict[str, object]:
    """The body of an error response; its status is the error's."""
    return client_protocol(exchange).error_body(error, exchange.request_id.decode())


def error_event(exchange: Exchange, error: GatewayError, number: int = 0) -> bytes:
    """`error` as the last event of a stream, its event `number` if the API numbers them."""
    return client_protocol(exchange).error_event(error, exchange.request_id.decode(), number)
