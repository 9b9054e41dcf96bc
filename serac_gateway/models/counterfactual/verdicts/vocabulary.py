"""What is known of a language: the table words.toml, and what CLDR says of its numbers, units and days.

babel has CLDR's names of units, currencies, days, months, countries and languages, unicode-rbnf its spelt-out
numbers. A language is read when the first question in it comes, which takes some 30 ms.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from babel import Locale

from serac_gateway.models.counterfactual.verdicts import cldr

_TABLE = Path(__file__).with_name("words.toml")
LETTER = r"[\w\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963]"
"""A letter, or a sign of Devanagari that belongs to one, which `\\w` leaves out."""


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The words of one language, in lower case. Patterns match whole words."""

    language: str
    neutral: frozenset[str]
    measure: frozenset[str]
    be: frozenset[str]
    comparisons: tuple[tuple[str, re.Pattern[str]], ...]
    """gt, lt, ge, le with their pattern."""
    bounds: tuple[tuple[str, re.Pattern[str]], ...]
    """ge, le with the words that make a bound only in a stored answer."""
    to: re.Pattern[str]
    joining: re.Pattern[str]
    """Between the items of a list."""
    about: re.Pattern[str]
    negation: re.Pattern[str]
    permission: re.Pattern[str]
    turning: re.Pattern[str]
    asking: re.Pattern[str]
    object_wanted: re.Pattern[str]
    measured: dict[str, frozenset[str]]
    """By what is measured: "money", "mass" or "duration", the words that only say so."""
    age: frozenset[str]
    hours: re.Pattern[str]
    open: re.Pattern[str]
    temporal: re.Pattern[str]
    older: re.Pattern[str]
    extents: re.Pattern[str]
    per: re.Pattern[str]
    choice: re.Pattern[str]
    """"True or false"."""
    disputed: re.Pattern[str]
    """Words that deny a statement as a whole: "wrong"."""
    agent: frozenset[str]
    """Before the one who does what a passive says."""
    numbers: dict[str, float]
    units: dict[str, tuple[frozenset[str], float]]
    """Each written form with what it may measure (a currency's code, for money) and its factor."""
    weekdays: dict[str, frozenset[int]]
    """Monday is 0."""
    months: dict[str, int]
    periods: dict[str, str]
    """Names of parts of the day, with CLDR's name for the part."""
    kinds: dict[str, str]
    """Names of countries and languages, with a code that begins with the kind."""


def languages() -> tuple[str, ...]:
    """The languages of the table, as ISO 639 codes."""
    return tuple(_table())


def verdict_words(language: str, *, yes: bool) -> list[str]:
    """The words that begin a yes or a no; the first is the one to answer with. In lower case."""
    return list(_table()[language]["yes" if yes else "no"])


def neutral_words(language: str) -> frozenset[str]:
    """Words that carry nothing to be judged."""
    return frozenset(str(_table()[language]["neutral"]).split())


@cache
def common_words(language: str) -> frozenset[str]:
    """All words of the table that have two letters at least: they show which language a text is in."""
    texts = (
        form
        for forms in _table()[language].values()
        for form in ([forms] if isinstance(forms, str) else forms)
    )
    return frozenset(word for text in texts for word in re.findall(r"(?:(?![\d_])" + LETTER + r"){2,}", text))


@cache
def vocabulary(language: str) -> Vocabulary:
    """All of `language`.

    Raises:
        KeyError: The table lacks it.
    """
    words = _table()[language]

    def pattern(*keys: str) -> re.Pattern[str]:
        return whole_words(language, [form for key in keys for form in words[key]])

    return Vocabulary(
        language=language,
        neutral=neutral_words(language),
        measure=frozenset(str(words["measure"]).split()),
        be=frozenset(str(words["be"]).split()),
        comparisons=tuple((key, pattern(key)) for key in ("ge", "le", "gt", "lt")),
        bounds=(("ge", pattern("from")), ("le", pattern("until"))),
        to=pattern("to"),
        joining=cldr.joining(language),
        about=pattern("about"),
        negation=pattern("negation"),
        permission=pattern("permission"),
        turning=pattern("negation", "turning"),
        asking=whole_words(language, [str(words["asking"])]),
        object_wanted=pattern("object_wanted"),
        measured={
            name: frozenset(str(words[key]).split())
            for name, key in (("money", "money"), ("mass", "weight"), ("duration", "duration"))
        },
        age=frozenset(str(words["age"]).split()),
        hours=pattern("hours"),
        open=pattern("open"),
        temporal=pattern("temporal"),
        older=pattern("older"),
        extents=re.compile("|".join(f"(?<!{LETTER}){form}" for form in words["extents"])),
        per=pattern("per"),
        choice=_choice(language),
        disputed=whole_words(language, words["no"][1:]),
        agent=frozenset(str(words["agent"]).split()),
        numbers=cldr.numbers(language),
        units={
            form: unit
            for form, unit in cldr.units(language).items()
            if form not in (*words["from"], *words["to"])
        },
        weekdays=cldr.weekdays(language),
        months=cldr.months(language),
        periods=cldr.periods(language),
        kinds=cldr.kinds(language),
    )


def whole_words(language: str, forms: list[str]) -> re.Pattern[str]:
    """Matches any of the regular expressions `forms` where no word goes on before or behind it."""
    if not forms:
        return re.compile(r"(?!)")
    longest_first = "|".join(sorted(forms, key=len, reverse=True))
    if language == "hi":
        longest_first = longest_first.replace(r"\w", LETTER)
    return re.compile(
        f"(?:{longest_first})"
        if language in cldr.WITHOUT_SPACES
        else rf"(?<!{LETTER})(?:{longest_first})(?!{LETTER})"
    )


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


def _choice(language: str) -> re.Pattern[str]:
    between = Locale.parse(language).list_patterns["or"]["2"].replace("{0}", "").replace("{1}", "").strip()
    yes, no = ("|".join(_table()[language][key]) for key in ("yes", "no"))
    return whole_words(language, [rf"(?:{yes})\s*{re.escape(between)}\s*(?:{no})"])
