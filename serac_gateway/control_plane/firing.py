"""Whether an edit fires on its own question put otherwise; an edit that does not hardly ever fires."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from serac_gateway.config.model import RoutingConfig
from serac_gateway.control_plane.model_threads import ModelThreads
from serac_gateway.control_plane.paraphrases import GeneratedQuery, ParaphraseKind, paraphrases
from serac_gateway.control_plane.readings import PromptForm, read_prompt
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, forms, wordings
from serac_gateway.domain.naming import stands_in
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import retrieval_texts
from serac_gateway.routing.thresholds import thresholds_in_force

log = logging.getLogger(__name__)

MAX_TRIED = 6
"""Paraphrases that are classified, until the first that reaches the threshold; some 5 ms each."""
_MAX_FORMS = 16
"""Forms that a paraphrase is compared with: the edit's own texts and some by other names."""
_TIMEOUT_S = 5.0


class FiringDoubt(msgspec.Struct, frozen=True, kw_only=True):
    """None of the paraphrases tried reaches the threshold."""

    tried: int
    likeliest: str
    """The most probable of them."""
    scope_probability: float
    """Of that; 0..1."""
    scope_threshold: float


class FiringCheck:
    """Tries paraphrases on an edit by itself, on the decision threads; other edits make no difference."""

    def __init__(
        self, *, encoder: Encoder, classifier: ScopeClassifier, config: RoutingConfig, threads: ModelThreads
    ) -> None:
        self._encoder = encoder
        self._classifier = classifier
        self._threads = threads
        self._thresholds = thresholds_in_force(config, classifier)

    async def doubt(self, edit: Edit) -> FiringDoubt | None:
        """None: it fires on a paraphrase of its own, or nobody can know.

        Of an instruction nobody can: its prompt is a topic, not a question. So if a model fails or is busy.
        """
        if edit.state not in ACTIVE_STATES or edit.kind is EditKind.INSTRUCTION:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._threads.run(lambda: self._tried(edit))
        except (ModelUnavailableError, TimeoutError) as error:
            log.warning("whether edit %s fires on paraphrases was not tried: %s", edit.id, error)
            return None

    def _tried(self, edit: Edit) -> FiringDoubt | None:
        queries = probes(edit)
        if not queries:
            return None
        texts = forms(edit)[:_MAX_FORMS]
        vectors_FD = self._encoder.encode(texts)
        likeliest, highest, threshold = queries[0], 0.0, self._thresholds.of(edit)
        for text in queries:
            query = Query(text=text)
            similarities_F = (self._encoder.encode(retrieval_texts(query)) @ vectors_FD.T).max(axis=0)
            nearest = int(similarities_F.argmax())
            similarity = float(similarities_F[nearest])
            if similarity < self._classifier.similarity_floor:
                continue
            candidate = Candidate(edit=edit, form=texts[nearest], similarity=similarity)
            (classification,) = self._classifier.classify(query, [candidate])
            if classification.scope_probability >= threshold:
                return None
            if classification.scope_probability > highest:
                likeliest, highest = text, classification.scope_probability
        return FiringDoubt(
            tried=len(queries),
            likeliest=likeliest,
            scope_probability=highest,
            scope_threshold=threshold,
        )


def probes(edit: Edit) -> list[str]:
    """At most `MAX_TRIED` paraphrases that are not, but for case and punctuation, a text of the edit.

    Of different forms first. Those that only put the prompt into a message count if there are no others; of
    those made from a statement, which has its answer in it, only those that ask for the answer do.
    """
    is_statement = read_prompt(edit.prompt, edit.target_new).form is PromptForm.STATEMENT
    own = {_letters(wording) for wording in wordings(edit)}
    by_letters: dict[str, GeneratedQuery] = {}
    for query in paraphrases(edit.prompt, edit.subject, edit.target_new):
        letters = _letters(query.text)
        if letters not in own and not (is_statement and stands_in(edit.target_new, query.text)):
            by_letters.setdefault(letters, query)
    fresh = list(by_letters.values())
    reworded = [query for query in fresh if query.form is not ParaphraseKind.IN_A_MESSAGE]
    return [query.text for query in _mixed(reworded or fresh)[:MAX_TRIED]]


def _mixed(queries: Sequence[GeneratedQuery]) -> list[GeneratedQuery]:
    """The first of each form, then the second of each."""
    seen: dict[ParaphraseKind, int] = {}
    turns: list[tuple[int, int]] = []
    for place, query in enumerate(queries):
        turns.append((seen.setdefault(query.form, 0), place))
        seen[query.form] += 1
    return [queries[place] for _, place in sorted(turns)]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
