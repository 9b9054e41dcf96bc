"""Numbers with their units, clock times, dates and weekdays in a text, as intervals that can be compared.

Whatever can be read in two ways is left out or keeps both readings: a wrong reading would be a wrong verdict.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, partial

import msgspec

from serac_gateway.models.counterfactual.verdicts.cldr import WITHOUT_SPACES
from serac_gateway.models.counterfactual.verdicts.vocabulary import LETTER, Vocabulary

_MONTH_DAYS = 30.436875
_MONTH_SLACK_DAYS = 2.5
_DAY_S = 86_400.0
_DAYS_A_MONTH = 32
"""Dates are counted as if each month had so many days: enough to compare them."""
_GROUPED = re.compile(r"\d{1,3}(?:[.,'’\s]\d{3})+")
_NUMBER = r"\d+(?:[.,'’\u00a0\u202f]\d+)*"
_UNATTACHED = r"(?<![a-z0-9.,])(?<![^\W\d_][-/])"
"""Before a number that is no part of a name: not the 11 of K-11."""
_HOUR_SIGNS = {
    "en": "o'clock",
    "de": "uhr",
    "nl": "uur",
    "fr": "h|heures",
    "pt": "h|horas",
    "ja": "時",
    "zh": "点|點|时",
    "ko": "시",
    "hi": "बजे",
}
"""What follows the hour; elsewhere nothing does that could not be a number of hours."""
_HOURS = ("h", "heures", "horas", "uur")
"""Signs behind a time of day that stand behind a duration, too."""


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """A place of a text and what stands there: every value from `low` to `high`."""

    begin: int
    end: int
    dimensions: frozenset[str]
    """What it may measure: "plain", "clock" (minutes), "date", "weekday", a unit's dimension, a currency."""
    low: float
    high: float
    or_later: float = 0.0
    """A second reading is so much later: "8 Uhr" may be in the evening."""
    days: frozenset[int] = frozenset()
    """Of a weekday; Monday is 0."""

    def is_like(self, other: Quantity) -> bool:
        """Whether both measure the same."""
        return bool(self.dimensions & other.dimensions)


