"""What form an edit's prompt has: a question, a statement with its answer in it, a heading, and so on."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from serac_gateway.domain.naming import spans

_BE = r"(?:is|are|was|were)"
_QUESTION = re.compile(
    r"(?:who|what|which|where|when|whom|whose|why|how|do|does|did|is|are|was|were|can|will|has|have)\b",
    re.IGNORECASE,
)
_QUESTION_MARKS = ("?", "？", "؟", "՞", ";")
_ORDER = re.compile(r"(?:tell|give|name|show|list|explain|describe|let|remind)\b", re.IGNORECASE)
_CLOZE_ENDS = ("…", "...", "__", ":")
_CLOZE_VERB = re.compile(rf" {_BE}\Z", re.IGNORECASE)
_SENTENCE_ENDS = (".", "!", "。", "！", "।")
_VERB = re.compile(rf"\b(?:{_BE}|has|have|can|will|must|we)\b", re.IGNORECASE)
_MAX_KEYWORDS = 6
_SMALL_WORD_CHARS = 4
"""Words of a heading up to this length may be written small."""


class PromptForm(StrEnum):
    """The form in which a prompt is written."""

    QUESTION = "question"
    STATEMENT = "statement"
    """A sentence with the new answer in it."""
    CLOZE = "cloze"
    """A sentence that the new answer completes."""
    ORDER = "order"
    HEADING = "heading"
    """A few words, capitalised as in a title."""
    KEYWORDS = "keywords"
    TEXT = "text"
    """Any other text."""


class PromptReading(msgspec.Struct, frozen=True, kw_only=True):
    """How a prompt is read."""

    form: PromptForm
    before: str = ""
    """Of a statement, the words before its answer."""
    answer: str = ""
    """Of a statement, the answer as it stands there."""
    after: str = ""
    """Of a statement, the words after its answer."""

    @property
    def gap(self) -> str | None:
        """A statement with a gap in the place of its answer; None: it is none."""
        if self.form is not PromptForm.STATEMENT:
            return None
        return " ".join(filter(None, (self.before, "…", self.after)))


def bare(prompt: str) -> str:
    """The prompt on a single line, without the punctuation at its end."""
    return " ".join(prompt.split()).rstrip(" .?!…:_。？！؟।")


def read_prompt(prompt: str, target_new: str | None = None) -> PromptReading:
    """The form of `prompt`. The words by which questions and orders begin are English ones.

    A question mark and an answer that stands in the prompt are recognised in any language.
    """
    text = " ".join(prompt.split())
    if text.endswith(_QUESTION_MARKS) or (_QUESTION.match(text) and not text.endswith(".")):
        return PromptReading(form=PromptForm.QUESTION)
    if target_new is not None and (statement := _statement(bare(text), bare(target_new))):
        return statement
    if _ORDER.match(text):
        return PromptReading(form=PromptForm.ORDER)
    if text.endswith(_CLOZE_ENDS) or _CLOZE_VERB.search(text):
        return PromptReading(form=PromptForm.CLOZE)
    words = text.split()
    if text.endswith(_SENTENCE_ENDS) or _VERB.search(text) or len(words) > _MAX_KEYWORDS:
        return PromptReading(form=PromptForm.TEXT)
    is_heading = words[:1] and all(
        not word[0].isalpha() or word[0].isupper() or (place and len(word) <= _SMALL_WORD_CHARS)
        for place, word in enumerate(words)
    )
    return PromptReading(form=PromptForm.HEADING if is_heading else PromptForm.KEYWORDS)


def _statement(text: str, answer: str) -> PromptReading | None:
    """A text around `answer`; None: the answer does not stand in it, or nothing else does."""
    places = spans(answer, text)
    if not places:
        return None
    begin, end = places[-1]
    before, after = text[:begin].strip(), text[end:].strip()
    if not any(map(str.isalnum, before + after)):
        return None
    return PromptReading(
        form=PromptForm.STATEMENT, before=before, answer=text[begin:end], after=after
    )  # fmt: skip
