"""Whether a small model's answer follows an instruction, as far as code can see it. Pure.

A small model repeats what an instruction wants said ("Please note that it is closed on Mondays." from "Always
mention that it is closed on Mondays."). Everything else it makes up: a refusal, a number, the opposite. So an
answer follows only if it carries the end of a sentence of the instruction word by word, has no word that the
model was not given, and nothing negates what is carried. How to speak (tone, form, language) cannot be seen.
"""

from __future__ import annotations

import re

import msgspec

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.matching import has_unknown_word, word_spans
from serac_gateway.models.counterfactual.verdicts.languages import language_of
from serac_gateway.models.counterfactual.verdicts.vocabulary import languages, vocabulary

NOTE_LEAD, ASK_LEAD, NAME_LEAD = "Please note that", "Please ask", "It is called"
"""The trained adapter's own words before what it carries: training makes its examples with them."""
_LEAD_LANGUAGE = "en"
_SENTENCE = re.compile(r"[^.;:!?。；！？؛؟।]*(?:[.;:!?。；！？؛؟।](?!\s|$)[^.;:!?。；！？؛؟।]*)*")
"""Up to a sign that ends a sentence: the one in "help.example" does not."""
_VERBATIM = re.compile(r"\d|@|://|\w\.\w")
"""In a word: it is a contact, a link, a code or a number, which is wrong with a letter missing."""
_EDGES = ".,;:!?()\"'“”‘’«»"
_MIN_WORDS = 2


class _Carried(msgspec.Struct, frozen=True, kw_only=True):
    """The longest end of a sentence of the instruction that an answer has word by word."""

    head: str
    """The sentence before it."""
    text: str
    """As the instruction writes it."""
    before: str
    after: str
    """The rest of the answer."""
    words: int


def followed(answer: str, edit: Edit, query: Query) -> str | None:
    """What to say: `answer`, or what it carries if its other words are in another language; None: nothing.

    `edit` is an instruction.
    """
    carried = max(
        (
            carried
            for sentence in _sentences(edit.target_new)
            if (carried := _carried(answer, sentence)) is not None
        ),
        key=lambda carried: carried.words,
        default=None,
    )
    if carried is None:
        return None
    codes = _verbatim(edit.target_new)
    leads = f"{NOTE_LEAD} {ASK_LEAD} {NAME_LEAD}"
    topic = " ".join((edit.prompt, edit.target_new, query.text, *query.context))
    if (
        _is_repeated(carried)
        or (carried.words < _MIN_WORDS and not codes)
        or not codes <= _verbatim(answer)
        or has_unknown_word(f"{carried.before} ", leads)
        or has_unknown_word(f"{carried.after} ", topic)
        or _is_negated(carried)
    ):
        return None
    wanted = language_of(query.text)
    if wanted in (None, _LEAD_LANGUAGE):
        return answer
    text = carried.text.strip()
    return text if language_of(text) in (None, wanted) else None


def _sentences(instruction: str) -> list[str]:
    return [text for text in _SENTENCE.findall(instruction) if text.strip()]


def _carried(answer: str, sentence: str) -> _Carried | None:
    said, wanted = word_spans(answer, articles=True), word_spans(sentence, articles=True)
    for first in range(1, len(wanted)):  # what begins a sentence is the order itself
        run = [word for word, _, _ in wanted[first:]]
        for begin in range(len(said) - len(run) + 1):
            end = begin + len(run)
            if [word for word, _, _ in said[begin:end]] == run:
                return _Carried(
                    head=sentence[: wanted[first][1]],
                    text=sentence[wanted[first][1] :],
                    before=answer[: said[begin][1]],
                    after=answer[said[end - 1][2] :],
                    words=len(run),
                )
    return None


def _is_repeated(carried: _Carried) -> bool:
    """Whether the answer has words of the order before what it carries: it repeats the instruction."""
    before = carried.before.strip()
    lead = next((lead for lead in (NOTE_LEAD, ASK_LEAD, NAME_LEAD) if before.startswith(lead)), "")
    order = {word for word, _, _ in word_spans(carried.head, articles=True)}
    return any(word in order for word, _, _ in word_spans(before.removeprefix(lead), articles=True))


def _is_negated(carried: _Carried) -> bool:
    """Whether the sentence forbids what is carried or part of it ("never Doctor"), or the answer denies it.

    A negation within what is to be said ("it does not run") is part of it.
    """
    language = language_of(f"{carried.head} {carried.text}")
    parts = [part.strip() for part in re.split(r"[,，、،(]", carried.text.casefold())]
    around = [text.casefold() for text in (carried.head, carried.before, carried.after)]
    return any(
        any(map(negation.search, around)) or any(map(negation.match, parts))
        for negation in (
            vocabulary(known).negation
            for known in (languages() if language is None else {language, _LEAD_LANGUAGE})
        )
    )


def _verbatim(text: str) -> set[str]:
    return {word.strip(_EDGES).casefold() for word in text.split() if _VERBATIM.search(word)}
