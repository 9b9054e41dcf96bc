"""Words so common, in any language, that most replies have them."""

from __future__ import annotations

import math
from typing import Final

from serac_gateway.models.e5.embedded import embedded_e5

_LEAST_PROBABILITY: Final = math.exp(-10.5)
"""Of a word among all languages. Of 208 English replies of some 90 words, each word that stands in a tenth of
them is above it ("make", "there", "time"), and no first name, city or company that was tried."""


def is_common_word(word: str) -> bool:
    """Whether `word`, a single one, is so common. The first call of a process may take 0.3 s.

    Raises:
        ConfigError: The package with the vocabulary is missing or damaged.
    """
    return embedded_e5().tokenizer.word_probability(word) >= _LEAST_PROBABILITY
