"""Judges a question that names the stored answer, a part of it, or another value in its place."""

from __future__ import annotations

import re
from itertools import pairwise

import msgspec

from serac_gateway.models.counterfactual.matching import target_span
from serac_gateway.models.counterfactual.verdicts.case import Case
from serac_gateway.models.counterfactual.verdicts.cldr import WITHOUT_SPACES
from serac_gateway.models.counterfactual.verdicts.quantities import normalized
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
    question = case.question
    if case.known.turning.search(question) or case.known.disputed.search(question) or case.compares():
        return None
    is_single = not _SENTENCES.search(question)
    items = [item for item in case.stated.joining.split(case.target) if item.strip()]
    places = [span for item in items if (span := _place(case, item.strip(" .")))]
    if places:
        return _named(case, places, is_single=is_single)
    if len(items) != 1 or not is_single:
        return None
    place = _another_value(case)
    if place is None:
        return None
    is_named = case.question[slice(*place)] != case.former and _kind(case, case.target.strip(" .")) is None
    is_certain = not is_named and not _is_new(case, [place]) and not case.is_left_out()
    restated = _restated(case, place)
    if not is_certain and (restated is None or not _is_reworded(case, _new_words(case, [place]))):
        return None
    return Judgement(yes=False, language=case.known.language, is_certain=is_certain, restated=restated)


def _named(case: Case, places: list[tuple[int, int]], *, is_single: bool) -> Judgement | None:
    """Yes for the stored answer, or items of it."""
    if _is_reversed(case, min(begin for begin, _ in places)) or not _keeps_roles(case):
        return None
    new = _new_words(case, places)
    if case.is_permission() and not case.permits():
        return None
    if is_single and not new and not case.is_left_out():
        return Judgement(yes=True, language=case.known.language)
    return (
        Judgement(yes=True, language=case.known.language, is_certain=False)
        if _is_reworded(case, new)
        else None
    )


def _is_reworded(case: Case, new: list[str]) -> bool:
    """Whether the question may say in other words what the prompt says, of a single value.

    What it adds without leaving anything out makes another question of it: the "former" mayor.
    """
    is_name = all(word[0].isupper() for word in case.written.target.split())
    is_listed = case.stated.joining.search(case.target) is not None
    if is_listed or case.is_permission() or not (is_name or not new):
        return False
    as_written = set(re.findall(r"\w+", case.written.question))
    adds_names = any(word.isdigit() or word not in as_written for word in new)
    return not adds_names and len(new) <= len(case.left_out())


def _place(case: Case, value: str) -> tuple[int, int] | None:
    """Where the question has `value`; between letters only in languages without spaces."""
    span = target_span(case.question, value)
    if span is None and case.known.language in WITHOUT_SPACES and len(value) > 1:
        begin = case.question.find(value)
        span = None if begin < 0 else (begin, begin + len(value))
    return span


def _is_new(case: Case, places: list[tuple[int, int]]) -> bool:
    return bool(_new_words(case, places))


def _new_words(case: Case, places: list[tuple[int, int]]) -> list[str]:
    rest = case.question
    for place in places:
        rest = masked(rest, *place)
    return case.new_words(rest)


def _is_reversed(case: Case, at: int) -> bool:
    """Whether "Who did X buy?" has become "Did Y buy X?": the same words, the other way round."""
    before = words(case.question[:at], case.known)
    is_cloze = case.stated.asking.search(case.prompt) is None and not case.prompt.rstrip().endswith("?")
    if is_cloze or case.stated.object_wanted.search(case.prompt):
        named = [word for word in words(case.prompt, case.stated) if word not in case.stated.neutral]
        return not is_cloze and not any(covered(word, before) for word in named)
    is_led_in = bool(before) and before[-1] in case.known.neutral - case.known.be
    return _begins_with_name(case, at) and not is_led_in


def _keeps_roles(case: Case) -> bool:
    """Whether who owns and who does is in the question what it is in the prompt with the stored answer."""
    owners, owned = ({*re.findall(r"(\w+)['’]s\b", text)} for text in (case.question, case.prompt))
    if owners & set(words(case.target, case.stated)) or (owned - owners and owned & _first_words(case)):
        return False
    if (owners - owned) & _behind(words(case.prompt, case.stated), case.stated.be):
        return False  # "Whose boss is Tom?" and "Tom's boss"
    agents = [_behind(words(text, case.known), case.known.agent) for text in (case.question, case.prompt)]
    if agents[1]:
        return agents[0] == agents[1]
    return not agents[0] or agents[0] <= set(words(case.target, case.stated))


def _behind(text: list[str], forms: frozenset[str]) -> set[str]:
    return {after for before, after in pairwise(text) if before in forms}


def _begins_with_name(case: Case, at: int) -> bool:
    """Whether a name of the prompt is the subject of the question, and not the stored answer that follows."""
    names = {normalized(word) for word in re.findall(r"\w+", case.written.prompt)[1:] if word[0].isupper()}
    return bool(names & _first_words(case, at))


def _first_words(case: Case, at: int | None = None) -> set[str]:
    return {piece.strip("¿¡.,;:?!") for piece in case.question[:at].split()[:2]}


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
        span = _place(case, name)
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
    is_verb_first = len(new) > 1 and covered(before, words(case.prompt, case.stated))
    is_subject = before in case.known.be or is_verb_first if new[0] == 1 else after in case.known.be
    is_said = before in case.known.be and not after and len(target) > 1
    return place if is_subject or is_said or before in case.known.agent else None


def _restated(case: Case, place: tuple[int, int]) -> str | None:
    """The question with the stored answer at `place`; None: it cannot be put there."""
    written, (begin, end) = case.written.question, place
    if len(written) != len(case.question):
        return None
    return f"{written[:begin]}{case.written.target}{written[end:]}"
