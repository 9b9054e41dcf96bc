"""What a stored answer says, where it is a number, a time, a day, or a range of them."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import msgspec

from serac_gateway.models.counterfactual.verdicts.quantities import Quantity, in_days, quantities
from serac_gateway.models.counterfactual.verdicts.vocabulary import Vocabulary

_DASH = re.compile(r"\s*[-–—~～〜]\s*")
_APPROXIMATE = 0.1
"""An approximate number is taken as anything within this share of it."""
_DAY_MINUTES = 1440.0
_EARLIEST_BARE_HOUR = 360.0
"""From six o'clock on, "9 to 12" is a morning."""
_YEAR_END = 13 * 32.0


class StoredRange(msgspec.Struct, frozen=True, kw_only=True):
    """The values that a stored answer covers, in one dimension."""

    like: Quantity
    """Measures what the values do."""
    pieces: tuple[tuple[float, float], ...]
    """Each from a first to a last value."""
    is_point: bool
    """A single value: what is compared with it may lie on either side."""
    is_bound: bool
    """Open at one end: "at least 18"."""
    is_exact: bool = True
    days: frozenset[int] | None = None
    """The weekdays on which it holds; None: it says nothing of weekdays."""

    def covers(self, wanted: Quantity) -> bool | None:
        """Whether all of `wanted` lies in the range, or nothing of it; None: neither, or at a time's edge."""
        if self.like.dimensions == {"weekday"}:
            return True if wanted.days <= self.like.days else None if wanted.days & self.like.days else False
        verdicts = {self._covers(wanted.low, wanted.high, clock="clock" in wanted.dimensions)}
        if wanted.or_later:
            later = wanted.or_later
            verdicts.add(self._covers(wanted.low + later, wanted.high + later, clock=True))
        return verdicts.pop() if len(verdicts) == 1 else None

    def _covers(self, low: float, high: float, *, clock: bool) -> bool | None:
        if clock and any(low in piece for piece in self.pieces):
            return None
        if any(first <= low and high <= last for first, last in self.pieces):
            return True
        return None if any(first <= high and low <= last for first, last in self.pieces) else False


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The range of an answer, and its text without what the range says."""

    range: StoredRange
    rest: str


def stored_answer(target: str, vocabulary: Vocabulary) -> StoredAnswer | None:
    """What the normalized `target` says; None: no range, or more than one reading."""
    places = quantities(target, vocabulary)
    if sum("clock" in quantity.dimensions for quantity in places) == 1:
        places = quantities(target, vocabulary, hours_are_times=False)  # a range has two
    weekdays = [quantity for quantity in places if quantity.dimensions == {"weekday"}]
    others = [quantity for quantity in places if quantity.dimensions != {"weekday"}]
    days, rest = _days(target, weekdays, vocabulary)
    if weekdays and days is None:
        return None
    if not others:
        if days is None or not weekdays:
            return None
        like = msgspec.structs.replace(weekdays[0], days=days)
        return StoredAnswer(
            range=StoredRange(like=like, pieces=(), is_point=len(days) == 1, is_bound=False), rest=rest
        )
    if len(others) == 1:
        return _single(others[0], days, rest, vocabulary)
    if len(others) == 2:
        return _between(target, others[0], others[1], days, rest, vocabulary)
    return None


def masked(text: str, begin: int, end: int) -> str:
    """`text` with blanks from `begin` to `end`, so that places stay."""
    return text[:begin] + " " * (end - begin) + text[end:]


def _days(target: str, weekdays: list[Quantity], vocabulary: Vocabulary) -> tuple[frozenset[int] | None, str]:
    rest = target
    for quantity in weekdays:
        rest = masked(rest, quantity.begin, quantity.end)
    if not weekdays:
        return None, rest
    first, last = weekdays[0], weekdays[-1]
    gaps = [target[left.end : right.begin] for left, right in pairwise(weekdays)]
    rest = masked(rest, first.begin, last.end)
    if len(weekdays) == 2 and _is_to(gaps[0], vocabulary) and len(first.days) == len(last.days) == 1:
        (begin,), (end,) = first.days, last.days
        return frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1)), rest
    if all(vocabulary.joining.fullmatch(gap) for gap in gaps):
        return frozenset().union(*(quantity.days for quantity in weekdays)), rest
    return None, rest


def _is_to(gap: str, vocabulary: Vocabulary) -> bool:
    return bool(_DASH.fullmatch(gap)) or bool(vocabulary.to.fullmatch(gap.strip()))


def _single(
    quantity: Quantity, days: frozenset[int] | None, rest: str, vocabulary: Vocabulary
) -> StoredAnswer | None:
    rest = rest[: quantity.begin] + "0" + rest[quantity.end :]
    bounds = []
    for name, pattern in (*vocabulary.comparisons, *vocabulary.bounds):
        if pattern.search(rest):
            bounds.append(name)
            rest = pattern.sub(" ", rest)
    about = bool(vocabulary.about.search(rest))
    rest = vocabulary.about.sub(" ", rest).replace("0", " ")
    if len(bounds) > 1 or quantity.or_later or (about and (bounds or "plain" not in quantity.dimensions)):
        return None
    low, high = quantity.low, quantity.high
    if about:
        low, high = low * (1 - _APPROXIMATE), high * (1 + _APPROXIMATE)
    pieces = {
        "ge": (low, math.inf),
        "le": (-math.inf, high),
        "gt": (math.nextafter(high, math.inf), math.inf),
        "lt": (-math.inf, math.nextafter(low, -math.inf)),
    }
    piece = pieces[bounds[0]] if bounds else (low, high)
    stored = StoredRange(
        like=quantity,
        pieces=(piece,),
        is_point=not bounds,
        is_bound=bool(bounds),
        is_exact=not about,
        days=days,
    )
    return StoredAnswer(range=stored, rest=rest)


def _hour(quantity: Quantity) -> Quantity:
    low = 60 * quantity.low
    return msgspec.structs.replace(
        quantity,
        dimensions=frozenset({"clock"}),
        low=low,
        high=low,
        or_later=720.0 if quantity.low <= 12 else 0.0,
    )


def _between(
    target: str,
    first: Quantity,
    last: Quantity,
    days: frozenset[int] | None,
    rest: str,
    vocabulary: Vocabulary,
) -> StoredAnswer | None:
    if not _is_to(target[first.end : last.begin], vocabulary):
        return None
    if first.dimensions == {"plain"} and last.dimensions != {"plain"} and first.low != 0:
        if "date" in last.dimensions:
            return None
        if "clock" in last.dimensions:
            return _between(target, _hour(first), last, days, rest, vocabulary) if first.low <= 24 else None
        again = quantities(
            target[first.begin : first.end] + target[last.begin : last.end].lstrip("-−0123456789.,"),
            vocabulary,
        )
        if len(again) != 1 or not again[0].is_like(last):
            return None
        first = msgspec.structs.replace(
            first, dimensions=last.dimensions, low=again[0].low, high=again[0].high
        )
    first, last = (first, last) if first.is_like(last) else (in_days(first), in_days(last))
    if _EARLIEST_BARE_HOUR <= first.low < last.low and "clock" in first.dimensions & last.dimensions:
        first, last = (msgspec.structs.replace(end, or_later=0.0) for end in (first, last))
    if not first.is_like(last) or first.or_later or last.or_later:
        return None
    low, high = first.low, last.high
    pieces: tuple[tuple[float, float], ...] = ((low, high),)
    if high < low:
        if "clock" in first.dimensions:
            pieces = ((low, _DAY_MINUTES), (0.0, high))
        elif "date" in first.dimensions:
            pieces = ((low, _YEAR_END), (0.0, high))
        else:
            return None
    rest = masked(rest, first.begin, last.end)
    for _, pattern in vocabulary.bounds:
        rest = pattern.sub(" ", rest)
    stored = StoredRange(like=first, pieces=pieces, is_point=False, is_bound=False, days=days)
    return StoredAnswer(range=stored, rest=rest)
