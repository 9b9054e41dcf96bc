"""Which requests the gateway sends with its own key of an upstream.

Behind that key stands the operator's whole account: files, batches, fine-tuned models, stored responses and
the administration of all tenants together. So clients reach what inference needs, and more only where
`upstream.allowed_paths` says so for their role. Of a body for an allowed path, references to what the account
stores are refused to keys that are bound to namespaces, as another tenant may have stored it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from typing_extensions import override

from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role
from serac_gateway.config.model import AllowedPaths
from serac_gateway.data_plane.paths import classified_path, normal_path
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.whole_body import decoded_body, with_whole_body
from serac_gateway.errors import PermissionDeniedError

_INFERENCE = """
POST /chat/completions
POST /completions
POST /responses
POST /responses/compact
POST /responses/input_tokens
POST /messages
POST /messages/count_tokens
POST /complete
POST /embeddings
POST /moderations
POST /audio/speech
POST /audio/transcriptions
POST /audio/translations
POST /images/generations
POST /images/edits
POST /images/variations
POST /rerank
POST /score
POST /classify
POST /pooling
POST /tokenize
POST /detokenize
GET /models
GET /models/**
"""
"""What every role may send, below /v1 and below /deployments/MODEL and /engines/MODEL."""

_DEPLOYMENT = re.compile(r"/(?:deployments|engines)/[^/]+(?=/)", re.IGNORECASE)
_UPLOADS = ("/audio/", "/images/")
_LONG_BODY_BYTES = 65_536
"""A longer body is searched on another thread."""

_ESCAPED_ASCII = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")
_REFERENCE = re.compile(
    rb"""
    "(?P<member>previous_response_id|file_ids?|vector_store_ids?|container_id)"\s*:\s*(?:\[\s*)?"[^"]
    | "(?:conversation|container)"\s*:\s*"(?P<holder>conv_|cntr_|container_)
    | "id"\s*:\s*"(?P<id>conv_|pmpt_|cntr_|container_|audio_|vs_|file[-_])
    | "type"\s*:\s*"(?P<type>item_reference)"
    | (?P<alone>\{\s*(?:"type"\s*:\s*null\s*,\s*)?"id"\s*:\s*"[^"]{0,512}"\s*(?:,\s*"type"\s*:\s*null\s*)?\})
    """,
    re.VERBOSE,
)
"""A member that names what is stored, an id or a type of it, or an object with nothing but an id, which an
input item may be. The text of a string does not match: its quotes are escaped."""
_SPACES = re.compile(rb"[ \t\r\n]{2,}")
_STEP_BYTES = 262_144
_LONGEST_MATCH_BYTES = 1_024
"""Of `_REFERENCE`, where white space is single."""


class AllowedRequests(Upstream):
    """An upstream that is sent no request but those allowed."""

    def __init__(self, upstream: Upstream, allowed: AllowedPaths, *, key: str) -> None:
        """Take over `upstream`; `key` is that of `allowed` in the configuration."""
        self._upstream = upstream
        self._key = key
        self._patterns = {
            Role.CHAT: _compiled([*_INFERENCE.strip().splitlines(), *allowed.chat]),
            Role.EDIT: _compiled(allowed.edit),
            Role.APPROVE: _compiled(allowed.approve),
            Role.ADMIN: _compiled(allowed.admin),
        }

    @override
    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """See `Upstream.send`.

        Raises:
            PermissionDeniedError: The sender may not send this; see the module.
            UnreadableError: The body is too long to be searched for references, or in no encoding known here.
        """
        role = Role.ADMIN if request.sender is None else request.sender.role
        path = normal_path(request.target.partition(b"?")[0])
        if not self._allows(role, request.method, path):
            raise PermissionDeniedError(
                f"with this gateway's own upstream key, {request.method} /v1{path[:200]} is not for API keys"
                f" of role {role.value!r}; an operator can allow it:"
                f' {self._key}.{role.value} = ["{request.method} {path[:200]}"]',
                field="path",
                details={"value": path[:200], "reason": "path not allowed"},
            )
        if _is_bound(request.sender) and request.method == "POST" and not _is_upload(request, path):
            request, body = await with_whole_body(request)
            await self._check_references(role, await decoded_body(request, body))
        async with self._upstream.send(request) as response:
            yield response

    @override
    async def close(self) -> None:
        await self._upstream.close()

    def _allows(self, role: Role, method: str, path: str) -> bool:
        if method == "POST" and classified_path(path.encode("latin-1")).endpoint is not None:
            return True
        method = "GET" if method == "HEAD" else method
        line = f"{method} {_DEPLOYMENT.sub('', path, count=1)}"
        return any(
            pattern.fullmatch(line)
            for granted, patterns in self._patterns.items()
            if role.allows(granted)
            for pattern in patterns
        )

    async def _check_references(self, role: Role, body: bytes) -> None:
        if len(body) > _LONG_BODY_BYTES:
            reference = await asyncio.to_thread(stored_reference, body)
        else:
            reference = stored_reference(body)
        if reference is None or self._allows(role, "GET", _path_of(reference)):
            return
        raise PermissionDeniedError(
            f"{reference!r} refers to what the upstream account stores, and with this gateway's own"
            " upstream key it may be another tenant's; send the content itself, or have an operator allow it:"
            f' {self._key}.{role.value} = ["GET {_path_of(reference)}"]',
            field=reference,
            details={"value": reference, "reason": "stored elsewhere"},
        )


def stored_reference(body: bytes) -> str | None:
    """The member, or the beginning of the id, by which a JSON body refers to what the upstream stores.

    None if it does not. Takes linear time, and builds no objects from the body.
    """
    encoding = json.detect_encoding(body)
    if not encoding.startswith("utf-8"):
        body = body.decode(encoding, "replace").encode()
    tail = b""
    for start in range(0, len(body), _STEP_BYTES):  # a pattern holds the interpreter until it is through
        piece = tail + body[start : start + _STEP_BYTES]
        if b"\\u00" in piece:
            piece = _ESCAPED_ASCII.sub(lambda escape: bytes([int(escape[1], 16)]), piece)
        piece = _SPACES.sub(b" ", piece)
        match = _REFERENCE.search(piece)
        if match is not None:
            return next((text.decode() for text in match.groups()[:-1] if text is not None), "id")
        tail = piece[-_LONGEST_MATCH_BYTES:]
    return None


_STORED_AT = (
    (("previous_response_id", "item_reference", "id"), "/responses/*"),
    (("conv_",), "/conversations/*"),
    (("file",), "/files/*"),
    (("vector_store", "vs_"), "/vector_stores/*"),
    (("container", "cntr_"), "/containers/*"),
    (("pmpt_",), "/prompts/*"),
    (("audio_",), "/audio/*"),
)


def _path_of(reference: str) -> str:
    """The path below which the upstream serves what `reference` refers to."""
    return next(path for prefixes, path in _STORED_AT if reference.startswith(prefixes))


def _is_bound(sender: Principal | None) -> bool:
    return sender is not None and EVERY_NAMESPACE not in sender.namespaces


def _is_upload(request: UpstreamRequest, path: str) -> bool:
    """Whether it is a form with a recording or a picture: such a form refers to nothing that is stored."""
    return path.startswith(_UPLOADS) and any(
        name == b"content-type" and value.lower().startswith(b"multipart/") for name, value in request.headers
    )


def _compiled(lines: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(_pattern(line) for line in lines)


def _pattern(line: str) -> re.Pattern[str]:
    """A line "METHOD /path" as a pattern: `*` stands for a method or a segment, `**` for any rest."""
    method, _, path = line.partition(" ")
    words = "[A-Z]+" if method == "*" else re.escape(method)
    pattern = "".join(
        {"**": ".+", "*": "[^/]+"}.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", path)
    )
    return re.compile(f"{words} {pattern}", re.IGNORECASE)
