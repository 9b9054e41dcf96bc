"""One edit and one question, with the words that each has and the other lacks."""

from __future__ import annotations

import re

import msgspec

from serac_gateway.models.counterfactual.verdicts.cldr import WITHOUT_SPACES
from serac_gateway.models.counterfactual.verdicts.quantities import normalized
from serac_gateway.models.counterfactual.verdicts.vocabulary import Vocabulary
from serac_gateway.models.counterfactual.verdicts.words import covered, words


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared, as it was written."""

    prompt: str
    target: str
    question: str
    former: str = ""
    """An answer that is no longer right."""


class Case:
    """An edit and a question, read in the languages they are written in."""

    def __init__(self, written: Texts, *, known: Vocabulary, stated: Vocabulary) -> None:
        """`known` is the language of the question, `stated` that of the edit."""
        self.written = written
        self.known, self.stated = known, stated
        self.prompt, self.target = normalized(written.prompt), normalized(written.target)
        self.question = known.choice.sub(lambda match: " " * len(match.group()), normalized(written.question))
        self.former = normalized(written.former).strip(" .")

    def is_new(self, rest: str) -> bool:
        """Whether `rest` of the question has a word that the edit does not have."""
        return bool(self.new_words(rest))

    def new_words(self, rest: str) -> list[str]:
        """The words of `rest` of the question that the edit does not have, and what it is said to be per."""
        said = set(words(f"{self.prompt} {self.target}", self.stated))
        per = {
            word
            for match in self.known.per.finditer(rest)
            for word in words(rest[match.end() :], self.known)[:1]
        }
        neutral = self.known.neutral - per
        return [word for word in words(rest, self.known) if word not in neutral and not covered(word, said)]

    def is_left_out(self) -> bool:
        """Whether the edit's prompt has a word that the question does not have: it may be "closed"."""
        return bool(self.left_out())

    def left_out(self) -> list[str]:
        """The words of the edit's prompt that the question lacks, without those that it may leave out."""
        stated, said = self.stated, set(words(self.question, self.known))
        kind = _behind_asking(self.prompt, stated)
        free = (stated.turning, stated.asking, *(pattern for _, pattern in stated.bounds))
        optional = {kind, *self._name_parts(), *stated.neutral, *stated.measure, *stated.units}
        return [
            word
            for word in words(self.prompt, stated)
            if word not in optional
            and not any(pattern.fullmatch(word) for pattern in free)
            and not covered(word, said)
        ]

    def _name_parts(self) -> set[str]:
        """Capitalised words within the prompt, if the question has one of them: a name may be shortened."""
        later = self.written.prompt.split()[1:]
        capitalised = [normalized(w) for word in later if word[0].isupper() for w in re.findall(r"\w+", word)]
        is_titled = not any(
            word[0].islower() and normalized(word) not in self.stated.neutral for word in later
        )
        said = set(words(self.question, self.known))
        if self.stated.language == "de" or is_titled or not any(covered(word, said) for word in capitalised):
            return set()
        return set(capitalised)

    def is_permission(self, rest: str | None = None) -> bool:
        """Whether the question, or `rest` of it, asks whether something may be."""
        return self.known.permission.search(self.question if rest is None else rest) is not None

    def permits(self) -> bool:
        """Whether the edit says what may or must be, or when a place is open."""
        patterns = (self.stated.permission, self.stated.turning, self.stated.hours, self.stated.open)
        return any(pattern.search(self.prompt) for pattern in patterns)

    def is_about_age(self) -> bool:
        """Whether the edit is about somebody's age."""
        return any(covered(word, self.stated.age) for word in words(self.prompt, self.stated))

    def has_more(self, rest: str) -> bool:
        """Whether `rest` of the stored answer has a word that neither prompt nor question has."""
        said, stated = set(words(f"{self.prompt} {self.question}", self.stated)), self.stated
        return any(
            word not in stated.neutral and word not in stated.units and not covered(word, said)
            for word in words(rest, stated)
        )

    def compares(self) -> bool:
        """Whether the question has a comparison."""
        return any(pattern.search(self.question) for _, pattern in self.known.comparisons)


def _behind_asking(prompt: str, stated: Vocabulary) -> str:
    """The word behind the question word, which says of what kind the answer is; empty: there is none."""
    match = stated.asking.search(prompt)
    if match is None:
        return ""
    letters = r"\w" if stated.language in WITHOUT_SPACES else r"\w+"
    following = re.match(rf"\W*({letters})", prompt[match.end() :])
    return following.group(1) if following else ""
