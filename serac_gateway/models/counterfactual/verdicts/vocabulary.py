"""What is known of a language: the table words.toml, and what CLDR says of its numbers, units and days.

babel has CLDR's names of units, currencies, days, months, countries and languages, unicode-rbnf its spelt-out
numbers. A language is read when the first question in it comes, which takes some 30 ms.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
from babel import Locale
from babel.dates import get_day_names, get_month_names, get_period_names
from babel.numbers import get_currency_name, get_currency_symbol
from babel.units import format_unit
from unicode_rbnf import RbnfEngine

_TABLE = Path(__file__).with_name("words.toml")
WITHOUT_SPACES = ("zh", "ja")
"""Languages that do not put spaces between words."""
LETTER = r"[\w\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963]"
"""A letter, or a sign of Devanagari that belongs to one, which `\\w` leaves out."""
_UNITS = {
    "duration-second": ("duration", 1.0),
    "duration-minute": ("duration", 60.0),
    "duration-hour": ("duration", 3_600.0),
    "duration-day": ("duration", 86_400.0),
    "duration-week": ("duration", 604_800.0),
    "duration-month": ("months", 1.0),
    "duration-quarter": ("months", 3.0),
    "duration-year": ("months", 12.0),
    "duration-year-person": ("months", 12.0),
    "duration-decade": ("months", 120.0),
    "length-millimeter": ("length", 0.001),
    "length-centimeter": ("length", 0.01),
    "length-meter": ("length", 1.0),
    "length-kilometer": ("length", 1_000.0),
    "length-inch": ("length", 0.0254),
    "length-foot": ("length", 0.3048),
    "length-yard": ("length", 0.9144),
    "length-mile": ("length", 1_609.344),
    "mass-milligram": ("mass", 1e-6),
    "mass-gram": ("mass", 0.001),
    "mass-kilogram": ("mass", 1.0),
    "mass-tonne": ("mass", 1_000.0),
    "mass-ounce": ("mass", 0.028349523125),
    "mass-pound": ("mass", 0.45359237),
    "volume-milliliter": ("volume", 0.001),
    "volume-centiliter": ("volume", 0.01),
    "volume-liter": ("volume", 1.0),
    "speed-kilometer-per-hour": ("speed", 1.0),
    "speed-mile-per-hour": ("speed", 1.609344),
    "temperature-celsius": ("celsius", 1.0),
    "temperature-fahrenheit": ("fahrenheit", 1.0),
    "concentr-percent": ("percent", 1.0),
    "digital-kilobyte": ("bytes", 1e3),
    "digital-megabyte": ("bytes", 1e6),
    "digital-gigabyte": ("bytes", 1e9),
    "digital-terabyte": ("bytes", 1e12),
    "area-square-meter": ("area", 1.0),
    "area-square-kilometer": ("area", 1e6),
    "area-hectare": ("area", 1e4),
    "power-watt": ("power", 1.0),
    "power-kilowatt": ("power", 1e3),
}
"""CLDR's unit: what it measures, and how many of the base unit it has. A month is no fixed number of days."""
_CURRENCIES = (
    *(
        "EUR",
        "USD",
        "GBP",
        "JPY",
        "CNY",
        "KRW",
        "INR",
        "RUB",
        "TRY",
        "PLN",
        "CHF",
        "SEK",
        "NOK",
        "DKK",
        "CZK",
    ),
    *(
        "HUF",
        "BRL",
        "MXN",
        "CAD",
        "AUD",
        "NZD",
        "AED",
        "SAR",
        "EGP",
        "MAD",
        "KWD",
        "JOD",
        "QAR",
        "ZAR",
        "SGD",
    ),
    *("HKD", "TWD", "THB", "ILS", "UAH", "COP", "CLP", "ARS"),
)
_SPELT_OUT = (*range(1, 101), *range(200, 1000, 100), 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000)
_WITHIN_OTHERS = frozenset(
    {
        *(
            "HK",
            "MO",
            "TW",
            "PR",
            "GU",
            "VI",
            "AS",
            "MP",
            "UM",
            "GL",
            "FO",
            "GI",
            "BM",
            "KY",
            "VG",
            "TC",
            "FK",
            "AI",
        ),
        *(
            "MS",
            "SH",
            "PN",
            "GF",
            "GP",
            "MQ",
            "RE",
            "YT",
            "NC",
            "PF",
            "PM",
            "WF",
            "BL",
            "MF",
            "TF",
            "AW",
            "CW",
            "SX",
        ),
        *(
            "BQ",
            "AX",
            "SJ",
            "IM",
            "JE",
            "GG",
            "CC",
            "CX",
            "NF",
            "CK",
            "NU",
            "TK",
            "HM",
            "BV",
            "GS",
            "IO",
            "AC",
            "TA",
        ),
        *("EU", "EZ", "UN", "EH", "PS", "XK"),
    }
)
"""Territories that lie within another, or may be said to; and what is no country."""
_FORMATTED = (1, 2, 3, 5, 11, 0.5, 100)
_DIGITS = re.compile(r"[\d.,٠-٩०-९]+")


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
        joining=_joining(language),
        about=pattern("about"),
        negation=pattern("negation"),
        permission=pattern("permission"),
        turning=pattern("negation", "turning"),
        asking=whole_words(language, [str(words["asking"])]),
        object_wanted=pattern("object_wanted"),
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
        numbers=_numbers(language),
        units=_units(language),
        weekdays=_weekdays(language),
        months=_months(language),
        periods=_periods(language),
        kinds=_kinds(language),
    )


