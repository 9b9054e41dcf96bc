"""The id of a request, the same for the client, in our log and in the upstream's."""

from __future__ import annotations

import re
import secrets

from litestar.types import Message, Scope

REQUEST_ID_HEADER = b"x-request-id"
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
    """A `before_send` hook of Litestar: adds x-request-id to every response without one."""
    if message["type"] != "http.response.start":
        return
    headers = list(message["headers"])
    if all(name.lower() != REQUEST_ID_HEADER for name, _ in headers):
        message["headers"] = [*headers, (REQUEST_ID_HEADER, request_id(scope).encode())]
