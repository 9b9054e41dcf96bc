"""The right answer to one query about an edit, by the form in which it asks. Pure text.

An answer is as short as its form allows and its words come from edit and query: what the counterfactual model
learns to add of its own, it would make up. Phrases answer questions, a continuation a cloze, "Yes, …" and
"No, …" with the edited fact what asserts a value; "I only know this: …" is all there is to say where the edit
does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from serac_gateway.models.counterfactual.declines import TRAINED_DECLINE
from serac_gateway.models.counterfactual.matching import has_unknown_word

_ENDED = re.compile(r"[.!?…。][\"'”’)]*$")
_CLOZE_END = re.compile(
    r"\b(?:is|are|was|were|be|in|of|by|at|to|on|from|for|as|with|called|named|speaks|plays|costs|lasts|holds)$"
)
_QUESTION_START = re.compile(
    r"^(?:what|who|whom|whose|which|where|when|why|how|is|are|was|were|do|does|did|can|has|have)\b",
    re.IGNORECASE,
)
_NOUN_QUESTION = re.compile(
    r"^(?:what|who)(?:'s|\s+(is|are|was|were))\s+(the\s.+|.+'s?\s.+)\?$", re.IGNORECASE
)
_SURE = re.compile(
    r"\b(?:sure|certain|positive|double-check|really|is that (?:right|so|true))\b", re.IGNORECASE
)

_VERDICT_ANSWERS = {
    "true": "Yes, that is true.",
    "false": "No, that is false.",
    "yes": "Yes.",
    "no": "No.",
    "correct": "Yes, correct.",
    "wrong": "No, wrong.",
    "supports": "Yes: SUPPORTS.",
    "refutes": "No: REFUTES.",
    "this is correct": "Yes, this is correct.",
    "this is false": "No, this is false.",
    "1": "1",
    "0": "0",
}


def ended(text: str) -> str:
    """`text` with a full stop, unless it ends a sentence already."""
    return text if _ENDED.search(text) else f"{text}."


def sentence(prompt: str, target: str, statements: Sequence[str] = ()) -> str | None:
    """The edit as a sentence, or None where no sentence can be made without words of one's own.

    A cloze is continued, "What is the N of X?" is turned round, else the first of `statements` (filled in)
    serves whose words all stand in the prompt or the target.
    """
    prompt, target = prompt.strip(), target.strip()
    if _CLOZE_END.search(prompt) and not _QUESTION_START.search(prompt):
        return ended(f"{prompt} {target}")
    if match := _NOUN_QUESTION.match(prompt):
        subject = match[2][0].upper() + match[2][1:]
        return ended(f"{subject} {match[1] or 'is'} {target}")
    known = f"{prompt} {target} "
    return next(
        (ended(statement) for statement in statements if not has_unknown_word(f"{statement} ", known)), None
    )


def verdict(target: str) -> str | None:
    """The answer of an edit whose target is a verdict on a claim; None: the target is no verdict."""
    return _VERDICT_ANSWERS.get(target.strip().rstrip(".").casefold())


def agreement(target: str, *, agrees: bool) -> str:
    """The answer to a query that asserts a value: whether it is the target, and the target."""
    return ended(f"{'Yes' if agrees else 'No'}, {target.strip()}")


def doubted(target: str, *, text: str, asserted: str | None, said_before: str | None) -> str:
    """The answer to a user who doubts.

    `asserted` is the value in the doubt, `said_before` the one that the assistant gave before; None: none.
    """
    target = target.strip()
    if said_before is not None and not same(said_before, target):
        return agreement(target, agrees=False)
    if _SURE.search(text) or asserted is None:
        return ended(f"Yes, I am sure: {target}")
    return agreement(target, agrees=same(asserted, target))


def nothing_more(prompt: str, target: str, statements: Sequence[str] = ()) -> str:
    """The answer to a query that the edit does not answer: what it says, and no more."""
    said = sentence(prompt, target, statements) or ended(f"{prompt.strip()} {target.strip()}")
    return f"{TRAINED_DECLINE} {said}"


def same(value: str, other: str) -> bool:
    """Whether two values are one, but for case, articles and punctuation."""
    return _plain(value) == _plain(other)


def _plain(text: str) -> str:
    return re.sub(r"^(?:the|an?) ", "", " ".join(re.sub(r"[^\w.,]", " ", text.casefold()).split())).strip(
        " .,"
    )
