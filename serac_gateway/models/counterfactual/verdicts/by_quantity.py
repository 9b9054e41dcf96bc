"""Judges a question about a number, a time, a day or a range of them, by arithmetic."""

from __future__ import annotations

import re

import msgspec

from serac_gateway.models.counterfactual.verdicts.case import Case
from serac_gateway.models.counterfactual.verdicts.quantities import Quantity, in_days, quantities
from serac_gateway.models.counterfactual.verdicts.stored import StoredRange, masked
from serac_gateway.models.counterfactual.verdicts.vocabulary import LETTER
from serac_gateway.models.counterfactual.verdicts.words import covered, words

_TIMES = frozenset({"clock", "date", "weekday"})
_SHORTEST_NOUN = 4
_POSTPOSED = ("tr", "hi", "ja", "zh", "ko")
"""Languages in which what a number is compared by stands behind it."""


def by_quantity(case: Case, stored: StoredRange) -> bool | None:
    """Whether what the question names lies in the stored range, or compares so with it; None: unclear."""
    wanted = [
        quantity
        for quantity in quantities(
            case.question, case.known, hours_are_times="clock" in stored.like.dimensions
        )
        if not re.search(
            rf"(?<!\w){re.escape(case.question[quantity.begin : quantity.end])}(?!\w)", case.prompt
        )
    ]
    wanted = _without_rates([*wanted, *_single_units(case, wanted)])
    if case.is_about_age():
        if not all(_can_be_age(case, quantity) for quantity in wanted):
            return None
        stored, wanted = _as_ages(stored), [_as_age(quantity) for quantity in wanted]
    rest = case.question
    for quantity in sorted(wanted, key=lambda quantity: -quantity.begin):
        rest = rest[: quantity.begin] + " 0 " + rest[quantity.end :]
    until = dict(case.known.bounds)["le"]
    if re.search(rf"(?:{until.pattern})\s*0 ", rest):
        return None  # "open until noon" says more than "open at noon"
    if not all(_is_counted_alike(case, quantity) for quantity in wanted):
        return None
    comparison, rest = _comparison(case, rest)
    if comparison is None or case.known.turning.search(rest) or not wanted:
        return None
    measured = {name for quantity in wanted for name in quantity.dimensions}
    times, rest = bool(measured & _TIMES), rest.replace("0", " ")
    if not _fits(case, comparison, measured) or (
        case.is_permission(rest)
        and (not case.permits() or (not times and (comparison.name or stored.is_point)))
    ):
        return None
    if comparison.name in ("ge", "le") and _has_limit(case):
        return None  # "at most" is what the edit is about
    if comparison.name and _are_versions(case, stored.like, wanted):
        return None
    if times and case.stated.hours.search(case.prompt):
        without = case.known.hours.sub(" ", case.question)
        if without != case.question and not case.known.open.search(without):
            return None  # "are the hours 10:00" is no question whether it is open then
        rest = case.known.open.sub(" ", rest)
    if not set(case.new_words(rest)) <= _of_measure(case, measured):
        return None
    is_measure = comparison.name is not None and not times and not _is_limit(case)
    if not is_measure and case.is_left_out():
        return None
    return _compared(case, stored, wanted, comparison.name)


def _single_units(case: Case, others: list[Quantity]) -> list[Quantity]:
    """Units without a number behind a comparison, which are one: "longer than an hour" in many languages."""
    units = []
    for _, pattern in case.known.comparisons:
        for match in pattern.finditer(case.question):
            following = re.match(rf"\s*((?:(?!\d){LETTER})+)", case.question[match.end() :])
            unit = case.known.units.get(following.group(1)) if following else None
            if following is None or unit is None or not unit[0] <= {"months", "duration"}:
                continue
            begin, end = match.end() + following.start(1), match.end() + following.end(1)
            if all(end <= other.begin or other.end <= begin for other in others):
                units.append(Quantity(begin=begin, end=end, dimensions=unit[0], low=unit[1], high=unit[1]))
    return sorted(units, key=lambda unit: unit.begin)[:1]


def _is_counted_alike(case: Case, quantity: Quantity) -> bool:
    """Whether a plain number counts what the edit counts, or stands alone: not "1000 people" for a year."""
    following = re.match(rf"\s*({LETTER}+)", case.question[quantity.end :])
    if quantity.dimensions != {"plain"} or following is None or len(following.group(1)) < _SHORTEST_NOUN:
        return True
    edit = set(words(f"{case.prompt} {case.target}", case.stated))
    return all(covered(word, edit) for word in words(following.group(1), case.known)[:1])


def _has_limit(case: Case) -> bool:
    return any(
        pattern.search(case.prompt) for name, pattern in case.stated.comparisons if name in ("ge", "le")
    )


def _are_versions(case: Case, stored: Quantity, wanted: list[Quantity]) -> bool:
    """Whether numbers without a unit have other numbers of decimals: 3.10 comes after 3.9."""
    texts = [case.target[stored.begin : stored.end]]
    texts += [case.question[quantity.begin : quantity.end] for quantity in wanted]
    decimals = {len(re.split("[.,]", text)[1]) for text in texts if len(re.split("[.,]", text)) > 1}
    return stored.dimensions == {"plain"} and len(decimals) > 1


