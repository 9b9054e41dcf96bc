"""Two people changed one edit: what the second one is offered instead of an overwrite."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from serac_gateway.console.edit_fields import OF_THIS_CHANGE, form_fields_of_edit


class MergedField(msgspec.Struct, frozen=True, kw_only=True):
    """A field that both, or only the other one, changed."""

    name: str
    before: str
    """Where both began."""
    theirs: str
    """What is stored now."""
    both: bool
    """Whether one has to choose; else their change was taken over."""


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """A three-way merge, field by field."""

    texts: Mapping[str, str]
    """For the form: one's own changes, and theirs where one changed nothing."""
    fields: tuple[MergedField, ...]

    @property
    def in_conflict(self) -> tuple[MergedField, ...]:
        """The fields that both changed differently; the form has one's own text."""
        return tuple(field for field in self.fields if field.both)


def merged(before: Mapping[str, str], mine: Mapping[str, str], theirs: Mapping[str, str]) -> Merge:
    """Merge two changes of one version; what is said of a change is one's own: each version has its own."""
    texts, fields = {}, []
    for field in form_fields_of_edit():
        name = field.name
        texts[name] = mine[name]
        if name in OF_THIS_CHANGE or theirs[name] == before[name] or theirs[name] == mine[name]:
            continue
        both = mine[name] != before[name]
        if not both:
            texts[name] = theirs[name]
        fields.append(MergedField(name=name, before=before[name], theirs=theirs[name], both=both))
    return Merge(texts=texts, fields=tuple(fields))
