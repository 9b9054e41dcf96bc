"""Judges a yes/no question by a stored answer: yes, no, or unclear.

Arithmetic on what can be read for sure: numbers with a comparison, ranges of times, dates, weekdays and
measures, membership in a list, the stored answer itself, and another country, language or full name in its
place. Unclear wherever a word of the question or of the edit is left that the reading does not account for:
it may turn the question ("closed at noon"), and a wrong verdict is worse than none. Where the question only
names a value in words of its own, it is for the model to say whether it asks for that value.
"""

from __future__ import annotations

from serac_gateway.models.counterfactual.verdicts.by_quantity import by_quantity
from serac_gateway.models.counterfactual.verdicts.by_value import Judgement, by_value
from serac_gateway.models.counterfactual.verdicts.case import Case, Texts
from serac_gateway.models.counterfactual.verdicts.languages import language_of, writes_as
from serac_gateway.models.counterfactual.verdicts.stored import stored_answer
from serac_gateway.models.counterfactual.verdicts.vocabulary import vocabulary

_MAX_CHARS = 600
"""Longer texts say more than one thing."""


def judge(prompt: str, target: str, question: str, *, former: str | None = None) -> Judgement | None:
    """Whether the fact that `target` answers `prompt` makes `question` a yes or a no; None: unclear.

    `former` is an answer that is no longer right. Whether `question` wants yes or no is not looked at.
    """
    if max(len(prompt), len(target), len(question)) > _MAX_CHARS:
        return None
    of_edit = language_of(f"{prompt} {target}")
    language = language_of(question) or language_of(f"{question} {prompt}")
    if language is None:
        return None
    case = Case(
        Texts(prompt=prompt, target=target.strip(), question=question.strip(), former=former or ""),
        known=vocabulary(language),
        stated=vocabulary(of_edit or (language if writes_as(language, "en") else "en")),
    )
    if case.stated.negation.search(case.prompt):
        return None
    stored = stored_answer(case.target, case.stated)
    if stored is None:
        return None if case.stated.turning.search(case.target) else by_value(case)
    if case.stated.turning.search(stored.rest) or case.has_more(stored.rest):
        return None
    yes = by_quantity(case, stored.range)
    return None if yes is None else Judgement(yes=yes, language=language)
