"""Judges, edit by edit, whether the changed model answers by itself."""

from __future__ import annotations

from collections.abc import Sequence

from serac_gateway.domain.consolidation import Absorption, ConsolidatedEdit, Rates
from training.consolidation.probes import EditProbes
from training.consolidation.replies import Replies
from training.evaluation.answers.metrics import contains_answer, first_sentence, normalised


def gives(reply: str, target: str) -> bool:
    """Whether a reply gives the answer: it begins with it, or its first sentence contains it."""
    begins = f"{normalised(reply)} ".startswith(f"{normalised(target)} ") and bool(normalised(target))
    return begins or contains_answer(first_sentence(reply), [target])


def judged(
    probes: EditProbes,
    before: Replies,
    after: Replies,
    *,
    conflict: str | None,
    refusal: str | None,
) -> ConsolidatedEdit:
    """The edit with its state.

    Args:
        probes: Its texts.
        before: What the base model says.
        after: What the changed one says.
        conflict: The id of a live edit that contradicts it, so that it was not trained; None: there is none.
        refusal: Why the method did not take it; None: it did.
    """
    edit = probes.edit
    was, now = rates(probes, before, before), rates(probes, before, after)
    state, why = _state(probes, was, now, before, after)
    if conflict is not None:
        state, why = Absorption.CONFLICTING, f"{conflict} answers it differently; it was not trained"
    elif refusal is not None:
        state, why = Absorption.NEEDS_GATEWAY, f"it was not trained: {refusal}"
    return ConsolidatedEdit(
        id=edit.id, version=edit.version, created_at=edit.created_at, prompt=edit.prompt,
        target_new=edit.target_new, source=edit.source, state=state, why=why, before=was, after=now,
        answer_before=before.by_text[edit.prompt], answer_after=after.by_text[edit.prompt],
    )  # fmt: skip


def rates(probes: EditProbes, before: Replies, replies: Replies) -> Rates:
    """The shares of an edit's probes."""
    target = probes.edit.target_new

    def given(texts: Sequence[str]) -> float | None:
        return _mean([gives(replies.by_text[text], target) for text in texts])

    return Rates(
        prompt=given([probes.edit.prompt]),
        trained=given(probes.trained),
        held_back=given(probes.held_back),
        neighbours=_mean([replies.by_text[text] == before.by_text[text] for text in probes.neighbours]),
    )


def _state(
    probes: EditProbes, was: Rates, now: Rates, before: Replies, after: Replies
) -> tuple[Absorption, str]:
    shares = [share for share in (now.prompt, now.trained, now.held_back) if share is not None]
    if not any(shares):
        return Absorption.NEEDS_GATEWAY, "no wording gets its answer"
    if now.held_back is None:
        return Absorption.PARTIAL, "it has no wording that could be held back: give it paraphrases"
    target = probes.edit.target_new
    taken = [
        text
        for text in probes.neighbours
        if gives(after.by_text[text], target) and not gives(before.by_text[text], target)
    ]
    if min(shares) < 1:
        missing = [
            text
            for text in (probes.edit.prompt, *probes.trained, *probes.held_back)
            if not gives(after.by_text[text], target)
        ]
        return Absorption.PARTIAL, f"{len(missing)} wordings do not get its answer, as {missing[0]!r}"
    if taken:
        return Absorption.PARTIAL, f"its answer also goes to {taken[0]!r}"
    if was.prompt == was.held_back == 1:
        return Absorption.ABSORBED, "the base model answered it before"
    return Absorption.ABSORBED, "all wordings get its answer, those held back too"


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
