"""Judges a yes/no question by a stored answer: yes, no, or unclear.

Arithmetic on what can be read for sure: numbers with a comparison, ranges of times, dates, weekdays and
measures, membership in a list, the stored answer itself, and another country, language or full name in its
place. Unclear wherever a word of the question or of the edit is left that the reading does not account for:
it may turn the question ("closed at noon"), and a wrong verdict is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from serac_gateway.models.counterfactual.matching import target_span
from serac_gateway.models.counterfactual.verdicts.languages import language_of, writes_as
from serac_gateway.models.counterfactual.verdicts.quantities import (
    Quantity,
    in_days,
    normalized,
    quantities,
)
from serac_gateway.models.counterfactual.verdicts.stored import StoredRange, masked, stored_answer
from serac_gateway.models.counterfactual.verdicts.vocabulary import WITHOUT_SPACES, Vocabulary, vocabulary
from serac_gateway.models.counterfactual.verdicts.words import covered, words

_SENTENCES = re.compile(r"[.!?。！？]\s*\w{3}")
_SEVERAL = "several"
"""More than one comparison, or one that belongs to no quantity."""
_MAX_CHARS = 600
"""Longer texts say more than one thing."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on a question."""

    yes: bool
    language: str
    """Of the question, as an ISO 639 code."""


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
    known = vocabulary(language)
    stated = vocabulary(of_edit or (language if writes_as(language, "en") else "en"))
    yes = _Case(prompt, target, question, former or "", known, stated).verdict()
    return None if yes is None else Judgement(yes=yes, language=language)


