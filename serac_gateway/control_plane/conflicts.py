"""Conflicts: edits that answer the same question with another answer, and the policies on them.

The two stages that decide requests look for it in both directions: each of the two edits has to answer the
prompt of the other. So every conflict is one that requests would meet, and a near miss is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from serac_gateway.config.model import ConflictPolicy, RoutingConfig
from serac_gateway.domain.audiences import Audience, lies_within, may_meet
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, EditState, forms, prompt_wordings
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import ContradictionError
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import merged
from serac_gateway.routing.thresholds import thresholds_in_force

_WORD = re.compile(r"[-+−]?\w+(?:[.,:/]\w+)*[+#]*|[%$€£¥°]")
_ARTICLES = frozenset(("a", "an", "the"))
_EFFECT = (
    "kind", "prompt", "target_new", "subject", "paraphrases", "aliases", "state", "valid_from", "valid_until",
    "audience",
)  # fmt: skip
"""The fields by which an edit can come to contradict others."""
_MAX_NAMED = 5


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A stored edit that answers the same question as the edit in question, differently."""

    edit: Edit
    """The stored edit, in the version that was in force during the search."""
    answers_prompt: float
    """P(the stored edit answers the prompt of the one in question), 0..1."""
    prompt_answered: float
    """P(the one in question answers the stored edit's prompt), 0..1."""


