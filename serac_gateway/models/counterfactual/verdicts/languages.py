"""The language of a question, of those that can be judged: by its script, then by its commonest words."""

from __future__ import annotations

import re

from serac_gateway.models.counterfactual.verdicts.quantities import normalized
from serac_gateway.models.counterfactual.verdicts.vocabulary import common_words, languages

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7a3]")),
    ("zh", re.compile(r"[\u3400-\u9fff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
)
_SCRIPT_SHARE = 0.25
"""The rest may be names in another script."""
_WORD = re.compile(r"(?<!\w)[^\W\d_]{2,}(?!\w)")


def language_of(text: str) -> str | None:
    """An ISO 639 code; None: two languages but English are as likely, or nothing shows which it is."""
    letters = sum(map(str.isalpha, text))
    for language, script in _SCRIPTS:
        if len(script.findall(text)) > _SCRIPT_SHARE * letters:
            return language
    words = _WORD.findall(normalized(text))
    latin = [language for language in languages() if language not in dict(_SCRIPTS)]
    counts = {language: sum(word in common_words(language) for word in words) for language in latin}
    best = max(counts.values())
    likeliest = [language for language in latin if counts[language] == best]
    if best and "en" in likeliest:
        return "en"  # a negation of another language would have counted for that one
    return likeliest[0] if len(likeliest) == 1 else None


def writes_as(language: str, other: str) -> bool:
    """Whether two languages use the same script."""
    scripts = dict(_SCRIPTS)
    return scripts.get(language) is scripts.get(other)
