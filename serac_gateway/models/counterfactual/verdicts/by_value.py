"""Judges a question that names the stored answer, a part of it, or another value in its place."""

from __future__ import annotations

import re

import msgspec

from serac_gateway.models.counterfactual.matching import target_span
from serac_gateway.models.counterfactual.verdicts.case import Case
from serac_gateway.models.counterfactual.verdicts.quantities import normalized, quantities
from serac_gateway.models.counterfactual.verdicts.stored import masked
from serac_gateway.models.counterfactual.verdicts.words import covered, words

_SENTENCES = re.compile(r"[.!?。！？]\s*\w{3}")


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on a question."""

    yes: bool
    language: str
    """Of the question, as an ISO 639 code."""
    is_certain: bool = True
    """Otherwise it holds only if the model's own verdict is the same and `restated`, if given, gets a yes."""
    restated: str | None = None
    """The question with the stored answer in place of the value that it names."""


def by_value(case: Case) -> Judgement | None:
    """A verdict if the question names a value where the edit has the stored answer; None: unclear."""
    question = case.known.choice.sub(" ", case.question)
    if case.known.turning.search(question) or case.known.disputed.search(question) or case.compares():
        return None
    is_single = not _SENTENCES.search(question)
    items = [item for item in case.stated.joining.split(case.target) if item.strip()]
    places = [span for item in items if (span := target_span(case.question, item.strip(" .")))]
    if places:
        return _named(case, places, is_single=is_single)
    if len(items) != 1 or not is_single:
        return None
    place = _another_value(case)
    if place is None:
        return None
    is_certain = not _is_new(case, [place]) and not case.is_left_out()
    restated = _restated(case, place)
    if not is_certain and restated is None:
        return None
    return Judgement(yes=False, language=case.known.language, is_certain=is_certain, restated=restated)


def _named(case: Case, places: list[tuple[int, int]], *, is_single: bool) -> Judgement | None:
    """Yes for the stored answer, or items of it."""
    if _is_reversed(case, min(begin for begin, _ in places)):
        return None
    is_certain = is_single and not _is_new(case, places) and not case.is_left_out()
    if not is_certain and quantities(case.question, case.known) != quantities(case.prompt, case.known):
        numbers = {
            case.question[number.begin : number.end] for number in quantities(case.question, case.known)
        }
        if any(number not in case.prompt and number not in case.target for number in numbers):
            return None
    return Judgement(yes=True, language=case.known.language, is_certain=is_certain)


def _is_new(case: Case, places: list[tuple[int, int]]) -> bool:
    rest = case.question
    for place in places:
        rest = masked(rest, *place)
    return case.is_new(rest)


def _is_reversed(case: Case, at: int) -> bool:
    """Whether "Who did X buy?" has become "Did Y buy X?": the same words, the other way round."""
    if not case.stated.object_wanted.search(case.prompt):
        return False
    before = set(words(case.question[:at], case.known))
    return not any(
        covered(word, before) for word in words(case.prompt, case.stated) if word not in case.stated.neutral
    )


def _another_value(case: Case) -> tuple[int, int] | None:
    """Where the question names the former answer, or a value of the target's closed kind, or of its shape."""
    names = [case.former] if case.former and not _is_former_alike(case) else []
    kind = _kind(case, case.target.strip(" ."))
    if kind is not None:
        names += [
            name
            for name, code in case.known.kinds.items()
            if code.split()[0] == kind.split()[0] and code != kind and name in case.question
        ]
    for name in names:
        span = target_span(case.question, name)
        if span is not None and target_span(case.prompt, name) is None:
            return span
    return None if kind is not None else _another_name(case)


def _is_former_alike(case: Case) -> bool:
    """Whether the former and the present answer share a word: one may be a form of the other."""
    now = set(words(case.target, case.stated))
    return any(covered(word, now) for word in words(case.former, case.stated))


def _kind(case: Case, name: str) -> str | None:
    return case.known.kinds.get(name) or case.stated.kinds.get(name)


def _another_name(case: Case) -> tuple[int, int] | None:
    """Where a name of the target's shape is the question's subject, its agent, or what is said of it."""
    target = case.written.target.split()
    if not all(word[0].isupper() for word in target):
        return None
    known = {*words(case.prompt, case.stated), *words(case.target, case.stated)}
    pieces = list(re.finditer(r"[^\s?!.,:;]+", case.question))
    as_written = re.findall(r"[^\s?!.,:;]+", case.written.question)
    if len(as_written) != len(pieces):
        return None
    new = [
        place
        for place, piece in enumerate(as_written)
        if piece[0].isupper()
        and place
        and not all(
            word in case.known.neutral or covered(word, known)
            for word in words(normalized(piece), case.known)
        )
    ]
    if not new or new[-1] - new[0] + 1 != len(new) or (len(new) > 1) != (len(target) > 1):
        return None
    first, last = pieces[new[0]], pieces[new[-1]]
    place = first.start(), last.end() - (2 if re.search(r"['’]s$", last.group()) else 0)
    if _kind(case, case.question[slice(*place)]) is not None:
        return None
    before = pieces[new[0] - 1].group()
    after = pieces[new[-1] + 1].group() if new[-1] + 1 < len(pieces) else ""
    is_subject = before in case.known.be if new[0] == 1 else after in case.known.be
    is_said = before in case.known.be and not after and len(target) > 1
    return place if is_subject or is_said or before in case.known.agent else None


def _restated(case: Case, place: tuple[int, int]) -> str | None:
    """The question with the stored answer at `place`; None: it cannot be put there."""
    written, (begin, end) = case.written.question, place
    if len(written) != len(case.question):
        return None
    return f"{written[:begin]}{case.written.target}{written[end:]}"
