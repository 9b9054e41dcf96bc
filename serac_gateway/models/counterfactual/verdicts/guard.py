"""Holds a model to its verdicts: an answer begins with yes or no only where a judgement says the same.

That a question wants yes or no is seen from the model, which begins so by itself; small models say "No" to
almost anything. Their first word is held, and decides: with a judgement (judge.py) the answer is the verdict
in the question's language and the target; without, the target alone. Where the question names a value in
words of its own ("Did she work in Oslo?"), the judgement needs the model's: for a yes the same verdict, for a
no also a yes to the question with the stored answer in the value's place. A model that is trusted keeps its
verdict where there is no judgement.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.guardrail import AnswerGuard
from serac_gateway.models.counterfactual.verdicts.by_value import Judgement
from serac_gateway.models.counterfactual.verdicts.cldr import WITHOUT_SPACES
from serac_gateway.models.counterfactual.verdicts.judge import judge
from serac_gateway.models.counterfactual.verdicts.languages import language_of
from serac_gateway.models.counterfactual.verdicts.vocabulary import LETTER, languages, verdict_words

FALLBACK_LANGUAGE = "en"
_MAX_WORDINGS = 8
_FIRST_WORD = re.compile(rf"\W*(?P<word>(?:(?![\d_]){LETTER})*)")
_ENDED = re.compile(r"[.!?…。！？।]$")
_LIKE_ENGLISH = (", ", ".")
_SIGNS = {"zh": ("，", "。"), "ja": ("、", "。"), "ar": ("، ", "."), "hi": (", ", "।")}
"""Between verdict and target, and at the end."""


class VerdictGuard(AnswerGuard):
    """Decides on a verdict at an answer's beginning; another guard decides on all other answers."""

    def __init__(
        self,
        guard: AnswerGuard,
        edit: Edit,
        query: Query,
        *,
        is_trusted: bool = False,
        says_yes: Callable[[Query], bool] = lambda query: False,
    ) -> None:
        """Hold answers to `query` to the verdicts of `edit`.

        Args:
            guard: Decides on answers without a verdict.
            edit: A fact.
            query: In scope of it.
            is_trusted: `guard` decides on verdicts that are not judged, too.
            says_yes: Whether the model answers another query with yes.
        """
        self._guard = guard
        self._edit = edit
        self._query = query
        self._is_trusted = is_trusted
        self._says_yes = says_yes
        self._held: str | None = ""
        """None: it is decided whether the answer begins with a verdict."""
        self._said: bool | None = None
        """A trusted verdict, of which nothing is released."""

    @override
    def feed(self, text: str) -> str:
        if self._held is None:
            return self._passed(text)
        self._held += text
        if self.ended:
            return ""
        begun = self._held[_first_word(self._held).end() :]
        return self._decided() if begun else ""

    @override
    def finish(self) -> str:
        if self.ended:
            return ""
        released = self._decided() if self._held is not None else ""
        if not self.ended:
            last = self._guard.finish()
            released += last if self._said is None or released else self._with_verdict(last)
            self.ended = True
        return released

    def _decided(self) -> str:
        held, self._held = self._held or "", None
        said = leading_verdict(held)
        if said is None:
            return self._passed(held)
        judgement, target = self._judgement(said), self._edit.target_new.strip()
        if self._is_trusted and (judgement is None or judgement.yes == said):
            self._said = said
            return self._passed(held)
        self.ended = True
        return target if judgement is None else self._in_language(judgement, target)

    def _judgement(self, said: bool) -> Judgement | None:
        """What holds of the judgement, now that the model has said `said`."""
        judgement = judged(self._edit, self._query)
        if judgement is None or judgement.is_certain:
            return judgement
        if self._is_trusted or judgement.yes != said:
            return None
        if judgement.restated is None:
            return judgement
        restated = msgspec.structs.replace(self._query, text=judgement.restated)
        return judgement if self._says_yes(restated) else None

    def _in_language(self, judgement: Judgement, target: str) -> str:
        """The reply in the language that is wanted; the target alone where its yes and no are not known."""
        wanted = self._query.language
        if wanted is not None and wanted not in languages():
            return target
        return verdict_reply(
            msgspec.structs.replace(judgement, language=wanted or judgement.language), target
        )

    def _with_verdict(self, text: str) -> str:
        """`text`, before which the verdict of the model stands; `text` itself if it begins with one."""
        if leading_verdict(text) is not None or self._said is None:
            return text
        language = self._query.language or language_of(self._query.text) or FALLBACK_LANGUAGE
        language = language if language in languages() else FALLBACK_LANGUAGE
        return verdict_reply(Judgement(yes=self._said, language=language), text)

    def _passed(self, text: str) -> str:
        released = self._guard.feed(text)
        self.ended = self._guard.ended
        if released:
            self._said = None
        return released


