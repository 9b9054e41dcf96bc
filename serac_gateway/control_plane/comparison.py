"""Compares the two arms of a canary: users who have the edit with users for whom it would govern.

Arms are as they were assigned: a request of a user who has the edit counts there, also where the answer
failed or was declined. What is compared is one version of the edit: another has other content or users.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import AwareDatetime, Edit, EditState
from serac_gateway.domain.feedback import Feedback, FeedbackVerdict
from serac_gateway.domain.intervals import (
    Z_999,
    Interval,
    median,
    median_difference,
    share_difference,
    wilson,
)
from serac_gateway.domain.trials import Arm
from serac_gateway.errors import EditConflictError, EditNotFoundError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.trials import MAX_CALLERS, ArmRecord


class ComparisonState(StrEnum):
    """What the comparison says so far."""

    NO_DATA = "no_data"
    """An arm has no request yet."""
    UNBALANCED = "unbalanced"
    """The share of users with the edit is not the configured one, at 99.9 %: the arms do not compare."""
    INCONCLUSIVE = "inconclusive"
    """No difference in the reports, or too few of them."""
    BETTER = "better"
    """More of the reports on requests with the edit say that they were right, at 95 %."""
    WORSE = "worse"


class ComparedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose text is recorded."""

    at: AwareDatetime
    query: str | None
    answer: str | None


class ArmReport(msgspec.Struct, frozen=True, kw_only=True):
    """One arm."""

    requests: int
    callers: int
    """Different users; at most 10,000 are told apart."""
    failed: int
    """Without a response, or with a status of 400 and above."""
    failure_share: Interval | None
    """Wilson, 95 %; null without requests."""
    left: int
    """Whose client left before the reply was complete."""
    verdicts: dict[FeedbackVerdict, int]
    """The last report on each request that is kept."""
    right_share: Interval | None
    """Of the reports, those that say `right`; Wilson, 95 %; null without reports."""
    median_ms: Interval | None
    """Of the latest 1,000 whole replies; bootstrap, 95 %; null without any."""
    answers: list[ComparedAnswer]
    """The latest, where the namespace's traffic is recorded; newest first."""


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """Treatment minus control; null where an arm has nothing to compare."""

    right_share: Interval | None
    """Newcombe, 95 %."""
    failure_share: Interval | None
    """Newcombe, 95 %."""
    median_ms: Interval | None
    """Bootstrap, 95 %."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both arms of a canary."""

    edit_id: str
    version: int
    """Whose requests are compared."""
    is_current: bool
    """Whether that is the current version; only that one can be promoted or stopped."""
    since: AwareDatetime
    canary_share: float
    state: ComparisonState
    treatment_share: Interval | None
    """Of the users, those with the edit; Wilson, 99.9 %; null without users, or with too many to count."""
    treatment: ArmReport
    control: ArmReport
    differences: Differences


def canary_version(versions: list[Edit], number: int | None) -> Edit:
    """The version to compare: `number`, else the latest one that was a canary.

    Raises:
        EditNotFoundError: There is no such version.
        EditConflictError: It was no canary, or none was.
    """
    if number is not None and not 1 <= number <= len(versions):
        raise EditNotFoundError(
            f"edit {versions[0].id!r} has no version {number}; it has {len(versions)}", field="version"
        )
    candidates = versions if number is None else [versions[number - 1]]
    canaries = [edit for edit in candidates if edit.state is EditState.CANARY]
    if not canaries:
        what = "was never a canary" if number is None else f"was no canary in version {number}"
        raise EditConflictError(
            f"edit {versions[0].id!r} {what}, so there are no arms to compare; put it on trial with"
            " `serac edits set-state ID canary --share 0.1`",
            field="edit_id" if number is None else "version",
            details={"value": versions[-1].state.value},
        )
    return canaries[-1]


