"""The records of canaries in Redis, beside the edits: bounded in number and in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import check_edit_id, check_namespace
from serac_gateway.domain.trials import Arm, Outcome, TrialObservation
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.trials import (
    KEPT_S,
    MAX_ANSWERS,
    MAX_CALLERS,
    MAX_LATENCIES,
    ArmRecord,
    TrialStore,
)

_ADD_CALLERS = """
for _, caller in ipairs(ARGV) do
  if redis.call('SCARD', KEYS[1]) >= %d then break end
  redis.call('SADD', KEYS[1], caller)
end
return redis.call('EXPIRE', KEYS[1], %d)
""" % (MAX_CALLERS, KEPT_S)  # noqa: UP031 - braces are Lua's


_DROP_EXPIRED = """
while true do
  local last = redis.call('LINDEX', KEYS[1], -1)
  if not last then return 0 end
  local read, answer = pcall(cjson.decode, last)
  if read and type(answer) == 'table' and (answer['ends_s'] or 0) > tonumber(ARGV[1]) then return 1 end
  redis.call('RPOP', KEYS[1])
end
"""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    observation: TrialObservation
    ends_s: float
    """When it is over, in seconds since 1970: the list goes on with every answer that is added."""


class RedisTrialStore(TrialStore):
    """Of each version and arm a hash of counts, a set of users' digests and a list of latencies.

    Answers lie in a list of each edit and arm, so that a purge knows where they are. Counts are not sent
    twice: of an outage they lose some requests.
    """

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection
        self._add_callers = connection.script(_ADD_CALLERS)
        self._drop_expired = connection.script(_DROP_EXPIRED)

    @override
    async def add(
        self,
        namespace: str,
        edit_id: str,
        version: int,
        observations: Sequence[TrialObservation],
        *,
        answers_ttl_s: int,
    ) -> None:
        for arm in Arm:
            of_arm = [observation for observation in observations if observation.arm is arm]
            if of_arm:
                await self._add(_prefix(namespace, edit_id), version, arm, of_arm, answers_ttl_s)

    @override
    async def read(self, namespace: str, edit_id: str, version: int) -> dict[Arm, ArmRecord]:
        prefix = _prefix(namespace, edit_id)
        return {arm: await self._record(prefix, version, arm) for arm in Arm}

    @override
    async def forget_answers(self, namespace: str, edit_id: str) -> None:
        keys = [_answers(_prefix(namespace, edit_id), arm) for arm in Arm]
        await self._connection.write("DEL", *keys, repeatable=True)

    async def _add(
        self, prefix: str, version: int, arm: Arm, observations: list[TrialObservation], answers_ttl_s: int
    ) -> None:
        counts, callers, latencies = _keys(prefix, version, arm)
        outcomes = [observation.outcome for observation in observations]
        commands: list[tuple[Word, ...]] = [
            ("HINCRBY", counts, "requests", len(observations)),
            ("HINCRBY", counts, "failed", outcomes.count(Outcome.FAILED)),
            ("HINCRBY", counts, "left", outcomes.count(Outcome.LEFT)),
            ("EXPIRE", counts, KEPT_S),
        ]
        times = [
            f"{observation.total_ms:.1f}"
            for observation in observations
            if observation.outcome is Outcome.ANSWERED
        ]
        if times:
            commands += [
                ("LPUSH", latencies, *times),
                ("LTRIM", latencies, 0, MAX_LATENCIES - 1),
                ("EXPIRE", latencies, KEPT_S),
            ]
        now_s = time.time()
        answers = [
            msgspec.json.encode(
                _Answer(version=version, observation=observation, ends_s=now_s + answers_ttl_s)
            )
            for observation in observations
            if observation.answer is not None
        ]
        if answers:
            key = _answers(prefix, arm)
            commands += [
                ("LPUSH", key, *answers),
                ("LTRIM", key, 0, MAX_ANSWERS - 1),
                ("EXPIRE", key, answers_ttl_s),
            ]
        await self._connection.write_all(commands, repeatable=False)
        if answers:
            expired = self._drop_expired(keys=[_answers(prefix, arm)], args=[f"{now_s:.3f}"])
            await self._connection.run(expired)
        digests = list(dict.fromkeys(observation.caller for observation in observations))
        await self._connection.run(self._add_callers(keys=[callers], args=digests))

    async def _record(self, prefix: str, version: int, arm: Arm) -> ArmRecord:
        counts, callers, latencies = _keys(prefix, version, arm)
        counted, users, times, records = await self._connection.read_all(
            [
                ("HMGET", counts, "requests", "failed", "left"),
                ("SCARD", callers),
                ("LRANGE", latencies, 0, -1),
                ("LRANGE", _answers(prefix, arm), 0, -1),
            ]
        )
        requests, failed, left = (int(count or 0) for count in counted)
        answers = []
        for record in records:
            with contextlib.suppress(ValueError):  # a damaged one is one answer less
                answer = msgspec.json.decode(record, type=_Answer)
                if answer.version == version and answer.ends_s > time.time():
                    answers.append(answer.observation)
        return ArmRecord(
            requests=requests,
            failed=failed,
            left=left,
            callers=users,
            latencies_ms=tuple(float(time) for time in times),
            answers=tuple(answers),
        )


def _prefix(namespace: str, edit_id: str) -> str:
    return f"serac:{{{check_namespace(namespace)}}}:trial:{check_edit_id(edit_id)}"


def _keys(prefix: str, version: int, arm: Arm) -> tuple[str, str, str]:
    of_version = f"{prefix}:{version}:{arm.value}"
    return f"{of_version}:counts", f"{of_version}:callers", f"{of_version}:latencies"


def _answers(prefix: str, arm: Arm) -> str:
    return f"{prefix}:answers:{arm.value}"
