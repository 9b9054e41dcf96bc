"""Parameters, attribution and replies with an ETag, as the calls on edits share them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, cast

import msgspec
from litestar import Request, Response
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, PathParameter, QueryParameter, SkipValidation

from serac_gateway.auth.principals import Principal, requested_namespace
from serac_gateway.control_plane.http.etags import entity_tag
from serac_gateway.control_plane.http.guards import Sender
from serac_gateway.control_plane.http.problems import PROBLEM_MEDIA_TYPE
from serac_gateway.control_plane.http.schemas import (
    MAX_PAGE,
    EditReply,
    EditWarning,
    Problem,
    edit_reply,
)
from serac_gateway.control_plane.verification import Verified
from serac_gateway.control_plane.writer import Written
from serac_gateway.domain.edits import MAX_PROMPT_CHARS, Attribution, Edit, EditKind, EditState
from serac_gateway.domain.headers import Headers
from serac_gateway.domain.provenance import MAX_NOTE_CHARS
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.ports import Verification

ETAG = ResponseHeader(
    name="etag", description='The version in quotes: `"3"`', documentation_only=True, required=True
)  # fmt: skip

EditId = Annotated[
    str,
    PathParameter(
        description="1 to 64 letters, digits, _ and -",
        schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
    ),
]
IfMatch = Annotated[
    str | None,
    HeaderParameter(name="if-match", description="The ETag of the version that the change builds on, or `*`"),
]


IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="idempotency-key",
        description="1 to 255 visible ASCII characters",
        schema_extra={"pattern": r"^[\x21-\x7e]{1,255}$"},
    ),
]
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Verify = Annotated[
    bool,
    QueryParameter(
        description="Send the edit's own prompt and paraphrases through router and model before the reply,"
        " and report the result as `verified`; the edit stands either way"
    ),
]


def checked_idempotency_key(key: str | None) -> str | None:
    """`key` itself.

    Raises:
        InvalidRequestError: It is given and cannot be one.
    """
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequestError(
            f"idempotency-key {key[:80]!r} is not allowed; use 1 to 255 visible ASCII characters",
            field="idempotency-key",
            details={"value": key[:80], "limit": 255},
        )
    return key


def attribution_of(
    principal: Principal, author: str | None, reason: str | None, ticket: str | None = None
) -> Attribution:
    """Who does it and why. The author is the API key's where one was sent, whatever the request says."""
    return Attribution(author=principal.author or author, reason=reason, ticket=ticket)


def edit_response(
    edit: Edit,
    written: Written | None = None,
    *,
    warnings: Sequence[EditWarning] = (),
    verification: Verification | msgspec.UnsetType | None = msgspec.UNSET,
    verified: Verified | None = None,
    status: int = 200,
    location: bool = False,
) -> Response[EditReply]:
    """The edit with its version as ETag; if it was just `written`, with what it contradicts and may lack."""
    headers = {"etag": entity_tag(edit)}
    if location:
        headers["location"] = f"/serac/v1/edits/{edit.id}"
    reply = edit_reply(edit, written, warnings=warnings, verification=verification, verified=verified)
    return Response(reply, status_code=status, headers=headers)


_DESCRIPTIONS = {
    400: "Something in the request is not valid; the problem names field, value and limit",
    401: "An API key is demanded, or the one sent is not valid",
    403: "The API key's role or namespaces do not allow this, or the request comes from a web page that may"
    " not call the gateway, or is for a host that is not the gateway's",
    404: "There is nothing of this id",
    409: "An edit of this id exists, the state of the edit or of the proposal does not allow this, the"
    " namespace refuses what it contradicts or demands the agreement of others, or the changed configuration"
    " cannot be used",
    410: "The edit was purged",
    412: "If-Match names a version that is not current, or others wrote meanwhile",
    413: "The body is too large",
    415: "The body's content type is not the one that the call takes",
    422: "The Idempotency-Key was used with another body",
    428: "If-Match is missing",
    429: "The API key's requests of this minute are spent",
    503: "The store or a model is unavailable, or the gateway is still loading; try again",
}


_ANYWHERE = (401, 403, 415, 429)
"""Every call is behind the same gate (see authentication.py)."""


def provide_namespace(
    request: Request[Any, Any, Any],
    principal: Sender,
    header: Annotated[
        str | None,
        HeaderParameter(
            name="x-serac-namespace",
            description="Keeps tenants apart: 1 to 63 characters of a-z, 0-9, _ and -. Without it, the API"
            " key's own namespace, or `default`",
            # Documented only: Principal.namespace explains a refusal better than a regex does.
            schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        ),
    ] = None,
) -> str:
    """The namespace of the request.

    Raises:
        InvalidRequestError: The header holds no allowed name, comes twice, or is missing where the key has
            several.
        PermissionDeniedError: The namespace is not the key's.
    """
    return principal.namespace(requested_namespace(cast("Headers", request.scope["headers"])))


Namespace = NamedDependency[SkipValidation[str]]
"""Annotates the handlers' parameter `namespace`."""

PageLimit = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="How many to return at most")]


TextFilter = Annotated[
    str | None,
    QueryParameter(
        description="Text that stands in prompt, answers, subject, an alias or a paraphrase",
        min_length=1,
        max_length=MAX_PROMPT_CHARS,
    ),
]
StateFilter = Annotated[
    EditState | None, QueryParameter(name="state", description="Only edits in this state")
]
KindFilter = Annotated[EditKind | None, QueryParameter(description="Only edits of this kind")]
AuthorFilter = Annotated[
    str | None,
    QueryParameter(
        description="Text that stands in the author of the current version",
        min_length=1,
        max_length=MAX_NOTE_CHARS,
    ),
]
AudienceFilter = Annotated[
    str | None,
    QueryParameter(
        description="Only edits for an audience of this LABEL=VALUE; of all, if several come with"
        " spaces between"
    ),
]


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """OpenAPI's description of the problems that a handler may answer with."""
    return {
        status: ResponseSpec(
            data_container=Problem,
            description=_DESCRIPTIONS[status],
            media_type=PROBLEM_MEDIA_TYPE,
            generate_examples=False,
        )
        for status in sorted({*statuses, *_ANYWHERE})
    }
