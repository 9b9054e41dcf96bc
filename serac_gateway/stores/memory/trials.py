"""The records of canaries in memory."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence

from typing_extensions import override

from serac_gateway.domain.edits import check_edit_id, check_namespace
from serac_gateway.domain.trials import Arm, Outcome, TrialObservation
from serac_gateway.stores.trials import MAX_ANSWERS, MAX_CALLERS, MAX_LATENCIES, ArmRecord, TrialStore


class _KeptArm:
    def __init__(self) -> None:
        self.requests = self.failed = self.left = 0
        self.callers: set[str] = set()
        self.latencies_ms: deque[float] = deque(maxlen=MAX_LATENCIES)


class InMemoryTrialStore(TrialStore):
    """Keeps them until it is garbage collected."""

    def __init__(self) -> None:
        self._arms: defaultdict[tuple[str, str, int, Arm], _KeptArm] = defaultdict(_KeptArm)
        self._answers: defaultdict[tuple[str, str, Arm], deque[tuple[float, int, TrialObservation]]]
        self._answers = defaultdict(lambda: deque(maxlen=MAX_ANSWERS))

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
        key = (check_namespace(namespace), check_edit_id(edit_id))
        for observation in observations:
            arm = self._arms[*key, version, observation.arm]
            arm.requests += 1
            arm.failed += observation.outcome is Outcome.FAILED
            arm.left += observation.outcome is Outcome.LEFT
            if len(arm.callers) < MAX_CALLERS:
                arm.callers.add(observation.caller)
            if observation.outcome is Outcome.ANSWERED:
                arm.latencies_ms.append(observation.total_ms)
            if observation.answer is not None:
                ends_s = time.time() + answers_ttl_s
                self._answers[*key, observation.arm].append((ends_s, version, observation))

    @override
    async def read(self, namespace: str, edit_id: str, version: int) -> dict[Arm, ArmRecord]:
        key = (check_namespace(namespace), check_edit_id(edit_id))
        return {arm: self._record(*key, version, arm) for arm in Arm}

    @override
    async def forget_answers(self, namespace: str, edit_id: str) -> None:
        for arm in Arm:
            self._answers.pop((check_namespace(namespace), check_edit_id(edit_id), arm), None)

    def _record(self, namespace: str, edit_id: str, version: int, arm: Arm) -> ArmRecord:
        kept = self._arms.get((namespace, edit_id, version, arm))
        answers = self._answers.get((namespace, edit_id, arm), ())
        if kept is None:
            return ArmRecord()
        return ArmRecord(
            requests=kept.requests,
            failed=kept.failed,
            left=kept.left,
            callers=len(kept.callers),
            latencies_ms=tuple(kept.latencies_ms),
            answers=tuple(
                observation
                for ends_s, of_version, observation in reversed(answers)
                if of_version == version and ends_s > time.time()
            ),
        )
