"""For whom an edit holds: labels of requests, and the values of them that an edit names.

A label has a name, such as "region", and a request has at most one value of it, such as "eu". An edit's
audience names labels with the values allowed: all its labels must fit, each with any of its values. An edit
without audience holds for every request. A request without a label is in no audience that names the label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from serac_gateway.errors import InvalidRequestError

MAX_LABELS = 8
"""Of one audience."""
MAX_VALUES = 64
"""Of one label in one audience."""
LABEL_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"
VALUE_PATTERN = r"^[a-z0-9][a-z0-9._:-]{0,63}$"
_LABEL = re.compile(LABEL_PATTERN.strip("^$"))
_VALUE = re.compile(VALUE_PATTERN.strip("^$"))
_MAX_QUOTED = 80

Audience = dict[str, tuple[str, ...]]
"""Allowed values by label, both sorted; empty: everybody."""
Labels = Mapping[str, str]
"""The labels of one request."""

NO_LABELS: Labels = {}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a decision is made for."""

    name: str | None = None
    """A stable name of the user or sender, by which canaries go; None: nobody knows."""
    labels: dict[str, str] = {}


UNKNOWN_CALLER = Caller()
"""In no canary and in no audience but everybody's."""


def label_value(text: str) -> str | None:
    """The value that `text` writes, in small letters, without white space around; None: it is no value.

    A value is 1-64 letters a-z, digits, ``.``, ``_``, ``:`` and ``-``, the first a letter or digit.
    """
    # Before lower(): the Kelvin sign, and a capital I with a dot, would become letters of ASCII.
    value = text.strip(" \t\r\n").lower() if len(text) <= 4 * _MAX_QUOTED and text.isascii() else ""
    return value if _VALUE.fullmatch(value) else None


def is_label(text: str) -> bool:
    """Whether it is 1-32 characters of a-z, 0-9, ``_`` and ``-``, the first a letter."""
    return _LABEL.fullmatch(text) is not None


def checked_audience(audience: Mapping[str, Sequence[str]]) -> Audience:
    """`audience` as it is stored: in small letters, each value once, all sorted.

    Raises:
        InvalidRequestError: A label or value is none, a label has no value, or there are too many.
    """
    if len(audience) > MAX_LABELS:
        raise _refused("audience", len(audience), f"at most {MAX_LABELS} labels")
    checked: Audience = {}
    for name in sorted(audience):
        label, values = name.strip(" \t").lower(), audience[name]
        field = f"audience.{name[:_MAX_QUOTED]}"
        if not name.isascii() or not is_label(label) or label in checked:
            allowed = "1 to 32 characters of a-z, 0-9, _ and -, the first a letter; each label once"
            raise _refused("audience", name[:_MAX_QUOTED], allowed)
        if not 1 <= len(values) <= MAX_VALUES:
            raise _refused(field, len(values), f"1 to {MAX_VALUES} values, or leave the label out")
        checked[label] = tuple(sorted({_checked_value(field, value) for value in values}))
    return dict(sorted(checked.items()))


def holds_for(audience: Audience, labels: Labels) -> bool:
    """Whether a request with `labels` is in the audience."""
    return not audience or all(labels.get(label) in values for label, values in audience.items())


def may_meet(audience: Audience, other: Audience) -> bool:
    """Whether a request can be in both audiences: no label that both name has different values in each."""
    return all(
        not set(values).isdisjoint(other[label]) for label, values in audience.items() if label in other
    )


def lies_within(audience: Audience, other: Audience) -> bool:
    """Whether every request in `audience` is in `other`."""
    return all(label in audience and set(audience[label]) <= set(values) for label, values in other.items())


def labels_within(audience: Audience) -> dict[str, str]:
    """The labels of a request in the audience: of each label the first value."""
    return {label: values[0] for label, values in audience.items()}


def specificity(audience: Audience) -> tuple[int, int]:
    """Sort key of audiences that hold for one request: the more specific one comes later.

    The one with more labels, of as many labels the one with fewer values. So an audience that lies within
    another one comes after it.
    """
    return len(audience), -sum(len(values) for values in audience.values())


def audience_text(audience: Mapping[str, Sequence[str]]) -> str:
    """The audience on one line, as the command line takes it: "region=eu,uk tenant=acme"; "" of everybody."""
    return " ".join(f"{label}={','.join(values)}" for label, values in audience.items())


def audience_of_texts(texts: Iterable[str]) -> Audience:
    """The audience that texts like "region=eu,uk" write; a label in several of them has the values of all.

    Raises:
        InvalidRequestError: One has no "=", or what it names is no label or value.
    """
    named: dict[str, tuple[str, ...]] = {}
    for text in texts:
        label, separator, values = text.partition("=")
        if not separator or not label.strip() or not values.strip():
            raise _refused(
                "audience", text[:_MAX_QUOTED], "LABEL=VALUE or LABEL=VALUE,VALUE, as in region=eu,uk"
            )
        label = label.strip().lower()
        named[label] = (*named.get(label, ()), *values.split(","))
    return checked_audience(named)


def _checked_value(field: str, text: str) -> str:
    value = label_value(text)
    if value is None:
        allowed = "1 to 64 letters a-z, digits, ., _, : and -, the first a letter or digit"
        raise _refused(field, text[:_MAX_QUOTED], allowed)
    return value


def _refused(field: str, value: object, allowed: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field} {value!r} is not allowed; give {allowed}", field=field, details={"value": value}
    )
