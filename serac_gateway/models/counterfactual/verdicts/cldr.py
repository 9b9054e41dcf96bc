"""What CLDR says of a language, by babel and unicode-rbnf: numbers, units, money, days and months, names."""

from __future__ import annotations

import re
from itertools import product

from babel import Locale
from babel.dates import get_day_names, get_month_names, get_period_names
from babel.numbers import get_currency_name, get_currency_symbol
from babel.units import format_unit
from unicode_rbnf import RbnfEngine

WITHOUT_SPACES = ("zh", "ja")
"""Languages that do not put spaces between words."""
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


def numbers(language: str) -> dict[str, float]:
    """Spelt-out numbers with their value."""
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


def units(language: str) -> dict[str, tuple[frozenset[str], float]]:
    """Each written form of a unit or currency, with what it may measure and its factor."""
    forms: dict[str, tuple[frozenset[str], float]] = {}
    locales = (language, "en_GB") if language == "en" else (language,)
    for (name, (dimension, factor)), locale in product(_UNITS.items(), locales):
        for length in ("narrow", "short", "long"):
            for number in _FORMATTED:
                text = format_unit(number, name, length=length, locale=locale)
                form = _DIGITS.sub("", text).strip().casefold()
                if form and (len(form) > 1 or not form.isalpha() or language in (*WITHOUT_SPACES, "ko")):
                    forms[form] = (frozenset({dimension}), factor)
    for form, codes in _currency_forms(language).items():
        if form not in forms:
            forms[form] = (frozenset(codes), 1.0)
    for form, name in (
        ("%", "concentr-percent"),
        ("g", "mass-gram"),
        ("m", "length-meter"),
        ("h", "duration-hour"),
        ("l", "volume-liter"),
        ("kilo", "mass-kilogram"),
        ("kilos", "mass-kilogram"),
    ):
        forms.setdefault(form, (frozenset({_UNITS[name][0]}), _UNITS[name][1]))
    return forms


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


def weekdays(language: str) -> dict[str, frozenset[int]]:
    """Names of days; Monday is 0."""
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


def months(language: str) -> dict[str, int]:
    """Names of months; January is 1."""
    return {
        name.casefold().strip("."): month
        for width in ("abbreviated", "wide")
        for context in ("format", "stand-alone")
        for month, name in get_month_names(width, context, locale=language).items()
        if len(name.strip(".")) > 2 or not name.isascii()
    }


def periods(language: str) -> dict[str, str]:
    """Names of parts of the day, with CLDR's name of the part."""
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


def joining(language: str) -> re.Pattern[str]:
    """What stands between the items of a list."""
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


def kinds(language: str) -> dict[str, str]:
    """Names of countries and languages, with a code that begins with the kind."""
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
