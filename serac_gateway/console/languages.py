"""What the console says, by language: one TOML file of texts each, with the same keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources

import msgspec

LANGUAGES = ("en", "de")
"""The first is for browsers that want another one."""


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of one of `LANGUAGES` by their keys."""
    file = resources.files("serac_gateway.console") / "catalogue" / f"{language}.toml"
    return msgspec.toml.decode(file.read_bytes(), type=dict[str, str])


class Texts:
    """The texts of one language, as templates call them."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = catalogue(language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of that key with `{name}` replaced by its value.

        Raises:
            KeyError: There is no such text.
        """
        text = self._texts[key]
        return text.format(**values) if values else text

    @property
    def keys(self) -> Collection[str]:
        """The keys of all texts."""
        return self._texts.keys()

    def name_of(self, group: str, value: object) -> str:
        """The text of a value of the API, as ``state.live``; a value that has none stands for itself."""
        return self._texts.get(f"{group}.{value}", str(value).replace("_", " "))

    def number(self, value: float) -> str:
        """With the language's separator of thousands; decimals as given."""
        written = f"{value:,}"
        return written if self.language == "en" else written.translate(str.maketrans(",.", ".,"))

    def percent(self, share: float) -> str:
        """A share or a difference of shares, to a tenth of a percent."""
        written = f"{share * 100:.1f} %"
        return written if self.language == "en" else written.replace(".", ",")

    def fraction(self, value: float | None, digits: int = 3) -> str:
        """A probability or a cosine; empty for None."""
        if value is None:
            return ""
        written = f"{value:.{digits}f}"
        return written if self.language == "en" else written.replace(".", ",")