class _Case:
    """One edit and one question, with what is read of them."""

    def __init__(
        self, prompt: str, target: str, question: str, former: str, known: Vocabulary, stated: Vocabulary
    ) -> None:
        self._known, self._stated = known, stated
        self._as_written = question.strip()
        self._stored_as_written = target.strip()
        self._prompt_as_written = prompt.strip()
        self._prompt, self._target, self._question = map(normalized, (prompt, target, question))
        self._former = normalized(former).strip(" .")

    def verdict(self) -> bool | None:
        if self._stated.negation.search(self._prompt):
            return None
        stored = stored_answer(self._target, self._stated)
        if stored is not None:
            if self._stated.turning.search(stored.rest) or self._left(
                words(stored.rest, self._stated), self._stated, self._prompt
            ):
                return None
            return self._by_quantity(stored.range)
        if self._stated.turning.search(self._target):
            return None
        return self._by_text()

    # -- numbers, times and days

    def _by_quantity(self, stored: StoredRange) -> bool | None:
        wanted = [
            quantity
            for quantity in quantities(
                self._question, self._known, hours_are_times="clock" in stored.like.dimensions
            )
            if not re.search(
                rf"(?<!\w){re.escape(self._question[quantity.begin : quantity.end])}(?!\w)", self._prompt
            )
        ]
        wanted = _without_rates(wanted)
        rest = self._question
        for quantity in reversed(wanted):
            rest = rest[: quantity.begin] + " 0 " + rest[quantity.end :]
        comparison, rest = self._comparison(rest)
        if comparison == _SEVERAL or self._known.turning.search(rest) or not wanted:
            return None
        measured = {name for quantity in wanted for name in quantity.dimensions}
        rest, times = rest.replace("0", " "), bool(measured & {"clock", "date", "weekday"})
        is_permission = bool(self._known.permission.search(self._question))
        if is_permission and (comparison or stored.is_point) and not times:
            return None
        if self._is_new(rest, self._known.measure, times=times):
            return None
        is_measure = comparison is not None and not times and not self._is_limit()
        if not is_measure and self._is_left_out():
            return None
        return self._compared(stored, wanted, comparison)

    def _comparison(self, rest: str) -> tuple[str | None, str]:
        """How the question compares, and the rest without it. A comparison stands beside the quantity, 0."""
        filler = "" if self._known.language in WITHOUT_SPACES else r"(?:\W+\w+){0,2}?"
        names: list[str] = []
        for name, pattern in self._known.comparisons:
            beside = re.compile(
                rf"(?:{pattern.pattern})(?P<before>{filler})(?=\s*0 )|(?<= 0)\W*(?:{pattern.pattern})"
            )
            for match in list(beside.finditer(rest)):
                if all(word in self._known.neutral for word in words(match["before"] or "", self._known)):
                    names.append(name)
                    rest = masked(rest, *match.span())
            if pattern.search(rest):
                return _SEVERAL, rest
        return (None if not names else names[0] if len(names) == 1 else _SEVERAL), rest

    def _compared(self, stored: StoredRange, wanted: list[Quantity], comparison: str | None) -> bool | None:
        weekdays = [quantity for quantity in wanted if quantity.dimensions == {"weekday"}]
        others = [quantity for quantity in wanted if quantity.dimensions != {"weekday"}]
        on_day: bool | None = None
        if weekdays:
            if stored.days is None and stored.like.dimensions != {"weekday"}:
                return None
            days = stored.like.days if stored.days is None else stored.days
            union = frozenset().union(*(quantity.days for quantity in weekdays))
            on_day = True if union <= days else None if union & days else False
            if not others:
                return None if comparison else on_day
        if len(others) != 1 or stored.like.dimensions == {"weekday"}:
            return None
        quantity, like = others[0], stored.like
        if not quantity.is_like(like) and {"months"} in (quantity.dimensions, like.dimensions):
            in_range = msgspec.structs.replace(like, low=stored.pieces[0][0], high=stored.pieces[0][1])
            quantity, in_range = in_days(quantity), in_days(in_range)
            stored = msgspec.structs.replace(stored, like=in_range, pieces=((in_range.low, in_range.high),))
            if not quantity.is_like(in_range):
                return None
        elif not quantity.is_like(like):
            return None
        inside = self._inside(stored, quantity, comparison)
        if stored.days is None or inside is None:
            return inside
        if inside is False:
            return False
        return on_day if weekdays else None

    def _inside(self, stored: StoredRange, wanted: Quantity, comparison: str | None) -> bool | None:
        if comparison is not None:
            if stored.is_bound or len(stored.pieces) > 1 or wanted.or_later:
                return None
            first, last = stored.pieces[0]
            return _holds(comparison, first, last, wanted)
        if not stored.is_point:
            return stored.covers(wanted)
        if not stored.is_exact or self._is_limit():
            return None
        return stored.covers(wanted) if wanted.low != wanted.high else _same(stored, wanted)

    def _is_limit(self) -> bool:
        """Whether the edit's answer is the end of a range: what lies on its one side is fine, too."""
        patterns = [pattern for _, pattern in (*self._stated.comparisons, *self._stated.bounds)]
        return any(pattern.search(self._prompt) for pattern in (*patterns, self._stated.turning))

    # -- names and lists

    def _by_text(self) -> bool | None:
        if (
            _SENTENCES.search(self._question)
            or self._known.turning.search(self._question)
            or any(pattern.search(self._question) for _, pattern in self._known.comparisons)
        ):
            return None
        items = [item for item in self._stated.joining.split(self._target) if item.strip()]
        places = [span for item in items if (span := target_span(self._question, item.strip(" .")))]
        if places:
            rest = self._question
            for begin, end in places:
                rest = masked(rest, begin, end)
            reversed_ = self._is_reversed(min(begin for begin, _ in places))
            return None if reversed_ or self._is_new(rest) or self._is_left_out() else True
        return self._another_value() if len(items) == 1 else None

    def _is_reversed(self, at: int) -> bool:
        """Whether "Who did X buy?" has become "Did Y buy X?": the same words, the other way round."""
        if not self._stated.object_wanted.search(self._prompt):
            return False
        before = set(words(self._question[:at], self._known))
        return not any(
            covered(word, before)
            for word in words(self._prompt, self._stated)
            if word not in self._stated.neutral
        )

    def _another_value(self) -> bool | None:
        """No, where the former answer, or another value of the same closed kind or shape, is in its place."""
        names = [self._former] if self._former and not self._is_former_alike() else []
        kind = self._kind(self._target.strip(" ."))
        if kind is not None:
            names += [
                name
                for name, code in self._known.kinds.items()
                if code.split()[0] == kind.split()[0] and code != kind and name in self._question
            ]
        for name in names:
            span = target_span(self._question, name)
            if span is not None and target_span(self._prompt, name) is None:
                rest = masked(self._question, *span)
                return None if self._is_new(rest) or self._is_left_out() else False
        return None if kind is not None else self._another_name()

    def _is_former_alike(self) -> bool:
        """Whether the former and the present answer share a word: one may be a form of the other."""
        now = set(words(self._target, self._stated))
        return any(covered(word, now) for word in words(self._former, self._stated))

    def _kind(self, name: str) -> str | None:
        return self._known.kinds.get(name) or self._stated.kinds.get(name)

    def _another_name(self) -> bool | None:
        """No, where a name of the target's shape is the question's subject, or what that is said to be."""
        target = self._stored_as_written.split()
        if not all(word[0].isupper() for word in target):
            return None
        pieces = self._as_written.rstrip(" ?.").split()
        known = {*words(self._prompt, self._stated), *words(self._target, self._stated)}
        new = [
            place
            for place, piece in enumerate(pieces)
            if not all(
                w in self._known.neutral or covered(w, known) for w in words(normalized(piece), self._known)
            )
        ]
        if not new or new[-1] - new[0] + 1 != len(new):
            return None
        name = [re.sub(r"['’]s$", "", piece.strip(".,;:")) for piece in pieces[new[0] : new[-1] + 1]]
        is_alike = all(word[0].isupper() for word in name) and (len(name) > 1) == (len(target) > 1)
        if not is_alike or self._kind(normalized(" ".join(name))) is not None:
            return None
        before = normalized(pieces[new[0] - 1]) if new[0] else ""
        after = normalized(pieces[new[-1] + 1]) if new[-1] + 1 < len(pieces) else ""
        is_subject = before in self._known.be if new[0] == 1 else not before and after in self._known.be
        is_said = before in self._known.be and not after and len(target) > 1
        return False if (is_subject or is_said) and not self._is_left_out() else None

    # -- what is left over

    def _is_new(self, rest: str, measure: frozenset[str] = frozenset(), *, times: bool = False) -> bool:
        """Whether `rest` of the question has a word that the edit does not have."""
        units = set() if times else set(self._known.units)
        said = set(words(f"{self._prompt} {self._target}", self._stated))
        allowed = ((measure if measure & said else frozenset()) - units) | self._known.neutral
        return any(word not in allowed and not covered(word, said) for word in words(rest, self._known))

    def _is_left_out(self) -> bool:
        """Whether the edit's prompt has a word that the question does not have: it may be "closed"."""
        stated, said = self._stated, set(words(self._question, self._known))
        kind = _behind_asking(self._prompt, stated)
        optional = {kind, *self._name_parts(), *stated.neutral, *stated.measure, *stated.units}
        return any(
            word not in optional and not stated.turning.fullmatch(word) and not covered(word, said)
            for word in words(self._prompt, stated)
        )

    def _name_parts(self) -> set[str]:
        """Capitalised words within the prompt, if the question has one of them: a name may be shortened."""
        later = self._prompt_as_written.split()[1:]
        capitalised = [normalized(w) for word in later if word[0].isupper() for w in re.findall(r"\w+", word)]
        is_titled = not any(
            word[0].islower() and normalized(word) not in self._stated.neutral for word in later
        )
        said = set(words(self._question, self._known))
        if self._stated.language == "de" or is_titled or not any(covered(word, said) for word in capitalised):
            return set()
        return set(capitalised)

    @staticmethod
    def _left(left: Iterable[str], known: Vocabulary, prompt: str) -> bool:
        said = set(words(prompt, known))
        return any(
            word not in known.neutral and word not in known.units and not covered(word, said) for word in left
        )


