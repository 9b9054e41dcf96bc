"""A request body and its decoded forms."""

from __future__ import annotations

from email.message import Message
from typing import Any

import msgspec

from serac_gateway.data_plane.encodings import codings_of, decoded
from serac_gateway.data_plane.lenient_json import (
    UNDECODABLE,
    Reading,
    as_strict_json,
    check_size,
    may_have_many_members,
    read_json,
)
from serac_gateway.data_plane.protocols.base import Members
from serac_gateway.errors import UnreadableError, UnsupportedCharacterSetError

_CHARSETS = frozenset(
    {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1", "windows-1252"}
)
"""Those in which JSON's own signs look as in UTF-8."""
_LONG_MEMBER_BYTES = 65_536
_MEMBERS_BYTES = 1_048_576
"""Once those before are longer together, a short member counts as a long one."""


class BodyForm(msgspec.Struct, frozen=True, kw_only=True):
    """What the head of a request says about its body."""

    content_encoding: str = ""
    """All headers of that name, joined with commas."""
    content_type: str = ""
    path_model: str | None = None
    """The model that the path names."""
    max_decoded_bytes: int = 64_000_000

    def rewritten(self) -> BodyForm:
        """That of a body which the gateway wrote in the client's place: JSON in UTF-8."""
        return BodyForm(path_model=self.path_model, max_decoded_bytes=self.max_decoded_bytes)


_PLAIN = BodyForm()


class RequestBody:
    """A whole request body, which is passed on byte for byte unless it has to be rewritten.

    `read` decodes it for a decision. `members` splits it for a rewriting, at most once; they refer to the
    body's own bytes, so a long stream holds no decoded objects.
    """

    def __init__(self, data: bytes, members: Members | None = None, *, form: BodyForm = _PLAIN) -> None:
        """Give `members` if they are known: those of the top-level object of `data`."""
        self.data = data
        self.form = form
        self._members = members

    @classmethod
    def of_members(cls, members: Members, *, form: BodyForm = _PLAIN) -> RequestBody:
        """The body of the JSON object with these members, in their order, in place of one of that `form`."""
        return cls(msgspec.json.encode(members), members, form=form.rewritten())

    def read(self, wanted: frozenset[str] | None = None) -> Reading:
        """The body as Python objects, for worker threads: a long one takes milliseconds.

        With `wanted` the long members of other names are left out, and nothing is told of overridden ones.

        Raises:
            UnreadableError: Its encoding, character set or JSON cannot be read, or it is too long.
        """
        charset = _charset(self.form.content_type)
        if charset is not None and charset not in _CHARSETS:
            raise UnsupportedCharacterSetError(
                f"Content-Type names the character set {charset[:40]!r}; send JSON in UTF-8",
                field="content-type",
                details={"reason": "character set", "value": charset[:40]},
            )
        if not codings_of(self.form.content_encoding):
            return _read(self.data, wanted)
        return self._read_coded(wanted)

    @property
    def members(self) -> Members:
        """The members of the top-level object, each as the client wrote it. Not to be changed.

        Raises:
            UNDECODABLE: It is no JSON object.
        """
        if self._members is None:
            self._members = msgspec.json.decode(self.data, type=Members)
        return self._members

    def strict_members(self) -> Members:
        """`members`; of a body that is encoded or no strict JSON, its value as strict JSON.

        Raises:
            UnreadableError: See `read`.
            UNDECODABLE: It is no JSON object, or a member is nested too deeply.
        """
        try:
            return {name: _checked(raw) for name, raw in self.members.items()}
        except UNDECODABLE:
            value = msgspec.convert(self.read().value, dict[str, Any])
            return {name: msgspec.Raw(as_strict_json(member)) for name, member in value.items()}

    def _read_coded(self, wanted: frozenset[str] | None) -> Reading:
        """A server may decode a body as its header says, or ignore the header: both have to be one text."""
        try:
            undecoded = _read(self.data, wanted) if self.data.lstrip()[:1] == b"{" else None
        except UnreadableError:
            undecoded = None
        try:
            reading = _read(
                decoded(self.data, self.form.content_encoding, self.form.max_decoded_bytes), wanted
            )
        except UnreadableError:
            if undecoded is None:
                raise
            return undecoded
        if undecoded is not None:
            raise UnreadableError(
                f"the body is JSON both as it is and with its Content-Encoding"
                f" {self.form.content_encoding[:40]!r} decoded; leave the header out",
                field="content-encoding",
                details={"reason": "compressed body"},
            )
        return reading


def _read(data: bytes, wanted: frozenset[str] | None) -> Reading:
    if wanted is None:
        return read_json(data)
    if may_have_many_members(data):
        check_size(data)
    try:
        members = msgspec.json.decode(data, type=Members)
        value: dict[str, object] = {}
        size = 0
        for name, raw in members.items():
            length = memoryview(raw).nbytes
            size += length
            if length > _LONG_MEMBER_BYTES or size > _MEMBERS_BYTES:
                if name not in wanted:
                    continue
                check_size(bytes(raw))
            value[name] = msgspec.json.decode(raw)
    except UNDECODABLE:
        return read_json(data)
    return Reading(value=value)


def _checked(raw: msgspec.Raw) -> msgspec.Raw:
    """`raw`, which is strict JSON: what is skipped while a body is split is not looked at closely."""
    msgspec.json.decode(raw)
    return raw


def _charset(content_type: str) -> str | None:
    if "charset" not in content_type.lower():
        return None
    message = Message()
    message["content-type"] = content_type
    charset = message.get_param("charset")
    return charset.strip().lower() if isinstance(charset, str) else ""
