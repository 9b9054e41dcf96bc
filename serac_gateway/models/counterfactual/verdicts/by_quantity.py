"""Judges a question about a number, a time, a day or a range of them, by arithmetic."""

from __future__ import annotations

import re

import msgspec

from serac_gateway.models.counterfactual.verdicts.case import Case
from serac_gateway.models.counterfactual.verdicts.quantities import Quantity, in_days, quantities
from serac_gateway.models.counterfactual.verdicts.stored import StoredRange, masked
from serac_gateway.models.counterfactual.verdicts.vocabulary import WITHOUT_SPACES
from serac_gateway.models.counterfactual.verdicts.words import words

_SEVERAL = "several"
"""More than one comparison, or one that belongs to no quantity."""


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
    wanted = _without_rates(wanted)
    rest = case.question
    for quantity in reversed(wanted):
        rest = rest[: quantity.begin] + " 0 " + rest[quantity.end :]
    comparison, rest = _comparison(case, rest)
    if comparison == _SEVERAL or case.known.turning.search(rest) or not wanted:
        return None
    measured = {name for quantity in wanted for name in quantity.dimensions}
    rest, times = rest.replace("0", " "), bool(measured & {"clock", "date", "weekday"})
    is_permission = bool(case.known.permission.search(case.question))
    if is_permission and (comparison or stored.is_point) and not times:
        return None
    if case.is_new(rest, case.known.measure, times=times):
        return None
    is_measure = comparison is not None and not times and not _is_limit(case)
    if not is_measure and case.is_left_out():
        return None
    return _compared(case, stored, wanted, comparison)


def _comparison(case: Case, rest: str) -> tuple[str | None, str]:
    """How the question compares, and the rest without it. A comparison stands beside the quantity, 0."""
    filler = "" if case.known.language in WITHOUT_SPACES else r"(?:\W+\w+){0,2}?"
    names: list[str] = []
    for name, pattern in case.known.comparisons:
        beside = re.compile(
            rf"(?:{pattern.pattern})(?P<before>{filler})(?=\s*0 )|(?<= 0)\W*(?:{pattern.pattern})"
        )
        for match in list(beside.finditer(rest)):
            if all(word in case.known.neutral for word in words(match["before"] or "", case.known)):
                names.append(name)
                rest = masked(rest, *match.span())
        if pattern.search(rest):
            return _SEVERAL, rest
    return (None if not names else names[0] if len(names) == 1 else _SEVERAL), rest


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
        return stored.covers(wanted)
    if not stored.is_exact or _is_limit(case):
        return None
    return stored.covers(wanted) if wanted.low != wanted.high else _same(stored, wanted)


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