class GivenGuard(AnswerGuard):
    """Releases a target as it stands, whatever the model says: one that begins with yes or no itself."""

    def __init__(self, target: str) -> None:
        """`target` is the answer."""
        self._target = target

    @override
    def feed(self, text: str) -> str:
        if self.ended or not text:
            return ""
        return self.finish()

    @override
    def finish(self) -> str:
        released = "" if self.ended else self._target
        self.ended = True
        return released


def fact_guard(
    guard: AnswerGuard, edit: Edit, query: Query, *, says_yes: Callable[[Query], bool]
) -> AnswerGuard:
    """`guard`, held to the edit's verdicts: see the module."""
    target = edit.target_new.strip()
    if leading_verdict(target) is not None:
        return GivenGuard(target)
    return VerdictGuard(guard, edit, query, says_yes=says_yes)


def judged(edit: Edit, query: Query) -> Judgement | None:
    """The judgement on `query` by any wording of the edit; None: unclear, or two wordings disagree."""
    wordings = (edit.prompt, *edit.paraphrases)[:_MAX_WORDINGS]
    judgements = [
        judgement
        for wording in wordings
        if (judgement := judge(wording, edit.target_new, query.text, former=edit.target_true)) is not None
    ]
    judgements.sort(key=lambda judgement: not judgement.is_certain)
    return judgements[0] if len({judgement.yes for judgement in judgements}) == 1 else None


def leading_verdict(text: str) -> bool | None:
    """Whether `text` begins with a yes or a no, in any of the languages; None: with neither."""
    word = unicodedata.normalize("NFKC", _first_word(text)["word"]).casefold()
    if word in _verdicts():
        return _verdicts()[word]
    return next((yes for form, yes in _unspaced_verdicts() if word.startswith(form)), None)


def verdict_reply(judgement: Judgement, target: str) -> str:
    """The verdict in the question's language, then the target."""
    word = verdict_words(judgement.language, yes=judgement.yes)[0]
    between, end = _SIGNS.get(judgement.language, _LIKE_ENGLISH)
    return f"{word[0].upper()}{word[1:]}{between}{target}{'' if _ENDED.search(target) else end}"


def _first_word(text: str) -> re.Match[str]:
    match = _FIRST_WORD.match(text)
    assert match is not None  # both parts may be empty
    return match


@cache
def _verdicts() -> dict[str, bool]:
    return {
        unicodedata.normalize("NFKC", word).casefold(): yes
        for language in languages()
        for yes in (True, False)
        for word in verdict_words(language, yes=yes)
    }


@cache
def _unspaced_verdicts() -> tuple[tuple[str, bool], ...]:
    """Those of languages without spaces, where the first word is the whole clause; the longest first."""
    forms = (
        (word, yes)
        for language in WITHOUT_SPACES
        for yes in (True, False)
        for word in verdict_words(language, yes=yes)
        if len(word) > 1
    )
    return tuple(sorted(forms, key=lambda form: -len(form[0])))
