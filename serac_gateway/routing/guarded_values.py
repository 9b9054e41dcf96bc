"""The values that suppressions keep back: what the base model's replies are watched for."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from serac_gateway.domain.audiences import Audience, Caller
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, EditState, hidden_values
from serac_gateway.domain.folding import folded_text
from serac_gateway.models.e5.word_frequency import is_common_word

log = logging.getLogger(__name__)

MIN_WEIGHT = 4
"""Letters and digits of the shortest value that is watched for; an ideograph counts twice."""
MIN_EXACT_CHARS = 3
"""Of a shorter value yet that is taken out of requests, where it stands by itself as it is written."""


class Unguarded(StrEnum):
    """Why replies are not watched for a value that an editor gave."""

    TOO_SHORT = "too short"
    COMMON_WORD = "a very common word"


class GuardedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that must not leave, and what is said in its place."""

    namespace: str
    edit_id: str
    value: str
    refusal: str
    state: EditState
    canary_share: float | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    audience: Audience = {}
    is_exact: bool = False
    """Too short to be watched for: it is taken out of requests alone, where it stands by itself as it is."""

    def applies(self, now: datetime, caller: Caller) -> bool:
        """Whether its suppression is in force at `now`, and applied to `caller`."""
        edit = Edit(
            id=self.edit_id,
            namespace=self.namespace,
            version=1,
            state=self.state,
            kind=EditKind.SUPPRESSION,
            prompt="",
            target_new="",
            created_at=now,
            canary_share=self.canary_share,
            valid_from=self.valid_from,
            valid_until=self.valid_until,
            audience=self.audience,
        )
        return edit.is_in_force(now) and edit.is_applied_to(caller)


class GuardedValues(msgspec.Struct, frozen=True, kw_only=True):
    """All of a namespace."""

    version: str
    """Another one after each change."""
    values: tuple[GuardedValue, ...]


def unguarded(
    edit: Edit, *, is_common: Callable[[str], bool] = is_common_word
) -> tuple[tuple[int, Unguarded], ...]:
    """Which of the `hidden_values` of `edit` are not watched for, by position, and why."""
    reasons = ((place, _why_not(value, is_common)) for place, value in enumerate(hidden_values(edit)))
    return tuple((place, reason) for place, reason in reasons if reason is not None)


def _why_not(value: str, is_common: Callable[[str], bool]) -> Unguarded | None:
    folded = folded_text(value)
    if sum(2 if _is_ideograph(char) else 1 for char in folded) < MIN_WEIGHT:
        return Unguarded.TOO_SHORT
    word = value.strip().strip(".!?,;:\"'")
    if word.isalpha() and is_common(word):
        return Unguarded.COMMON_WORD
    return None


def guarded_values(
    edits: Iterable[Edit], *, is_common: Callable[[str], bool] = is_common_word
) -> tuple[GuardedValue, ...]:
    """The values of the suppressions among `edits` that are kept back, those that are watched for first."""
    values = (
        GuardedValue(
            namespace=edit.namespace,
            edit_id=edit.id,
            value=value,
            refusal=edit.target_new,
            state=edit.state,
            canary_share=edit.canary_share,
            valid_from=edit.valid_from,
            valid_until=edit.valid_until,
            audience=edit.audience,
            is_exact=reason is not None,
        )
        for edit in edits
        if edit.state in ACTIVE_STATES
        for value in hidden_values(edit)
        if (reason := _why_not(value, is_common)) is None
        or (reason is Unguarded.TOO_SHORT and len(value.strip()) >= MIN_EXACT_CHARS)
    )
    return tuple(sorted(values, key=lambda value: value.is_exact))


def value_field(place: int) -> str:
    """The field of an edit that holds the hidden value at that position."""
    return f"aliases[{place - 1}]" if place else "target_true"


def log_unguarded(edits: Iterable[Edit], *, is_common: Callable[[str], bool] = is_common_word) -> None:
    """Warn of each suppression among `edits` whose value is not watched for, without the value."""
    for edit in edits:
        for place, reason in unguarded(edit, is_common=is_common):
            log.warning(
                "namespace %s: replies are not watched for the value of suppression %s, whose %s is %s",
                edit.namespace, edit.id, value_field(place), reason.value,
            )  # fmt: skip


def _is_ideograph(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK UNIFIED")
