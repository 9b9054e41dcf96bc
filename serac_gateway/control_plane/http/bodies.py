"""From JSON bytes to a record, strictly, with errors that name the field and show the value."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.types import Empty

from serac_gateway.domain.body_budget import held_body
from serac_gateway.errors import InvalidRequestError

RecordT = TypeVar("RecordT")

_UNKNOWN_FIELD = re.compile(r"unknown field `(.*?)`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_MAX_QUOTED_CHARS = 80
_MESSAGE_END_CHARS = 300
"""Of a message that quotes a long name from the body, this much of either end is kept."""


MAX_BODY_VALUES = 200_000
"""The most values in a body. To decode so many takes some 50 ms, in which the whole process stands still."""


def decode_body(body: bytes, record: type[RecordT]) -> RecordT:
    """`body` as a `record`.

    Raises:
        InvalidRequestError: It is not JSON, not of that shape, or has more than `MAX_BODY_VALUES` values.
    """
    values = body.count(b",") + body.count(b"[") + body.count(b"{")  # those inside texts count as well
    if values > MAX_BODY_VALUES:
        raise InvalidRequestError(
            f"the body has {values:,} commas and opening brackets; the limit is {MAX_BODY_VALUES:,}; send"
            " several requests",
            field="body",
            details={"value": values, "limit": MAX_BODY_VALUES},
        )
    try:
        return msgspec.json.decode(body, type=record)
    except msgspec.ValidationError as exc:
        raise _shape_error(body, record, str(exc)) from exc
    except (ValueError, RecursionError) as exc:  # msgspec.DecodeError is a ValueError, as is bad UTF-8
        beginning = body[:_MAX_QUOTED_CHARS].decode("utf-8", "replace")
        raise InvalidRequestError(
            f"this is not valid JSON ({exc}); it begins {beginning!r}",
            field="body",
            details={"value": beginning},
        ) from exc


class StrictJsonRequest(Request[Any, Any, Any]):
    """A request whose `data` parameter is decoded by `decode_body`.

    Litestar would decode to plain objects and convert them leniently (the text "5" for an integer), with
    errors that do not show the value.
    """

    async def body(self) -> bytes:
        """The whole body, counted among those that the process keeps.

        Raises:
            BodyMemoryError: They take up too much memory.
        """
        if self._body is Empty and self._connection_state.body is Empty:
            held, chunks = held_body(self.scope), []
            async for chunk in self.stream():
                held.add(len(chunk))
                chunks.append(chunk)
            self._body = self._connection_state.body = b"".join(chunks)
        return await super().body()

    async def json(self) -> Any:  # noqa: ANN401 - the signature is Litestar's
        """The body as what the handler's `data` parameter is annotated with."""
        field = self.route_handler.parsed_data_field
        return decode_body(await self.body(), Any if field is None else field.annotation)


def _shape_error(body: bytes, record: type, message: str) -> InvalidRequestError:
    if len(message) > 2 * _MESSAGE_END_CHARS:
        message = f"{message[:_MESSAGE_END_CHARS]} … {message[-_MESSAGE_END_CHARS:]}"
    what, _, path = message.rpartition(" - at `$")
    what, field = (what, path.removesuffix("`").removeprefix(".")) if what else (message, "")
    if unknown := _UNKNOWN_FIELD.search(message):
        field = f"{field}.{unknown[1]}" if field else unknown[1]
    value = _value_at(body, field)
    details: dict[str, object] = {} if value is None else {"value": value}
    if limit := limit_in(message):
        details["limit"] = limit
    ending = f", here {value!r}" if value is not None and repr(value) not in what else ""
    if allowed := allowed_values(record, field):
        ending += f"; use one of {', '.join(allowed)}"
    return InvalidRequestError(f"{field or 'body'}: {what}{ending}", field=field or "body", details=details)


def _value_at(body: bytes, path: str) -> str | float | None:
    """What stands at "queries[3].text"; long texts cut; None for objects, arrays, and what cannot be read."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # the shape was wrong before the syntax was
        return None
    for name, position in _STEP.findall(path):
        if isinstance(value, dict) and name:
            value = value.get(name)
        elif isinstance(value, list) and position and int(position) < len(value):
            value = value[int(position)]
        else:
            return None
    if isinstance(value, str):
        return value[:_MAX_QUOTED_CHARS]
    return value if isinstance(value, int | float) else None


_LIMIT = re.compile(r"[<>]=? (-?\d+)")


def limit_in(message: str) -> int | None:
    """The limit that a msgspec message names: 5 in "Expected `int` <= 5"; None if it names none."""
    match = _LIMIT.search(message)
    return int(match[1]) if match else None


def allowed_values(annotation: object, field: str | None = None) -> list[str]:
    """The values of an enum, or of the enum `field` of a record; empty for anything else."""
    kind = msgspec.inspect.type_info(annotation)
    if isinstance(kind, msgspec.inspect.StructType):
        types = {member.encode_name: member.type for member in kind.fields}
        kind = types.get(field or "", msgspec.inspect.AnyType())
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return [
        str(member.value)
        for kind in kinds
        if isinstance(kind, msgspec.inspect.EnumType)
        for member in kind.cls
    ]
