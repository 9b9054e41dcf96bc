"""Reports on requests, beside the edits.

A capped stream of each namespace and not its log: the log is the chained history of edits, of which nothing
may be missing, while reports come from any client, in any number, and must be deletable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import check_namespace
from serac_gateway.domain.feedback import Feedback
from serac_gateway.stores.ports import FeedbackStore
from serac_gateway.stores.redis.connection import RedisConnection

_FIELD = "report"
_PAGE = 500


class RedisFeedbackStore(FeedbackStore):
    """A stream for each namespace.

    A report may be sent twice, when its connection was closed meanwhile: the last one on a request holds.
    """

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection

    @override
    async def add(self, namespace: str, feedback: Feedback, *, max_reports: int) -> None:
        report = msgspec.json.encode(feedback)
        await self._connection.write(
            "XADD", _key(namespace), "MAXLEN", max_reports, "*", _FIELD, report, repeatable=True
        )

    @override
    async def all(self, namespace: str) -> AsyncIterator[Feedback]:
        key, after = _key(namespace), "-"
        while entries := await self._connection.read("XRANGE", key, after, "+", "COUNT", _PAGE):
            for _, fields in entries:
                try:
                    report = msgspec.json.decode(fields[_FIELD.encode()], type=Feedback)
                except (ValueError, KeyError):
                    continue  # a damaged one is one report less
                yield report
            after = f"({entries[-1][0].decode()}"

    @override
    async def clear(self, namespace: str) -> int:
        key = _key(namespace)
        count, _ = await self._connection.write_all([("XLEN", key), ("DEL", key)], repeatable=True)
        return int(count)


def _key(namespace: str) -> str:
    return f"serac:{{{check_namespace(namespace)}}}:feedback"
