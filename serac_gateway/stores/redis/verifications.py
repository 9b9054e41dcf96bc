"""The last verification of each edit, beside the edits. It is about a version and is none itself.

What is kept says nothing of an edit's content and repeats no answer, so a purge has nothing to delete here.
"""

from __future__ import annotations

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import check_edit_id, check_namespace
from serac_gateway.stores.ports import Verification, VerificationStore
from serac_gateway.stores.redis.connection import RedisConnection


class RedisVerificationStore(VerificationStore):
    """A hash for each namespace: edit id to the JSON of its last verification."""

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection

    @override
    async def put(self, namespace: str, verification: Verification) -> None:
        edit_id = check_edit_id(verification.edit_id)
        await self._connection.write(
            "HSET", _key(namespace), edit_id, msgspec.json.encode(verification), repeatable=True
        )

    @override
    async def get(self, namespace: str, edit_id: str) -> Verification | None:
        record = await self._connection.read("HGET", _key(namespace), check_edit_id(edit_id))
        return None if record is None else msgspec.json.decode(record, type=Verification)


def _key(namespace: str) -> str:
    return f"serac:{{{check_namespace(namespace)}}}:verifications"
