"""A request body and its decoded forms."""

from __future__ import annotations

import msgspec

from serac_gateway.data_plane.protocols.base import Members

UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""The errors of decoding a body that is no JSON, or not the JSON that is expected."""


class RequestBody:
    """A whole request body, which is passed on byte for byte unless it has to be rewritten.

    It is decoded once, by `decode`, and split into members at most once. Only the members are kept, which
    refer to the body's own bytes: a long stream holds no decoded objects.
    """

    def __init__(self, data: bytes, members: Members | None = None) -> None:
        """Give `members` if they are known: those of the top-level object of `data`."""
        self.data = data
        self._members = members

    @classmethod
    def of_members(cls, members: Members) -> RequestBody:
        """The body of the JSON object with these members, in their order."""
        return cls(msgspec.json.encode(members), members)

    def decode(self) -> object:
        """The body as Python objects, for worker threads: a long one takes milliseconds.

        Raises:
            UNDECODABLE: It is no JSON.
        """
        return msgspec.json.decode(self.data)

    @property
    def members(self) -> Members:
        """The members of the top-level object, each as the client wrote it. Not to be changed.

        Raises:
            UNDECODABLE: It is no JSON object.
        """
        if self._members is None:
            self._members = msgspec.json.decode(self.data, type=Members)
        return self._members
