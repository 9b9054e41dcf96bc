"""What the calls on edits share: path and header parameters, who does it and why, replies with an ETag."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from serac_gateway.auth.principals import Principal
from serac_gateway.domain.edits import Deed, Edit, EditState
from serac_gateway.editing import Written
from serac_gateway.http.effect_schemas import EditReply, edit_reply
from serac_gateway.http.entity_tags import entity_tag
from serac_gateway.stores.errors import purged_edit
from serac_gateway.stores.ports import Verification
from serac_gateway.verifying import Verified

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


Verify = Annotated[
    bool,
    QueryParameter(
        description="Ask the edit's own prompt and paraphrases the whole way before the reply, and tell how"
        " that went as `verified`; the edit stands either way"
    ),
]


def deed_of(principal: Principal, author: str | None, reason: str | None) -> Deed:
    """Who does it and why. The author is the API key's where one was sent, whatever the request says."""
    return Deed(author=principal.author or author, reason=reason)


def edit_response(
    edit: Edit,
    written: Written | None = None,
    *,
    verification: Verification | msgspec.UnsetType | None = msgspec.UNSET,
    verified: Verified | None = None,
    status: int = 200,
    location: bool = False,
) -> Response[EditReply]:
    """The edit with its version as ETag; if it was just `written`, with what it contradicts."""
    headers = {"etag": entity_tag(edit)}
    if location:
        headers["location"] = f"/serac/v1/edits/{edit.id}"
    reply = edit_reply(edit, written, verification=verification, verified=verified)
    return Response(reply, status_code=status, headers=headers)


def readable(edit: Edit) -> Edit:
    """The edit itself.

    Raises:
        EditPurgedError: It was purged.
    """
    if edit.state is EditState.PURGED:
        raise purged_edit(edit.id)
    return edit