def normalized(text: str) -> str:
    """`text` in lower case, without the signs that only vocalise; its length may differ."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u0307", "").replace("ё", "е")
    return re.sub(r"[\u064b-\u0652\u200e\u200f\u00ad]", "", folded)


def number_of(text: str, language: str) -> float | None:
    """The number that `text` writes in digits; None: it can be read in two ways.

    A sign before three last digits groups thousands or begins decimals; English and CJK text writes "1,204",
    other languages "1.204", and the other way round it is not read.
    """
    compact = re.sub(r"['’\s]", "", text)
    signs = [sign for sign in compact if sign in ".,"]
    if not signs:
        return float(compact)
    grouping = "," if language in ("en", "zh", "ja", "ko", "hi", "ar") else "."
    if len(set(signs)) > 1 or len(signs) > 1 or not _GROUPED.fullmatch(compact):
        last = max(compact.rfind("."), compact.rfind(","))
        if len(signs) > 1 and len(set(signs)) == 1:
            return float(re.sub(r"[.,]", "", compact)) if _GROUPED.fullmatch(compact) else None
        return float(re.sub(r"[.,]", "", compact[:last]) + "." + compact[last + 1 :])
    return float(compact.replace(grouping, "")) if grouping in compact else None


def quantities(text: str, vocabulary: Vocabulary, *, hours_are_times: bool = True) -> list[Quantity]:
    """All of normalized `text`, in its order, without overlaps.

    `hours_are_times`: "10 h" is ten o'clock where people write it so, not ten hours.
    """
    places: list[Quantity] = []
    readers = (partial(_clock_times, hours_are_times=hours_are_times), _dates, _weekdays, _with_units, _plain)
    for reader in readers:
        for quantity in reader(text, vocabulary):
            if all(quantity.end <= other.begin or other.end <= quantity.begin for other in places):
                places.append(quantity)
    return sorted(places, key=lambda quantity: quantity.begin)


def _clock_times(text: str, vocabulary: Vocabulary, *, hours_are_times: bool) -> list[Quantity]:
    places = []
    for match in _clock_pattern(vocabulary).finditer(text):
        before, hour, minute, sign, after = (
            match[name] for name in ("before", "hour", "minute", "sign", "after")
        )
        part = vocabulary.periods.get(before or after or "")
        value = int(hour) if hour.isdigit() else int(vocabulary.numbers[hour])
        if value > 24 or not (minute or sign or part):
            continue
        if not (hours_are_times or minute or part) and sign in _HOURS:
            continue
        minutes = 60 * value + int(minute or 0)
        later = 0.0
        if part in ("pm", "noon") or (part or "").startswith(("afternoon", "evening")):
            minutes += 720 if value < 12 else 0
        elif (part or "").startswith("night"):
            minutes += 720 if 6 <= value < 12 else 0
        elif part == "am" or (part or "").startswith("morning"):
            minutes -= 720 if value == 12 else 0
        elif not minute and (value < 12 or vocabulary.language == "en"):
            later = 720.0
        places.append(_quantity(match, "clock", minutes, or_later=later))
    for name, part in vocabulary.periods.items():
        if part in ("noon", "midnight") and len(name) > 1:
            places += [
                _quantity(match, "clock", 720 if part == "noon" else 1440)
                for match in _word(name, vocabulary.language).finditer(text)
            ]
    return places


def _clock_pattern(vocabulary: Vocabulary) -> re.Pattern[str]:
    language = vocabulary.language
    hours = (text for text, number in vocabulary.numbers.items() if number <= 12)
    return _clock_pattern_of(language, tuple(vocabulary.periods), tuple(hours))


@cache
def _clock_pattern_of(language: str, periods: tuple[str, ...], hours: tuple[str, ...]) -> re.Pattern[str]:
    parts, spelt = (
        "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        for forms in (periods, hours)
    )
    signs = _HOUR_SIGNS.get(language, "(?!)")
    end = "" if language in (*WITHOUT_SPACES, "ko") else rf"(?!{LETTER}|:)"
    return re.compile(
        rf"(?:(?P<before>{parts})\s*)?(?<![\d.,:])(?P<hour>[012]?\d|(?<!{LETTER})(?:{spelt}))"
        rf"(?:(?:\s*[:h時点시]\s*|\.(?=[0-5]\d\s*(?:uhr|{parts})))(?P<minute>[0-5]\d)(?:分|분)?)?"
        rf"\s*(?P<sign>{signs})?(?:\s*(?P<after>{parts}))?{end}"
    )


def _dates(text: str, vocabulary: Vocabulary) -> list[Quantity]:
    if vocabulary.language in (*WITHOUT_SPACES, "ko"):
        pattern = re.compile(r"(?<!\d)(?P<month>1[0-2]|[1-9])\s*[月월](?:\s*(?P<day>[0-3]?\d)\s*[日号일])?")
        return [_date(match, int(match["month"]), match["day"]) for match in pattern.finditer(text)]
    places = []
    names = "|".join(re.escape(name) for name in sorted(vocabulary.months, key=len, reverse=True))
    day = r"(?P<day{}>[0-3]?\d)(?:\.|st|nd|rd|th|er|º|ª)?"
    pattern = re.compile(
        rf"(?<!{LETTER})(?<![.,])(?:{day.format(1)}\s*(?:de |of )?)?(?P<month>{names})\.?"
        rf"(?:\s+{day.format(2)}(?![\d:]))?(?!{LETTER})"
    )
    for match in pattern.finditer(text):
        if match["day1"] is None and match["day2"] is None and len(match["month"]) <= 3:
            continue  # "mar" and "may" are words, too
        places.append(_date(match, vocabulary.months[match["month"]], match["day1"] or match["day2"]))
    return places


def _date(match: re.Match[str], month: int, day: str | None) -> Quantity:
    first = month * _DAYS_A_MONTH
    if day is None:
        return _quantity(match, "date", first + 1, first + 31)
    return _quantity(match, "date", first + int(day))


def _weekdays(text: str, vocabulary: Vocabulary) -> list[Quantity]:
    places = []
    for name, days in vocabulary.weekdays.items():
        tail = r"\w{0,3}" if len(name) > 5 else r"s?" if len(name) > 4 else ""
        body = (
            re.escape(name[:-1]) + r"\w{0,3}"
            if vocabulary.language in ("ru", "pl") and len(name) > 4
            else (re.escape(name) + tail)
        )
        if vocabulary.language in (*WITHOUT_SPACES, "ko"):
            body = re.escape(name)
        start = "" if vocabulary.language in (*WITHOUT_SPACES, "ko") else rf"(?<!{LETTER})"
        end = "" if vocabulary.language in (*WITHOUT_SPACES, "ko") else rf"(?!{LETTER})"
        dot = r"\.?" if len(name) <= 4 else ""
        places += [
            Quantity(
                begin=match.start(),
                end=match.end(),
                dimensions=frozenset({"weekday"}),
                low=0.0,
                high=0.0,
                days=days,
            )
            for match in re.finditer(f"{start}{body}{dot}{end}", text)
        ]
    return sorted(places, key=lambda quantity: quantity.begin - quantity.end)


def _with_units(text: str, vocabulary: Vocabulary) -> list[Quantity]:
    places = []
    for begin, end, value, _ in _numbers(text, vocabulary):
        unit = _unit_behind(text, end, vocabulary)
        if unit is not None:
            places.append(_measured(begin, unit[0], value, *unit[1:]))
            continue
        unit = _unit_before(text, begin, vocabulary)
        if unit is not None:
            places.append(_measured(unit[0], end, value, *unit[1:]))
    return places


def _unit_behind(text: str, at: int, vocabulary: Vocabulary) -> tuple[int, frozenset[str], float] | None:
    rest = re.match(r"[\s\u00a0'’-]{0,2}", text[at:])
    start = at + (rest.end() if rest else 0)
    longest = max(map(len, vocabulary.units))
    for length in range(min(longest, len(text) - start), 0, -1):
        form = text[start : start + length]
        unit = vocabulary.units.get(form) or vocabulary.units.get(form.rstrip("."))
        if unit is None:
            continue
        following = re.match(r"\w*", text[start + length :])
        letters = following.end() if following else 0
        spaced = vocabulary.language not in (*WITHOUT_SPACES, "ko") and form[-1].isalpha()
        if spaced and letters > (3 if len(form) > 3 else 0):
            continue
        return start + length + (letters if spaced else 0), *unit
    return None


def _unit_before(text: str, at: int, vocabulary: Vocabulary) -> tuple[int, frozenset[str], float] | None:
    before = text[:at].rstrip()
    for length in range(min(6, len(before)), 0, -1):
        form = before[-length:]
        unit = vocabulary.units.get(form)
        is_currency = unit is not None and all(name.isupper() for name in unit[0])
        if unit is not None and is_currency and not (form[0].isalpha() and before[:-length][-1:].isalpha()):
            return len(before) - length, *unit
    return None


def _measured(begin: int, end: int, value: float, dimensions: frozenset[str], factor: float) -> Quantity:
    if dimensions == {"months"}:
        months = value * factor
        return Quantity(begin=begin, end=end, dimensions=frozenset({"months"}), low=months, high=months)
    return Quantity(begin=begin, end=end, dimensions=dimensions, low=value * factor, high=value * factor)


def in_days(quantity: Quantity) -> Quantity:
    """Calendar months as an interval of days in seconds, to compare them with days; others as they are."""
    if quantity.dimensions != {"months"}:
        return quantity
    slack = _MONTH_SLACK_DAYS
    return msgspec.structs.replace(
        quantity,
        dimensions=frozenset({"duration"}),
        low=(quantity.low * _MONTH_DAYS - slack) * _DAY_S,
        high=(quantity.high * _MONTH_DAYS + slack) * _DAY_S,
    )


def _plain(text: str, vocabulary: Vocabulary) -> list[Quantity]:
    return [
        Quantity(begin=begin, end=end, dimensions=frozenset({"plain"}), low=value, high=value)
        for begin, end, value, spelt in _numbers(text, vocabulary)
        if not spelt
        or (
            value != 1
            and vocabulary.language not in (*WITHOUT_SPACES, "ko")
            and text[begin:end] not in vocabulary.neutral
        )
    ]


def _numbers(text: str, vocabulary: Vocabulary) -> list[tuple[int, int, float, bool]]:
    """Begin, end, value, and whether it is spelt out."""
    places: list[tuple[int, int, float, bool]] = []
    spaced = "" if vocabulary.language in (*WITHOUT_SPACES, "ko") else r"(?<!\w)"
    for match in re.finditer(
        rf"{_UNATTACHED}{spaced}(?P<minus>(?<!\w)[-−](?=\d)|minus )?(?P<digits>{_NUMBER})", text
    ):
        value = number_of(match["digits"], vocabulary.language)
        if value is not None:
            places.append((match.start(), match.end(), -value if match["minus"] else value, False))
    for match in _spelt_pattern(vocabulary.language, tuple(vocabulary.numbers)).finditer(text):
        places.append((match.start(), match.end(), vocabulary.numbers.get(match.group(), 1.0), True))
    return sorted(places)


@cache
def _spelt_pattern(language: str, numbers: tuple[str, ...]) -> re.Pattern[str]:
    forms = "|".join(re.escape(text) for text in sorted(numbers, key=len, reverse=True))
    more = "|an?" if language == "en" else ""
    if language in (*WITHOUT_SPACES, "ko"):
        return re.compile(f"(?:{forms})")
    return re.compile(rf"(?<!{LETTER})(?<!-)(?:{forms}{more})(?!{LETTER})")


def _word(form: str, language: str) -> re.Pattern[str]:
    if language in (*WITHOUT_SPACES, "ko"):
        return re.compile(re.escape(form))
    return re.compile(rf"(?<!{LETTER}){re.escape(form)}(?!{LETTER})")


def _quantity(
    match: re.Match[str], dimension: str, low: float, high: float | None = None, *, or_later: float = 0.0
) -> Quantity:
    return Quantity(
        begin=match.start(),
        end=match.end(),
        dimensions=frozenset({dimension}),
        low=float(low),
        high=float(low if high is None else high),
        or_later=or_later,
    )
