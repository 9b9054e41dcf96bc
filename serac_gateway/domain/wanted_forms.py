"""The form in which a request wants its answer: what of it was read, by whatever reads it. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FormKind(StrEnum):
    """A form that a request asks for in words."""

    JSON = "json"
    XML = "xml"
    YAML = "yaml"
    CSV = "csv"
    BULLET = "bullet"
    QUOTES = "quotes"
    UPPER = "upper"
    LOWER = "lower"
    BARE = "bare"
    """The value alone: in a word, without an explanation, as short as possible."""
    SENTENCE = "sentence"
    YES_NO = "yesno"
    BEGIN = "begin"
    """It begins with words that the request gives."""
    LANGUAGE = "language"
    OTHER = "other"
    """What a value cannot be put into: a table, code, a long text, an explanation."""


STRUCTURES = frozenset({FormKind.JSON, FormKind.XML, FormKind.YAML, FormKind.CSV})
"""Those with a key."""


class WantedForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a request wants its answer."""

    kinds: tuple[FormKind, ...] = ()
    """Without repetition; empty: it says nothing of the form."""
    key: str | None = None
    """The name of the member, element or column that a structure is to have; None: it names none."""
    beginning: str | None = None
    """The words that FormKind.BEGIN wants."""
    marks: tuple[str, str] = ('"', '"')
    """The quotation marks that FormKind.QUOTES wants, the opening one first."""
    bullet: str = "-"
    """What FormKind.BULLET wants before the answer."""
    language: str | None = None
    """An ISO 639 code: the language asked for, else that of the request; None: it is not known."""
    question: str | None = None
    """The message without what it says of the form; None: the message has nothing to be left out."""
    falls_back: bool = True
    """Whether an answer that cannot be given in this form is given as it is; else it is left to the base
    model."""

    @property
    def is_plain(self) -> bool:
        """Whether an answer of any form will do."""
        return not self.kinds


PLAIN = WantedForm()
