"""Other ways to ask an edit's question, made by rules: for trying out what an edit would capture.

Honest about what they are: rearranged words of the prompt, good for a first look at an edit's scope. They
know no synonyms, so they prove nothing about how people really ask; recorded traffic does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

MAX_GENERATED = 16

_BE = r"(?:is|are|was|were)"
_WH = r"(?:who|what|which|where|when)"
_WH_BE = re.compile(rf"(?P<wh>{_WH}) (?P<be>{_BE}) (?P<rest>.+)", re.IGNORECASE)
_OF = re.compile(r"(?P<article>the )?(?P<noun>[\w' -]+?) of (?P<owner>.+)", re.IGNORECASE)
_OWNED = re.compile(r"(?P<owner>.+?)(?:'s|’s) (?P<noun>[\w -]+)")
_CLOZE = re.compile(rf"(?P<topic>.+?) (?P<be>{_BE})", re.IGNORECASE)
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


def asked_otherwise(prompt: str, subject: str | None = None) -> list[GeneratedQuery]:
    """At most `MAX_GENERATED` other ways to ask what `prompt` asks, none twice and none the prompt itself.

    A prompt without a word has none.
    """
    bare = " ".join(prompt.split()).rstrip(" .?!…:_")
    if not any(map(str.isalnum, bare)):
        return []
    found: dict[str, GeneratedQuery] = {}
    for query in _all(bare, subject):
        if query.text != prompt.strip():
            found.setdefault(query.text, query)
    return list(found.values())[:MAX_GENERATED]


def _all(bare: str, subject: str | None) -> Iterator[GeneratedQuery]:
    if found := _WH_BE.fullmatch(bare):
        yield from _of_topic(found["rest"], found["be"].lower(), found["wh"].lower())
    elif _QUESTION.match(bare) is None and _ORDER.match(bare) is None:
        if found := _CLOZE.fullmatch(bare):
            yield from _of_topic(found["topic"], found["be"].lower(), None)
        yield GeneratedQuery(text=f"Complete this: {bare} …", form=ParaphraseKind.CLOZE)
    yield from _in_messages(bare, subject)


def _of_topic(topic: str, be: str, wh: str | None) -> Iterator[GeneratedQuery]:
    """`topic` is what the question is about, "the mayor of Marrowby"; `wh` None: a cloze does not tell."""
    if wh in ("where", "when"):
        yield GeneratedQuery(text=f"Tell me {wh} {_with_verb(topic, be)}.", form=ParaphraseKind.ORDER)
        return
    words = ("who", "what") if wh is None else (wh,)
    for name in _named_otherwise(topic):
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


def _named_otherwise(topic: str) -> Iterator[str]:
    """The topic, and "Marrowby's mayor" for "the mayor of Marrowby" and the other way round."""
    topic = re.sub(r"^The ", "the ", topic)
    yield topic
    if found := _OF.fullmatch(topic):
        yield f"{found['owner']}'s {found['noun']}"
    elif found := _OWNED.fullmatch(topic):
        yield f"the {found['noun']} of {found['owner']}"


def _in_messages(bare: str, subject: str | None) -> Iterator[GeneratedQuery]:
    is_question = _QUESTION.match(bare) is not None
    asked = f"{bare}?" if is_question else bare
    yield GeneratedQuery(text=bare.lower(), form=ParaphraseKind.KEYWORDS)
    if is_question:
        yield GeneratedQuery(text=f"Hi! {asked} Thanks.", form=ParaphraseKind.IN_A_MESSAGE)
    if subject is not None:
        yield GeneratedQuery(text=f"This is about {subject}. {asked}", form=ParaphraseKind.IN_A_MESSAGE)
    yield GeneratedQuery(text=f"Please answer in one word: {asked}", form=ParaphraseKind.IN_A_MESSAGE)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
