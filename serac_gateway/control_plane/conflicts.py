"""Which edits answer the same question as another one, with another answer; and what is done about it.

Found by the two stages that decide requests, both ways: the one edit has to answer the other's prompt and the
other the one's. So a conflict found here is one that requests would meet, and a near miss is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from serac_gateway.config.model import ConflictPolicy, RoutingConfig
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, EditState, forms
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import ContradictionError
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.models.encoders.base import Encoder

_WORD = re.compile(r"[-+−]?\w+(?:[.,:/]\w+)*[+#]*|[%$€£¥°]")
_ARTICLES = frozenset(("a", "an", "the"))
_EFFECT = ("kind", "prompt", "target_new", "paraphrases", "state", "valid_from", "valid_until")
"""The fields by which an edit can come to contradict others."""
_MAX_NAMED = 5


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A stored edit that answers the same question as the edit in question, differently."""

    edit: Edit
    """The stored one, as it was when the conflict was found."""
    answers_prompt: float
    """P(the stored edit answers the prompt of the one in question), 0..1."""
    prompt_answered: float
    """P(the one in question answers the stored edit's prompt), 0..1."""


class ConflictFinder:
    """Looks for conflicts among the edits of this process. Sync and thread-safe; for worker threads."""

    def __init__(
        self,
        *,
        active_edits: ActiveEdits,
        encoder: Encoder,
        classifier: ScopeClassifier,
        config: RoutingConfig,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._live_edits = active_edits
        self._encoder = encoder
        self._classifier = classifier
        self._config = config
        self._clock = clock
        given = config.scope_threshold
        self._scope_threshold = classifier.scope_threshold if given is None else given

    def policy(self, namespace: str) -> ConflictPolicy:
        """What the namespace does about conflicts."""
        return self._config.conflicts_of(namespace)

    def find(self, edit: Edit, vectors_FD: Vectors | None = None) -> list[Conflict]:
        """The edits that contradict `edit`, most probable first; at most as many as a request has candidates.

        Edits on trial and those whose window is yet to begin are found, too. `vectors_FD`: those of the
        edit's forms, if they are at hand. *Shape:* (F, D).

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        if edit.state not in ACTIVE_STATES or self._live_edits.count(edit.namespace) == 0:
            return []
        texts = forms(edit)
        if vectors_FD is None:
            vectors_FD = self._encoder.encode(texts)
        found = self._that_answer(edit, vectors_FD)
        if not found:
            return []
        prompts_KD = self._encoder.encode([other.edit.prompt for other, _ in found])
        conflicts: list[Conflict] = []
        for (other, answers_prompt), prompt_D in zip(found, prompts_KD, strict=True):
            similarities_F = vectors_FD @ prompt_D
            nearest = int(similarities_F.argmax())
            asked = Candidate(edit=edit, form=texts[nearest], similarity=float(similarities_F[nearest]))
            probability = self._probabilities(other.edit.prompt, [asked])[0]
            if probability >= self._scope_threshold:
                conflicts.append(
                    Conflict(edit=other.edit, answers_prompt=answers_prompt, prompt_answered=probability)
                )
        return sorted(conflicts, key=lambda one: -min(one.answers_prompt, one.prompt_answered))

    def _that_answer(self, edit: Edit, vectors_FD: Vectors) -> list[tuple[Candidate, float]]:
        """The other edits that answer the prompt of `edit` differently, with their probabilities."""
        now = self._clock()
        query = Query(text=edit.prompt)
        (row,) = self._live_edits.candidates(
            edit.namespace,
            vectors_FD[:1],  # the first form is the prompt
            self._config.candidates,
            floor=self._classifier.similarity_floor,
            wanted=lambda other: _may_contradict(edit, other, now),
        )
        near = [
            one
            for one in row[: self._config.candidates]
            if one.similarity >= self._classifier.similarity_floor
            and self._classifier.can_reach_threshold(query, one, self._scope_threshold)
        ]
        probabilities = self._probabilities(edit.prompt, near)
        return [
            (one, probability)
            for one, probability in zip(near, probabilities, strict=True)
            if probability >= self._scope_threshold
        ]

    def _probabilities(self, prompt: str, candidates: Sequence[Candidate]) -> list[float]:
        found = self._classifier.classify(Query(text=prompt), candidates)
        return [one.scope_probability for one in found]


def same_effect(one: Edit, other: Edit) -> bool:
    """Whether both contradict the same edits: nothing differs but notes and the like."""
    return all(getattr(one, name) == getattr(other, name) for name in _EFFECT)


def to_supersede(policy: ConflictPolicy, edit: Edit, conflicts: Sequence[Conflict]) -> list[Edit]:
    """The edits to be retired so that `edit` may come.

    A policy acts when an edit goes live, on those that are applied now; an edit on trial contradicts the one
    that it may replace, and that is what a trial is for.

    Raises:
        ContradictionError: The policy is to refuse; details["conflicts"] names the edits.
    """
    if policy is ConflictPolicy.NEWEST_WINS or edit.state is not EditState.LIVE:
        return []
    applied = [one.edit for one in conflicts if one.edit.state is not EditState.SHADOW]
    if policy is ConflictPolicy.SUPERSEDE or not applied:
        return applied
    named = ", ".join(repr(one.id) for one in applied[:_MAX_NAMED])
    raise ContradictionError(
        f"the answer contradicts {named} in namespace {edit.namespace!r}, which {_answers(applied)} the same"
        " question differently, and the namespace refuses that; change or retire what is stored, or add this"
        " one as a shadow",
        field="target_new",
        details={"value": edit.target_new[:80], "conflicts": [one.id for one in applied]},
    )


def _answers(edits: Sequence[Edit]) -> str:
    return "answers" if len(edits) == 1 else "answer"


def _may_contradict(edit: Edit, other: Edit, now: datetime) -> bool:
    """Whether they could both be applied at one time, and would answer differently."""
    if other.id == edit.id or other.state not in ACTIVE_STATES:
        return False
    if edit.kind is other.kind and (
        edit.kind is EditKind.SUPPRESSION or _said(edit.target_new) == _said(other.target_new)
    ):
        return False
    starts = [one for one in (edit.valid_from, other.valid_from, now) if one is not None]
    ends = [one for one in (edit.valid_until, other.valid_until) if one is not None]
    return not ends or max(starts) < min(ends)


def _said(text: str) -> tuple[str, ...]:
    """What an answer says, whatever its capitals, articles and full stops."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words) or (text,)