def _can_be_age(case: Case, quantity: Quantity) -> bool:
    """Not "13 children": a number that something is counted by."""
    following = re.match(rf"\s*({LETTER}+)", case.question[quantity.end :])
    is_counted = following is not None and following.group(1) not in case.known.neutral
    return quantity.dimensions != {"plain"} or not is_counted


def _as_age(quantity: Quantity) -> Quantity:
    """A plain number as so many years."""
    if quantity.dimensions != {"plain"}:
        return quantity
    return msgspec.structs.replace(
        quantity, dimensions=frozenset({"months"}), low=12 * quantity.low, high=12 * quantity.high
    )


def _as_ages(stored: StoredRange) -> StoredRange:
    if stored.like.dimensions != {"plain"}:
        return stored
    pieces = tuple((12 * first, 12 * last) for first, last in stored.pieces)
    return msgspec.structs.replace(stored, like=_as_age(stored.like), pieces=pieces)


def _has(text: str, word: str) -> bool:
    return re.search(rf"(?<!{LETTER}){re.escape(word)}(?!{LETTER})", text) is not None


class _Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How a question compares: gt, lt, ge or le and its words; neither: it does not."""

    name: str | None = None
    words: str = ""


def _comparison(case: Case, rest: str) -> tuple[_Comparison | None, str]:
    """The comparison, which stands beside the quantity, a 0, and the rest without it; None: unclear which."""
    comparisons = []
    is_postposed = case.known.language in _POSTPOSED
    for name, pattern in case.known.comparisons:
        before = rf"(?:{pattern.pattern})(?=\s*0 )"
        behind = rf"(?<= 0)\W*(?:{pattern.pattern})" if is_postposed or name in ("ge", "le") else "(?!)"
        for match in list(re.finditer(f"{before}|{behind}", rest)):
            comparisons.append(_Comparison(name=name, words=match.group().strip()))
            rest = masked(rest, *match.span())
        if any(not _has(case.prompt, match.group()) for match in pattern.finditer(rest)):
            return None, rest
    if len(comparisons) > 1:
        return None, rest
    return comparisons[0] if comparisons else _Comparison(), rest


def _of_measure(case: Case, measured: set[str]) -> frozenset[str]:
    """The words that only say what is measured, where the edit measures the same: "cost" of a price."""
    if all(name.isupper() for name in measured):
        kind = "money"
    else:
        kind = {"months": "duration"}.get(name := min(measured), name)
    of_kind = case.known.measured.get(kind, frozenset())
    stated = case.stated.measured.get(kind, frozenset())
    is_same = any(word in stated for word in words(case.prompt, case.stated)) and not case.is_about_age()
    return of_kind if is_same else frozenset()


def _fits(case: Case, comparison: _Comparison, measured: set[str]) -> bool:
    """Whether the comparison is one of what the edit measures: not "higher" of a length."""
    if comparison.name is None:
        return True
    is_temporal = case.known.temporal.fullmatch(comparison.words) is not None
    if is_temporal != bool(measured & _TIMES):
        return False
    if case.known.older.fullmatch(comparison.words) and not case.is_about_age():
        return False
    return measured != {"length"} or bool(case.known.extents.search(comparison.words)) == bool(
        case.stated.extents.search(case.prompt)
    )


def _compared(case: Case, stored: StoredRange, wanted: list[Quantity], comparison: str | None) -> bool | None:
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
    inside = _inside(case, stored, quantity, comparison)
    if stored.days is None or inside is None:
        return inside
    if inside is False:
        return False
    return on_day if weekdays else None


def _inside(case: Case, stored: StoredRange, wanted: Quantity, comparison: str | None) -> bool | None:
    if comparison is not None:
        if stored.is_bound or len(stored.pieces) > 1 or wanted.or_later:
            return None
        first, last = stored.pieces[0]
        return _holds(comparison, first, last, wanted)
    if not stored.is_point:
        inside = stored.covers(wanted)
        is_open_ended = stored.is_bound and "clock" in wanted.dimensions
        return None if inside and (is_open_ended or not _admits(case, wanted)) else inside
    if not stored.is_exact or _is_limit(case):
        return None
    inside = stored.covers(wanted) if wanted.low != wanted.high else _same(stored, wanted)
    # What holds 400 kg holds 300, too: another value than the stored one is a no of times and ages alone.
    is_decided = inside or bool(wanted.dimensions & _TIMES) or case.is_about_age()
    return inside if is_decided else None


def _admits(case: Case, wanted: Quantity) -> bool:
    """Whether every value of the stored range holds: "sizes 15 to 18", but not "it costs 50 to 80 euros"."""
    is_amount = any(word in case.stated.measure for word in words(case.prompt, case.stated))
    is_each = bool(wanted.dimensions & _TIMES) or (wanted.dimensions == {"plain"} and not is_amount)
    return is_each or case.permits() or case.is_about_age()


def _is_limit(case: Case) -> bool:
    """Whether the edit's answer is the end of a range: what lies on its one side is fine, too."""
    patterns = [pattern for _, pattern in (*case.stated.comparisons, *case.stated.bounds)]
    return any(pattern.search(case.prompt) for pattern in (*patterns, case.stated.turning))


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
