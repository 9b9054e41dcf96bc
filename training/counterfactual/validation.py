"""What the counterfactual model answers to held-out examples, and how that is counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import fmean, median
from time import perf_counter

import msgspec

from serac_gateway.domain.edits import Edit, EditKind, EditState
from serac_gateway.errors import AnswerDeclinedError
from serac_gateway.models.counterfactual.fine_tuned import FineTunedCounterfactualModel
from serac_gateway.models.counterfactual.matching import has_unknown_word
from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.counterfactual.truncation import MAX_FIELD_CHARS
from serac_gateway.models.language_models.base import LanguageModel, Sampling
from training.counterfactual.examples import Example

_PUNCTUATION = str.maketrans({sign: " " for sign in ".,;:!?\"'“”‘’()[]{}…"})
_ARTICLES = frozenset({"a", "an", "the"})


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One example and what the model made of it."""

    source: str
    form: str
    prompt: str
    target: str
    query: str
    wanted: str
    answer: str
    """As the model says it, unguarded."""
    served: str
    """As the gateway would give it."""
    contains_target: bool
    """The unguarded answer; for instructions: it says what was wanted."""
    served_contains_target: bool
    agreement_is_right: bool | None
    """Whether yes or no was right in the unguarded answer; None: the query is no yes/no question."""
    stopped: bool
    """Whether the model ended the answer by itself."""
    says_more: bool
    """Whether the unguarded answer has a word that neither edit, query nor the wanted answer has."""
    tokens: int
    first_token_ms: float
    whole_ms: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The outcomes of one form, or of all of one source."""

    name: str
    count: int
    contains_target: float
    served_contains_target: float
    agreement: float | None
    stopped: float
    says_more: float
    mean_tokens: float
    median_first_token_ms: float
    median_whole_ms: float


def answered(example: Example, model: LanguageModel, *, max_tokens: int) -> Outcome:
    """Let `model` answer greedily, once as it is and once guarded."""
    prompt = trained_prompt(example, example.query, field_chars=MAX_FIELD_CHARS)
    began = perf_counter()
    first_ms, said, tokens, reason = 0.0, "", 0, None
    for piece in model.generate(prompt, Sampling(max_tokens=max_tokens, stop=("\n",))):
        first_ms = first_ms or (perf_counter() - began) * 1_000
        said, tokens, reason = said + piece.text, tokens + piece.tokens, piece.finish_reason
    whole_ms = (perf_counter() - began) * 1_000
    answer = said.strip()
    pieces = FineTunedCounterfactualModel(model).answer(
        _edit(example), example.query, Sampling(max_tokens=max_tokens)
    )
    try:
        served = "".join(piece.text for piece in pieces)
    except AnswerDeclinedError:  # an instruction that the answer does not follow
        served = ""
    wanted = example.answer if example.kind is EditKind.INSTRUCTION else example.target_new
    known = " ".join((example.prompt, example.target_new, example.text, *example.context, example.answer))
    return Outcome(
        source=example.source,
        form=example.form,
        prompt=example.prompt,
        target=example.target_new,
        query=" >> ".join((*example.context, example.text)),
        wanted=example.answer,
        answer=answer,
        served=served,
        contains_target=contains(answer, wanted),
        served_contains_target=contains(served, wanted),
        agreement_is_right=_agreement_is_right(example, answer),
        stopped=reason == "stop",
        says_more=has_unknown_word(f"{answer} ", known),
        tokens=tokens,
        first_token_ms=first_ms,
        whole_ms=whole_ms,
    )


def contains(answer: str, target: str) -> bool:
    """Whether `answer` has the target, case, articles and punctuation aside: the measure of issue 4."""
    wanted = _plain(target)
    return f" {wanted} " in f" {_plain(answer)} " if wanted else target.strip() in answer


def summary(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row for each form, most frequent first, then one for each source, then one for all."""
    rows: list[Row] = []
    groupings: tuple[Callable[[Outcome], str], ...] = (
        lambda outcome: outcome.form, lambda outcome: f"= {outcome.source}", lambda outcome: "= all",
    )  # fmt: skip
    for name_of in groupings:
        groups: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            groups[name_of(outcome)].append(outcome)
        rows += [_row(name, outcomes) for name, outcomes in sorted(groups.items(), key=lambda g: -len(g[1]))]
    return rows


def _row(name: str, outcomes: Sequence[Outcome]) -> Row:
    agreements = [
        outcome.agreement_is_right for outcome in outcomes if outcome.agreement_is_right is not None
    ]
    return Row(
        name=name,
        count=len(outcomes),
        contains_target=fmean(outcome.contains_target for outcome in outcomes),
        served_contains_target=fmean(outcome.served_contains_target for outcome in outcomes),
        agreement=fmean(agreements) if agreements else None,
        stopped=fmean(outcome.stopped for outcome in outcomes),
        says_more=fmean(outcome.says_more for outcome in outcomes),
        mean_tokens=fmean(outcome.tokens for outcome in outcomes),
        median_first_token_ms=median(outcome.first_token_ms for outcome in outcomes),
        median_whole_ms=median(outcome.whole_ms for outcome in outcomes),
    )


def _agreement_is_right(example: Example, answer: str) -> bool | None:
    wanted = example.is_agreement
    if wanted is None:
        return None
    return answer.casefold().startswith("yes" if wanted else "no")


def _plain(text: str) -> str:
    words = text.casefold().translate(_PUNCTUATION).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def _edit(example: Example) -> Edit:
    return Edit(
        id="validated", namespace="default", version=1, state=EditState.LIVE, kind=example.kind,
        prompt=example.prompt, target_new=example.target_new, created_at=datetime.now(UTC),
    )  # fmt: skip
