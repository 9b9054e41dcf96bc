"""Examples from the hand-written contrast sets, whose lines state their form and the value they assert."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from serac_gateway.domain.edits import EditKind
from serac_gateway.domain.queries import Query
from training.counterfactual import target_answers as answers
from training.counterfactual.examples import Example
from training.counterfactual.instruction_examples import obeying
from training.data.contrasts import ContrastLine, ContrastSet, Filling, filled_in, query_of

_REFUSAL = re.compile(
    r"\b(?:can't|cannot|can’t|not able|unable|confidential|don't (?:comment|share)|no comment|isn't public"
    r"|haven't announced|may give|no statement|please (?:direct|contact|wait|ask))\b",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"^(?:always|mention|say|point|stay|be|use|give|call|refer|write|keep|avoid|recommend|apologise|do not"
    r"|don't|make)\b.*\.$",
    re.IGNORECASE,
)
_OPEN_QUESTION = re.compile(r"\b(?:what|who|whom|whose|where|when|which|how)\b", re.IGNORECASE)
_CHOICE = re.compile(r"\bor\b", re.IGNORECASE)
_ASSERTING = frozenset({"yes-no", "negation", "statement", "doubt"})
_UNANSWERED = frozenset({"same subject", "entity", "number", "multi-hop", "reversed", "follow-up"})
_UNANSWERED_SHARE = 0.3


def contrast_examples(
    sets: Sequence[ContrastSet], rng: random.Random, *, rounds: int, share: float = _UNANSWERED_SHARE
) -> Iterator[Example]:
    """The queries of `sets` that have a known answer, `rounds` times, each time about another subject.

    `share` of the queries out of scope come too, to be answered by what the edit says and no more.
    """
    for number in range(rounds):
        for contrast in sets:
            filling = filled_in(contrast, rng, number % len(contrast.subjects))
            for line in contrast.lines:
                if line.in_scope or (line.kind in _UNANSWERED and rng.random() < share):
                    yield from _example(contrast, filling, line)


def kind_of(contrast: ContrastSet) -> EditKind:
    """The kind of the set's edits, judged by their targets."""
    if all(_INSTRUCTION.search(target) and target[:1].isupper() for target in contrast.targets):
        return EditKind.INSTRUCTION
    if any(_REFUSAL.search(target) for target in contrast.targets):
        return EditKind.SUPPRESSION
    return EditKind.FACT


def _example(contrast: ContrastSet, filling: Filling, line: ContrastLine) -> Iterator[Example]:
    query = query_of(filling, line)
    kind = kind_of(contrast)
    if query is None or (kind is not EditKind.FACT and not line.in_scope):
        return
    if kind is EditKind.SUPPRESSION:
        answer: str | None = filling.target
    elif kind is EditKind.INSTRUCTION:
        answer = obeying(filling.target, filling.subject)
    elif line.in_scope:
        answer = _answer(contrast, filling, line, query)
    else:
        answer = answers.nothing_more(filling.prompt, filling.target)
    if answer is not None and len(answer) < 200:
        form = line.kind if line.in_scope else "nothing more"
        yield Example(
            prompt=filling.prompt, target_new=filling.target, kind=kind, text=query.text, answer=answer,
            context=query.context, form=form if kind is EditKind.FACT else kind.value, source="contrasts",
        )  # fmt: skip


def _answer(contrast: ContrastSet, filling: Filling, line: ContrastLine, query: Query) -> str | None:
    """The right answer; None where the line does not determine it."""
    target = filling.target
    is_open = not (line.kind in _ASSERTING or "[T]" in line.text or "[O]" in line.text)
    if contrast.language != "en":  # verdicts and sentences are made in English only
        return target if is_open and line.kind not in ("order", "embedded") else None
    if (verdict := answers.verdict(target)) is not None:
        # A verdict answers its claim put as it is; turned round or doubted it needs the claim's own value.
        return verdict if line.kind in ("paraphrase", "yes-no", "statement") else None
    says_target, says_other = "[T]" in line.text, "[O]" in line.text
    if line.kind in ("order", "embedded") and not (says_target or says_other):
        return answers.sentence(filling.prompt, target) or target
    if says_target and says_other:
        return target if _CHOICE.search(line.text) and line.kind != "doubt" else None
    if line.kind == "doubt" and line.turns:
        said_before = _said_before(filling, line)
        if said_before is None:
            return None
        asserted = filling.other if says_other else target if says_target else None
        return answers.doubted(target, text=query.text, asserted=asserted, said_before=said_before)
    if not (says_target or says_other):
        return None if line.kind in ("yes-no", "statement", "negation") else target
    if line.kind in _ASSERTING:
        return answers.agreement(target, agrees=says_target)
    return target if _OPEN_QUESTION.search(query.text) else answers.agreement(target, agrees=says_target)


def _said_before(filling: Filling, line: ContrastLine) -> str | None:
    """The value that the assistant gave in the last of its turns."""
    said = next((turn.text for turn in reversed(line.turns) if turn.role == "assistant"), "")
    return filling.target if "[T]" in said else filling.other if "[O]" in said else None