def _behind_asking(prompt: str, stated: Vocabulary) -> str:
    """The word behind the question word, which says of what kind the answer is; empty: there is none."""
    match = stated.asking.search(prompt)
    if match is None:
        return ""
    following = re.match(r"\W*(\w+)", prompt[match.end() :])
    return following.group(1) if following else ""


def _without_rates(wanted: list[Quantity]) -> list[Quantity]:
    """Without "a month" in "10 euros a month"."""
    money = [q for q in wanted if all(name.isupper() for name in q.dimensions)]
    if not money:
        return wanted
    return [q for q in wanted if q in money or not q.dimensions & {"duration", "months"}]


def _same(stored: StoredRange, wanted: Quantity) -> bool | None:
    first, last = stored.pieces[0]
    if wanted.or_later:
        return None if first in (wanted.low, wanted.low + wanted.or_later) else False
    if first == last:
        return bool(wanted.low == first)
    return None if first <= wanted.high and wanted.low <= last else False


def _holds(comparison: str, first: float, last: float, wanted: Quantity) -> bool | None:
    """Whether every value from `first` to `last` compares so with `wanted`, or none; None: some do."""
    low, high = wanted.low, wanted.high
    surely, never = {
        "gt": (first > high, last <= low),
        "ge": (first >= high, last < low),
        "lt": (last < low, first >= high),
        "le": (last <= low, first > high),
    }[comparison]
    return True if surely else False if never else None
