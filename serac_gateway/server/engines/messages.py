"""What a gateway and its engine send each other besides the calls of workers (workers/rpc_messages.py)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from serac_gateway.auth.principals import Principal
from serac_gateway.config.model import GatewayConfig
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan
from serac_gateway.server.workers.rpc_messages import (
    AnswerFrame,
    AuthenticateCall,
    DecideCall,
    EarlierTurnsCall,
    GuardedValuesCall,
    GuardedValuesReply,
    RememberResponseCall,
    RemoteError,
    RequestReport,
)

NAMESPACES_PATH = "/namespaces"
"""The reply is an endless stream of `TableFrame`s."""
STATUS_OTHER_PROCESS = 409
"""The call is for another process of the engine, which has been started anew."""

_LONGEST_FRAME = 1_048_576
_GENERATION = "1"
"""Raise it when a message means something else and looks the same."""


class TableFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The table of namespaces (workers/namespace_bitmap.py), a change of it, or a sign of life."""

    version: int
    table: bytes | None = None
    """All of it: the first frame."""
    changes: list[tuple[int, int]] = []
    """Places and values that differ from the frame before."""

    def encode(self) -> bytes:
        """The frame on the wire: its length in four bytes, big-endian, and its MessagePack."""
        data = msgspec.msgpack.encode(self)
        return len(data).to_bytes(4, "big") + data


async def read_table_frame(read_exactly: Callable[[int], Awaitable[bytes]]) -> TableFrame:
    """The next frame of a stream.

    Raises:
        asyncio.IncompleteReadError: The stream has ended.
        msgspec.DecodeError: It is no stream of frames.
    """
    length = int.from_bytes(await read_exactly(4), "big")
    if length > _LONGEST_FRAME:
        raise msgspec.DecodeError(f"a frame of {length} bytes")
    return msgspec.msgpack.decode(await read_exactly(length), type=TableFrame)


@functools.cache
def protocol() -> str:
    """A digest of the form of all messages, the same where both sides read each other's."""
    messages = (
        TableFrame,
        AuthenticateCall,
        Principal,
        DecideCall,
        RequestPlan,
        AnswerTask,
        AnswerFrame,
        GuardedValuesCall,
        GuardedValuesReply,
        RememberResponseCall,
        EarlierTurnsCall,
        RequestReport,
        RemoteError,
    )
    form = msgspec.json.encode(msgspec.json.schema_components(messages), order="sorted")
    return hashlib.sha256(_GENERATION.encode() + form).hexdigest()[:16]


def section_digests(config: GatewayConfig) -> dict[str, str]:
    """Digests of the sections that gateway and engine should have in common, by name."""
    sections = {
        "routing": config.routing_in_force,
        "suppression": config.suppression,
        "server.max_classified_body_bytes": config.server.max_classified_body_bytes,
        # The gateway keeps these tokens from its upstream.
        "oidc": (config.oidc.issuer, config.oidc.audience),
    }
    return {
        name: hashlib.sha256(msgspec.json.encode(section, order="sorted")).hexdigest()[:16]
        for name, section in sections.items()
    }
