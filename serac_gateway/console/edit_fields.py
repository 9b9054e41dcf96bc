"""The fields of an edit as a form has them, read off the record itself: a field that is added there is here.

A form holds texts. `field_text` makes the text of a value and `field_value` the value of a text; a field that
nobody touched has the text that it was rendered with, so it is no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.provenance import OF_ONE_VERSION

LONG_TEXTS = ("prompt", "target_new", "reason")
FIRST = ("prompt", "target_new", "reason")
"""In a form these come first, in this order; what is left is optional."""
_LATER_ORDER = ("kind", "subject", "aliases", "paraphrases", "target_true", "state", "canary_share")
_NOT_TYPED = ("id", "author")
OF_THIS_CHANGE = tuple(name for name in OF_ONE_VERSION if name not in _NOT_TYPED)
"""What is said of each change anew: a form begins without it."""
_NOT_CONTENT = frozenset(
    {
        *("id", "namespace", "version", "state", "created_at", *OF_ONE_VERSION, "in_force"),
        *("conflicts", "warnings", "verification", "verified"),
    }
)
"""What the API says of a version beside its content."""


class FormField(msgspec.Struct, frozen=True, kw_only=True):
    """One field of the form."""

    name: str
    kind: str
    """``text``, ``long``, ``lines``, ``choice``, ``number``, ``moment``, ``day``, ``labels`` or ``json``."""
    required: bool
    choices: tuple[str, ...] = ()
    """Of a choice: what can be chosen, the default first."""


@cache
def form_fields_of_edit() -> tuple[FormField, ...]:
    """All fields that an editor types, those that come first in front."""
    info = msgspec.inspect.type_info(EditDraft)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = {member.name: _form_field(member) for member in info.fields if member.name not in _NOT_TYPED}
    order = [*FIRST, *_LATER_ORDER, *fields]
    return tuple(fields[name] for name in dict.fromkeys(order) if name in fields)


def content_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an edit as the API gives it says: the fields that hold something, without who, when and which."""
    return {
        name: value
        for name, value in record.items()
        if name not in _NOT_CONTENT and value is not None and value not in ([], {}, "")
    }


def record_texts(record: Mapping[str, Any]) -> dict[str, str]:
    """The text of every field of the form, of an edit as the API gives it."""
    return {field.name: field_text(field, record.get(field.name)) for field in form_fields_of_edit()}


def typed_texts(fields: Mapping[str, str]) -> dict[str, str]:
    """The same of a form that was sent; a field that it lacks is empty."""
    return {field.name: fields.get(field.name, "") for field in form_fields_of_edit()}


def draft_body(texts: Mapping[str, str]) -> dict[str, object]:
    """The body that adds an edit of these texts; of the empty fields only those that are required."""
    body = {}
    for field in form_fields_of_edit():
        text = texts.get(field.name, "")
        if text.strip() or field.required:
            body[field.name] = field_value(field, text)
    return body


def patch_body(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, object]:
    """The body that changes an edit: the fields whose texts differ. An emptied optional field is cleared."""
    body: dict[str, object] = {}
    for field in form_fields_of_edit():
        if field.name in OF_THIS_CHANGE:
            if after[field.name].strip():
                body[field.name] = after[field.name]
        elif before[field.name] != after[field.name]:
            body[field.name] = field_value(field, after[field.name])
    return body


def field_text(field: FormField, value: Any) -> str:  # noqa: ANN401 - decoded JSON
    """The text under which `value` stands in the form."""
    if value is None:
        return field.choices[0] if field.choices and field.required else ""
    if field.kind == "lines":
        return "\n".join(str(item) for item in value)
    if field.kind == "moment":
        return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if field.kind == "labels":
        return audience_text(value)
    if field.kind == "json":
        return msgspec.json.encode(value).decode() if value not in ([], {}) else ""
    return str(value)


def field_value(field: FormField, text: str) -> object:
    """The value that the API gets; a text that is none is sent as it is, for the API to refuse."""
    stripped = text.strip()
    if field.kind == "lines":
        return [line.strip() for line in text.split("\n") if line.strip()]
    if not stripped and not field.required:
        return None
    if field.kind == "number":
        try:
            return float(stripped.replace(",", "."))
        except ValueError:
            return stripped
    if field.kind == "moment":
        return stripped if stripped.endswith("Z") or "+" in stripped else f"{stripped}Z"
    if field.kind == "labels":
        pairs = [pair.partition("=") for pair in stripped.split()]
        if len({label for label, _, _ in pairs}) == len(pairs) and all(pair[1] for pair in pairs):
            return {label: values.split(",") for label, _, values in pairs}
        return stripped
    if field.kind == "json":
        try:
            return msgspec.json.decode(stripped)
        except msgspec.DecodeError:
            return stripped
    return text if field.kind in ("text", "long") else stripped


def _form_field(member: msgspec.inspect.Field) -> FormField:
    kinds = member.type.types if isinstance(member.type, msgspec.inspect.UnionType) else (member.type,)
    named = [kind for kind in kinds if not isinstance(kind, msgspec.inspect.NoneType)]
    optional = len(named) < len(kinds)
    choices: tuple[str, ...] = ()
    kind = "json"
    if len(named) == 1:
        kind = _kind(member.name, named[0])
        if isinstance(named[0], msgspec.inspect.EnumType):
            choices = tuple(str(value.value) for value in named[0].cls)
    required = member.required or (kind == "choice" and not optional)
    return FormField(name=member.name, kind=kind, required=required, choices=choices)


def _kind(name: str, kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.StrType):
        return "long" if name in LONG_TEXTS else "text"
    if isinstance(kind, msgspec.inspect.EnumType):
        return "choice"
    if isinstance(kind, msgspec.inspect.FloatType | msgspec.inspect.IntType):
        return "number"
    if isinstance(kind, msgspec.inspect.DateTimeType):
        return "moment"
    if isinstance(kind, msgspec.inspect.DateType):
        return "day"
    if isinstance(kind, msgspec.inspect.DictType):
        return "labels"
    if isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType) and isinstance(
        kind.item_type, msgspec.inspect.StrType
    ):
        return "lines"
    return "json"
