"""Paraphrases of an edit's prompt, made by rules, to try which queries the edit would capture.

They rearrange the words of the prompt, which is enough for a first look at an edit's scope. The rules have no
synonyms, so they do not show how people really put the question; recorded traffic does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

MAX_GENERATED = 16

_BE = r"(?:is|are|was|were)"
_WH = r"(?:who|what|which|where|when)"
_WH_BE = re.compile(rf"(?P<wh>{_WH}) (?P<be>{_BE}) (?P<rest>.+)", re.IGNORECASE | re.DOTALL)
_OF = re.compile(r"(?:the )?(?P<noun>[\w' -]+?) of (?P<owner>.+)", re.IGNORECASE | re.DOTALL)
_OWNED = re.compile(r"(?P<owner>.+?)['’]s (?P<noun>[\w -]++)", re.DOTALL)
_CLOZE = re.compile(rf"(?P<topic>.+?) (?P<be>{_BE})", re.IGNORECASE | re.DOTALL)
_QUESTION = re.compile(
    rf"(?:{_WH}|whom|whose|why|how|do|does|did|is|are|was|were|can|will|has|have)\b", re.IGNORECASE
)
_ORDER = re.compile(r"(?:tell|give|name|show|list|explain|describe|let|remind)\b", re.IGNORECASE)


class ParaphraseKind(StrEnum):
    """The form of a generated query."""

    QUESTION = "question"
    CLOZE = "cloze"
    """A statement that lacks its end."""
    ORDER = "order"
    KEYWORDS = "keywords"
    IN_A_MESSAGE = "in_a_message"


class GeneratedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query made from an edit's prompt."""

    text: str
    form: ParaphraseKind


def paraphrases(prompt: str, subject: str | None = None) -> list[GeneratedQuery]:
    """At most `MAX_GENERATED` paraphrases of `prompt`, none twice and none equal to it.

    A prompt without a letter or digit has none.
    """
    bare = " ".join(prompt.split()).rstrip(" .?!…:_")
    if not any(map(str.isalnum, bare)):
        return []
    generated: dict[str, GeneratedQuery] = {}
    for query in _all(bare, subject):
        if query.text != prompt.strip():
            generated.setdefault(query.text, query)
    return list(generated.values())[:MAX_GENERATED]


def _all(bare: str, subject: str | None) -> Iterator[GeneratedQuery]:
    if match := _WH_BE.fullmatch(bare):
        yield from _of_topic(match["rest"], match["be"].lower(), match["wh"].lower())
    elif _QUESTION.match(bare) is None and _ORDER.match(bare) is None:
        if match := _CLOZE.fullmatch(bare):
            yield from _of_topic(match["topic"], match["be"].lower(), None)
        yield GeneratedQuery(text=f"Complete this: {bare} …", form=ParaphraseKind.CLOZE)
    yield from _in_messages(bare, subject)


def _of_topic(topic: str, be: str, wh: str | None) -> Iterator[GeneratedQuery]:
    """`topic`: such as "the mayor of Marrowby". `wh`: the question word; None: a cloze has none."""
    if wh in ("where", "when"):
        yield GeneratedQuery(text=f"Tell me {wh} {_with_verb(topic, be)}.", form=ParaphraseKind.ORDER)
        return
    words = ("who", "what") if wh is None else (wh,)
    for name in _names(topic):
        for word in words:
            yield GeneratedQuery(text=f"{word.capitalize()} {be} {name}?", form=ParaphraseKind.QUESTION)
            yield GeneratedQuery(text=f"Tell me {word} {name} {be}.", form=ParaphraseKind.ORDER)
        yield GeneratedQuery(text=f"{_capitalised(name)} {be}", form=ParaphraseKind.CLOZE)
        yield GeneratedQuery(text=f"Name {name}.", form=ParaphraseKind.ORDER)
        yield GeneratedQuery(text=name.removeprefix("the "), form=ParaphraseKind.KEYWORDS)


def _with_verb(topic: str, be: str) -> str:
    """Such as "Ada was born" for "Ada born" and "was": a participle follows its verb."""
    name, _, last = topic.rpartition(" ")
    return f"{name} {be} {last}" if name and last.islower() else f"{topic} {be}"


def _names(topic: str) -> Iterator[str]:
    """The topic, and "Marrowby's mayor" for "the mayor of Marrowby" and the other way round."""
    topic = re.sub(r"^The ", "the ", topic)
    yield topic
    if match := _OF.fullmatch(topic):
        yield f"{match['owner']}'s {match['noun']}"
    elif match := _OWNED.fullmatch(topic):
        yield f"the {match['noun']} of {match['owner']}"


def _in_messages(bare: str, subject: str | None) -> Iterator[GeneratedQuery]:
    is_question = _QUESTION.match(bare) is not None
    question = f"{bare}?" if is_question else bare
    yield GeneratedQuery(text=bare.lower(), form=ParaphraseKind.KEYWORDS)
    if is_question:
        yield GeneratedQuery(text=f"Hi! {question} Thanks.", form=ParaphraseKind.IN_A_MESSAGE)
    if subject is not None:
        yield GeneratedQuery(text=f"This is about {subject}. {question}", form=ParaphraseKind.IN_A_MESSAGE)
    yield GeneratedQuery(text=f"Please answer in one word: {question}", form=ParaphraseKind.IN_A_MESSAGE)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
