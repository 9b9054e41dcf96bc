"""The id by which a client, our log and the upstream's log speak of one request."""

from __future__ import annotations

import re
import secrets

from litestar.types import Message, Scope

REQUEST_ID_HEADER = b"x-request-id"
_ACCEPTABLE = re.compile(rb"[\x21-\x7e]{1,128}")
_STATE_KEY = "serac_request_id"


def request_id(scope: Scope) -> str:
    """The client's x-request-id if it is 1-128 visible ASCII characters, else a new one; always the same."""
    state = scope["state"]
    known = state.get(_STATE_KEY)
    if known is None:
        sent = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER), b"")
        known = sent.decode() if _ACCEPTABLE.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        state[_STATE_KEY] = known
    return str(known)


async def add_request_id(message: Message, scope: Scope) -> None:
    """A `before_send` hook of Litestar: put x-request-id on every response that has none yet."""
    if message["type"] != "http.response.start":
        return
    headers = list(message["headers"])
    if all(name.lower() != REQUEST_ID_HEADER for name, _ in headers):
        message["headers"] = [*headers, (REQUEST_ID_HEADER, request_id(scope).encode())]