def whole_words(language: str, forms: list[str]) -> re.Pattern[str]:
    """Matches any of the regular expressions `forms` where no word goes on before or behind it."""
    if not forms:
        return re.compile(r"(?!)")
    longest_first = "|".join(sorted(forms, key=len, reverse=True))
    return re.compile(
        f"(?:{longest_first})"
        if language in WITHOUT_SPACES
        else rf"(?<!{LETTER})(?:{longest_first})(?!{LETTER})"
    )


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


def _numbers(language: str) -> dict[str, float]:
    engine = RbnfEngine.for_language(language)
    spelt = {
        text.replace("\xad", "").casefold(): float(number)
        for number in _SPELT_OUT
        for text in engine.format_number(number).text_by_ruleset.values()
    }
    if language == "en":  # CLDR writes "one hundred", and people also "a hundred"
        spelt |= {text.replace("one ", "a ", 1): n for text, n in spelt.items() if text.startswith("one ")}
    if language == "ar":  # the other case, and the other spelling of a hundred
        spelt |= {text.replace("ون", "ين").replace("مائ", "مئ"): n for text, n in spelt.items()}
    return {text: number for text, number in spelt.items() if not text.isdigit()}


def _units(language: str) -> dict[str, tuple[frozenset[str], float]]:
    units: dict[str, tuple[frozenset[str], float]] = {}
    locales = (language, "en_GB") if language == "en" else (language,)
    for (name, (dimension, factor)), locale in product(_UNITS.items(), locales):
        for length in ("narrow", "short", "long"):
            for number in _FORMATTED:
                text = format_unit(number, name, length=length, locale=locale)
                form = _DIGITS.sub("", text).strip().casefold()
                if form and (len(form) > 1 or not form.isalpha() or language in (*WITHOUT_SPACES, "ko")):
                    units[form] = (frozenset({dimension}), factor)
    for form, codes in _currency_forms(language).items():
        if form not in units:
            units[form] = (frozenset(codes), 1.0)
    for form, name in (
        ("%", "concentr-percent"),
        ("g", "mass-gram"),
        ("m", "length-meter"),
        ("h", "duration-hour"),
        ("l", "volume-liter"),
        ("kilo", "mass-kilogram"),
        ("kilos", "mass-kilogram"),
    ):
        units.setdefault(form, (frozenset({_UNITS[name][0]}), _UNITS[name][1]))
    words = _table()[language]
    return {form: unit for form, unit in units.items() if form not in (*words["from"], *words["to"])}