class ConflictFinder:
    """Searches the edits in force for conflicts. Synchronous and thread-safe; for worker threads."""

    def __init__(
        self,
        *,
        active_edits: ActiveEdits,
        encoder: Encoder,
        classifier: ScopeClassifier,
        config: RoutingConfig,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._active_edits = active_edits
        self._encoder = encoder
        self._classifier = classifier
        self._config = config
        self._clock = clock
        self._thresholds = thresholds_in_force(config, classifier)

    def policy(self, namespace: str) -> ConflictPolicy:
        """The policy of the namespace on conflicts."""
        return self._config.conflicts_of(namespace)

    def find(self, namespace: str, edit: Edit, vectors_FD: Vectors | None = None) -> list[Conflict]:
        """The edits of the namespace that contradict `edit`, most probable first.

        They are at most as many as a request has candidates. Edits on trial and those whose window is yet to
        begin count. `vectors_FD`: the vectors of the edit's forms, if they are at hand. *Shape:* (F, D).

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        if edit.state not in ACTIVE_STATES or self._active_edits.count(namespace) == 0:
            return []
        texts = forms(edit)
        if vectors_FD is None:
            vectors_FD = self._encoder.encode(texts)
        answering = self._answering(namespace, edit, vectors_FD)
        if not answering:
            return []
        prompts = [_prompt_by_form(other) for other, _ in answering]
        conflicts: list[Conflict] = []
        for (other, answers_prompt), prompt, prompt_D in zip(
            answering, prompts, self._encoder.encode(prompts), strict=True
        ):
            similarities_F = vectors_FD @ prompt_D
            nearest = int(similarities_F.argmax())
            candidate = Candidate(edit=edit, form=texts[nearest], similarity=float(similarities_F[nearest]))
            (probability,) = self._probabilities(prompt, [candidate])
            if probability >= self._thresholds.of(edit):
                conflicts.append(
                    Conflict(edit=other.edit, answers_prompt=answers_prompt, prompt_answered=probability)
                )
        return sorted(conflicts, key=lambda conflict: -min(conflict.answers_prompt, conflict.prompt_answered))

    def _answering(self, namespace: str, edit: Edit, vectors_FD: Vectors) -> list[tuple[Candidate, float]]:
        """The other edits that answer the prompt of `edit`, by whatever name of its subject, differently.

        With their probabilities.
        """
        now = self._clock()
        place_of = {form: place for place, form in enumerate(forms(edit))}
        prompts = list(dict.fromkeys(prompt_wordings(edit)))
        rows = self._active_edits.candidates(
            namespace,
            vectors_FD[[place_of[prompt] for prompt in prompts]],
            self._config.candidates,
            floor=self._classifier.similarity_floor,
            wanted=lambda other: _may_contradict(edit, other, now),
        )
        near = merged(rows, floor=self._classifier.similarity_floor, limit=self._config.candidates)
        kept = {id(candidate) for candidate in near[: self._config.candidates]}
        answering: list[tuple[Candidate, float]] = []
        for prompt, row in zip(prompts, rows, strict=True):
            readable = [candidate for candidate in row if id(candidate) in kept]
            answering += zip(readable, self._probabilities(prompt, readable), strict=True)
        return [
            (candidate, probability)
            for candidate, probability in answering
            if probability >= self._thresholds.of(candidate.edit)
        ]

    def _probabilities(self, prompt: str, candidates: Sequence[Candidate]) -> list[float]:
        classifications = self._classifier.classify(Query(text=prompt), candidates)
        return [classification.scope_probability for classification in classifications]


def _prompt_by_form(candidate: Candidate) -> str:
    """The prompt of a candidate's edit, by that name of its subject by which it is a candidate."""
    is_prompt = candidate.form in prompt_wordings(candidate.edit)
    return candidate.form if is_prompt else candidate.edit.prompt


def same_effect(edit: Edit, other: Edit) -> bool:
    """Whether both contradict the same edits: nothing differs but notes and the like."""
    return all(getattr(edit, name) == getattr(other, name) for name in _EFFECT)


def to_supersede(policy: ConflictPolicy, edit: Edit, conflicts: Sequence[Conflict]) -> list[Edit]:
    """The edits to be retired so that `edit` may come.

    A policy acts when an edit goes live, on those that are applied now; an edit on trial contradicts the one
    that it may replace, and that is what a trial is for.

    Raises:
        ContradictionError: The policy is to refuse; details["conflicts"] names the edits.
    """
    if policy is ConflictPolicy.NEWEST_WINS or edit.state is not EditState.LIVE:
        return []
    applied = [conflict.edit for conflict in conflicts if conflict.edit.state is not EditState.SHADOW]
    if policy is ConflictPolicy.SUPERSEDE or not applied:
        # One for an audience that is partly outside this one's stays in force: nothing new is said there.
        return [other for other in applied if other.audience == edit.audience]
    named = ", ".join(repr(other.id) for other in applied[:_MAX_NAMED])
    raise ContradictionError(
        f"the answer contradicts {named} in namespace {edit.namespace!r}, which {_answers(applied)} the same"
        " question differently, and the namespace refuses that; change or retire what is stored, or add this"
        " one as a shadow",
        field="target_new",
        details={"value": edit.target_new[:80], "conflicts": [other.id for other in applied]},
    )


def _answers(edits: Sequence[Edit]) -> str:
    return "answers" if len(edits) == 1 else "answer"


def _may_contradict(edit: Edit, other: Edit, now: datetime) -> bool:
    """Whether they could both be applied at one time to one request, and would answer differently.

    One for an audience within the other's is an exception to it, on purpose: the more specific one governs.
    A suppression has no exceptions: it governs wherever it holds.
    """
    is_kept_back = EditKind.SUPPRESSION in (edit.kind, other.kind)
    compete = may_meet if is_kept_back else _may_compete
    if not compete(edit.audience, other.audience):
        return False
    if other.id == edit.id or other.state not in ACTIVE_STATES:
        return False
    if edit.kind is other.kind and (
        edit.kind is EditKind.SUPPRESSION or _answer_words(edit.target_new) == _answer_words(other.target_new)
    ):
        return False
    starts = [moment for moment in (edit.valid_from, other.valid_from, now) if moment is not None]
    ends = [moment for moment in (edit.valid_until, other.valid_until) if moment is not None]
    return not ends or max(starts) < min(ends)


def _may_compete(audience: Audience, other: Audience) -> bool:
    """Whether neither audience lies strictly within the other, and a request can be in both."""
    if audience == other:
        return True
    if lies_within(audience, other) or lies_within(other, audience):
        return False
    return may_meet(audience, other)


def _answer_words(text: str) -> tuple[str, ...]:
    """The words of an answer, without regard to capitals, articles and full stops."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words) or (text,)