async def compare(store: EditStore, namespace: str, edit: Edit, *, is_current: bool) -> Comparison:
    """Compare the arms of `edit`, a version that is or was a canary.

    Raises:
        StoreUnavailableError: The store failed.
    """
    records = await store.trials().read(namespace, edit.id, edit.version)
    verdicts = await _verdicts(store.feedback().all(namespace), edit)
    # On a thread: resampling two arms takes some tenths of a second, and the loop serves all requests.
    return await asyncio.to_thread(_compared, edit, records, verdicts, is_current=is_current)


def _compared(
    edit: Edit,
    records: Mapping[Arm, ArmRecord],
    verdicts: Mapping[Arm, Counter[FeedbackVerdict]],
    *,
    is_current: bool,
) -> Comparison:
    treatment, control = (records[arm] for arm in (Arm.TREATMENT, Arm.CONTROL))
    reports = {arm: _report(records[arm], verdicts[arm]) for arm in Arm}
    right = {arm: _right(verdicts[arm]) for arm in Arm}
    differences = Differences(
        right_share=share_difference(right[Arm.TREATMENT], right[Arm.CONTROL]),
        failure_share=share_difference(
            (treatment.failed, treatment.requests), (control.failed, control.requests)
        ),
        median_ms=median_difference(treatment.latencies_ms, control.latencies_ms),
    )
    share = _treatment_share(treatment, control)
    return Comparison(
        edit_id=edit.id,
        version=edit.version,
        is_current=is_current,
        since=edit.created_at,
        canary_share=edit.canary_share or 0.0,
        state=_state(edit, treatment, control, share, differences.right_share),
        treatment_share=share,
        treatment=reports[Arm.TREATMENT],
        control=reports[Arm.CONTROL],
        differences=differences,
    )


async def _verdicts(reports: AsyncIterator[Feedback], edit: Edit) -> dict[Arm, Counter[FeedbackVerdict]]:
    """The last report on each request of the version, by arm."""
    last: dict[str, tuple[Arm, FeedbackVerdict]] = {}
    async for report in reports:
        trial = report.request.trial
        if trial is not None and (trial.edit_id, trial.edit_version) == (edit.id, edit.version):
            last[report.request.request_id] = (trial.arm, report.verdict)
    counted: dict[Arm, Counter[FeedbackVerdict]] = {arm: Counter() for arm in Arm}
    for arm, verdict in last.values():
        counted[arm][verdict] += 1
    return counted


def _right(verdicts: Counter[FeedbackVerdict]) -> tuple[int, int]:
    return verdicts[FeedbackVerdict.RIGHT], verdicts.total()


def _report(record: ArmRecord, verdicts: Counter[FeedbackVerdict]) -> ArmReport:
    return ArmReport(
        requests=record.requests,
        callers=record.callers,
        failed=record.failed,
        failure_share=wilson(record.failed, record.requests),
        left=record.left,
        verdicts={verdict: verdicts[verdict] for verdict in FeedbackVerdict},
        right_share=wilson(*_right(verdicts)),
        median_ms=median(record.latencies_ms),
        answers=[
            ComparedAnswer(at=answer.at, query=answer.query, answer=answer.answer)
            for answer in record.answers
        ],
    )


def _treatment_share(treatment: ArmRecord, control: ArmRecord) -> Interval | None:
    if MAX_CALLERS in (treatment.callers, control.callers):
        return None
    return wilson(treatment.callers, treatment.callers + control.callers, z=Z_999)


def _state(
    edit: Edit,
    treatment: ArmRecord,
    control: ArmRecord,
    share: Interval | None,
    right_share: Interval | None,
) -> ComparisonState:
    expected = edit.canary_share or 0.0
    if share is not None and not share.low <= expected <= share.high:
        return ComparisonState.UNBALANCED
    if not treatment.requests or not control.requests:
        return ComparisonState.NO_DATA
    if right_share is None or right_share.low <= 0 <= right_share.high:
        return ComparisonState.INCONCLUSIVE
    return ComparisonState.BETTER if right_share.low > 0 else ComparisonState.WORSE
