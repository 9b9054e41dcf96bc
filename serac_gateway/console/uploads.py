"""Forms that bring a file along, read within bounds."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import UploadFile
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from serac_gateway.console.form_checks import FORM_TYPE
from serac_gateway.domain.body_budget import held_body
from serac_gateway.errors import UnsupportedMediaTypeError

MAX_UPLOAD_BYTES = 16 * 1024 * 1024
"""Of the whole form with its file."""
UPLOAD_TYPE = "multipart/form-data"
TAKES_UPLOADS = "takes_uploads"
"""The key among a route's options by which it takes forms with files."""
_MOST_DRAINED_BYTES = 256 * 1024 * 1024
"""A browser shows a refusal only when it has sent all; so much is read and thrown away for it."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was sent with a form."""

    name: str
    content: bytes


def is_upload(content_type: str) -> bool:
    """Whether a body of that type is a form that may hold files."""
    return content_type.partition(";")[0].strip().lower() == UPLOAD_TYPE


async def read_upload(request: Request[Any, Any, Any]) -> tuple[dict[str, str], Upload | None]:
    """The text fields of the form, line breaks as line feeds, and its file; None: there is none.

    Raises:
        UnsupportedMediaTypeError: The route takes no files.
        RequestEntityTooLarge: The form is larger than `MAX_UPLOAD_BYTES`.
        BodyMemoryError: The bodies of all requests take up too much memory.
    """
    if not request.route_handler.opt.get(TAKES_UPLOADS):
        raise UnsupportedMediaTypeError(
            f"the body's content type is {UPLOAD_TYPE!r}; this page takes {FORM_TYPE}",
            field="content-type",
            details={"value": UPLOAD_TYPE},
        )
    held = held_body(request.scope)
    fields: dict[str, str] = {}
    upload = None
    try:
        form = await request.form()
    except RequestEntityTooLarge as exc:
        await drain(request)
        raise RequestEntityTooLarge(
            detail=f"the file is larger than {MAX_UPLOAD_BYTES // 2**20} MiB; split it, or import it with"
            " `serac edits import FILE`, which takes NDJSON of any size",
        ) from exc
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            held.add(len(content))
            upload = Upload(name=value.filename[:200], content=content)
        else:
            fields[name] = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return fields, upload


async def drain(request: Request[Any, Any, Any]) -> None:
    """Read the rest of the body and keep none of it, up to a bound."""
    drained = 0
    while drained <= _MOST_DRAINED_BYTES:
        message = await request.receive()
        if message["type"] != "http.request" or not message["more_body"]:
            return
        drained += len(message["body"])