def _currency_forms(language: str) -> dict[str, set[str]]:
    """Symbols, codes and names; the noun that several names share ("dollars") means any of them."""
    forms: dict[str, set[str]] = {}
    for code in _CURRENCIES:
        names = {get_currency_name(code, number, locale=language).casefold() for number in (1, 2, 5, 1.5)}
        for form in {code.casefold(), get_currency_symbol(code, locale=language).casefold(), *names}:
            forms.setdefault(form, set()).add(code)
        for name in names:
            for word in (name.split()[0], name.split()[-1]):
                forms.setdefault(word, set()).add(code)
    for symbol, code in (
        ("$", "USD"),
        ("£", "GBP"),
        ("¥", "JPY"),
        ("₹", "INR"),
        ("रुपये", "INR"),
        ("₽", "RUB"),
        ("元", "CNY"),
        ("円", "JPY"),
        ("원", "KRW"),
        ("р", "RUB"),
        ("руб", "RUB"),
        ("tl", "TRY"),
        ("zł", "PLN"),
    ):
        forms.setdefault(symbol, set()).add(code)
    return {form: codes for form, codes in forms.items() if form and not form.isdigit()}


def _weekdays(language: str) -> dict[str, frozenset[int]]:
    days: dict[str, frozenset[int]] = {}
    for width in ("short", "abbreviated", "wide"):
        for context in ("format", "stand-alone"):
            for day, name in get_day_names(width, context, locale=language).items():
                form = name.casefold().strip(".")
                if len(form) > (2 if language not in ("de", "ru", *WITHOUT_SPACES) else 1):
                    days[form] = frozenset({day})
                if "-" in form:  # Portuguese says "quarta" for "quarta-feira"
                    days[form.split("-")[0]] = frozenset({day})
    return days


def _months(language: str) -> dict[str, int]:
    return {
        name.casefold().strip("."): month
        for width in ("abbreviated", "wide")
        for context in ("format", "stand-alone")
        for month, name in get_month_names(width, context, locale=language).items()
        if len(name.strip(".")) > 2 or not name.isascii()
    }


def _periods(language: str) -> dict[str, str]:
    periods: dict[str, str] = {}
    for locale in (language, "en"):
        for width in ("wide", "abbreviated"):
            for context in ("format", "stand-alone"):
                try:
                    names = get_period_names(width, context, locale=locale)
                except KeyError:
                    continue
                for part, name in names.items():
                    for form in {name.casefold().replace("\xa0", " "), name.casefold().replace("\xa0", "")}:
                        if locale == language or part in ("am", "pm"):
                            periods.setdefault(form, part)
    return periods | {"a.m.": "am", "p.m.": "pm", "a.m": "am", "p.m": "pm"}


def _joining(language: str) -> re.Pattern[str]:
    ends = {
        locale.list_patterns["standard"][part]
        for locale in map(Locale.parse, (language, "en"))
        for part in ("end", "2")
    }
    words = {end.replace("{0}", "").replace("{1}", "").strip() for end in ends} - {""}
    return re.compile(
        r"\s*[,;、，/&]\s*(?:(?:"
        + "|".join(map(re.escape, words))
        + r")(?!\w)\s*)?|\s+(?:"
        + "|".join(map(re.escape, words))
        + r")\s+|(?<=\w)(?:和|と|及)(?=\w)"
    )


def _choice(language: str) -> re.Pattern[str]:
    between = Locale.parse(language).list_patterns["or"]["2"].replace("{0}", "").replace("{1}", "").strip()
    yes, no = ("|".join(_table()[language][key]) for key in ("yes", "no"))
    return whole_words(language, [rf"(?:{yes})\s*{re.escape(between)}\s*(?:{no})"])


def _kinds(language: str) -> dict[str, str]:
    locale = Locale.parse(language)
    territories = {
        str(name).casefold(): f"country {code}"
        for code, name in locale.territories.items()
        if len(code) == len("FR") and code.isalpha() and code not in _WITHIN_OTHERS
    }
    tongues = {
        str(name).casefold(): f"language {code}"
        for code, name in locale.languages.items()
        if len(code) == len("fr")
    }
    both = territories.keys() & tongues.keys()
    return {name: code for name, code in (territories | tongues).items() if name not in both}
