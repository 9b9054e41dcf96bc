"""The id of a request: the client's own or a new one, the same in the response, the log and traces."""

from __future__ import annotations

import re
import secrets

from litestar.types import Message, Scope

REQUEST_ID_HEADER = b"x-request-id"
OWN_REQUEST_ID_HEADER = b"x-serac-request-id"
"""Of every response. An upstream may have set the other one to an id of its own."""
_ACCEPTABLE = re.compile(rb"[\x21-\x7e]{1,128}")
_STATE_KEY = "serac_request_id"


def request_id(scope: Scope) -> str:
    """The client's x-request-id if it is 1-128 visible ASCII characters, else a new one.

    Kept in the scope's state, so that every call for one request gives the same.
    """
    state = scope["state"]
    value = state.get(_STATE_KEY)
    if value is None:
        sent = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER), b"")
        value = sent.decode() if _ACCEPTABLE.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        state[_STATE_KEY] = value
    return str(value)


async def add_request_id(message: Message, scope: Scope) -> None:
    """A `before_send` hook of Litestar: adds the headers with the request's id that a response lacks."""
    if message["type"] != "http.response.start":
        return
    headers = list(message["headers"])
    present = {name.lower() for name, _ in headers}
    value = request_id(scope).encode()
    added = [(name, value) for name in (REQUEST_ID_HEADER, OWN_REQUEST_ID_HEADER) if name not in present]
    message["headers"] = [*headers, *added]
