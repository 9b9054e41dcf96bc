"""Paraphrases of an edit's prompt, made by rules, to try which queries the edit would capture.

They rearrange the words of the prompt, which is enough for a first look at an edit's scope. The rules have no
synonyms, so they do not show how people really put the question; recorded traffic does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from serac_gateway.control_plane.readings import PromptForm, PromptReading, bare, read_prompt

MAX_GENERATED = 16

_BE = r"(?:is|are|was|were)"
_WH = r"(?:who|what|which|where|when)"
_WH_BE = re.compile(rf"(?P<wh>{_WH}) (?P<be>{_BE}) (?P<rest>.+)", re.IGNORECASE | re.DOTALL)
_OF = re.compile(r"(?:the )?(?P<noun>[\w' -]+?) of (?P<owner>.+)", re.IGNORECASE | re.DOTALL)
_OWNED = re.compile(r"(?P<owner>.+?)['’]s (?P<noun>[\w -]++)", re.DOTALL)
_CLOZE = re.compile(rf"(?P<topic>.+?) (?P<be>{_BE})", re.IGNORECASE | re.DOTALL)
_STATED = re.compile(rf"(?P<topic>.+?) (?P<be>{_BE})(?: (?P<rest>.+))?", re.IGNORECASE | re.DOTALL)
_OURS = re.compile(r"(?:we|i) (?P<rest>.+)", re.IGNORECASE | re.DOTALL)
_PLACE_OR_TIME = re.compile(
    r"(?P<rest>.*?) ?\b(?:in|at|on|from|to|near|since|until)", re.IGNORECASE | re.DOTALL
)
_PERSPECTIVE = {"our": "your", "my": "your", "we": "you", "us": "you", "i": "you"}
_OWN = re.compile(rf"\b(?:{'|'.join(_PERSPECTIVE)})\b", re.IGNORECASE)


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


def paraphrases(
    prompt: str, subject: str | None = None, target_new: str | None = None
) -> list[GeneratedQuery]:
    """At most `MAX_GENERATED` paraphrases of `prompt`, none twice and none equal to it.

    With the answer `target_new`, a statement that has it in it gives questions for it. A prompt without a
    letter or digit has none.
    """
    text = bare(prompt)
    if not any(map(str.isalnum, text)):
        return []
    generated: dict[str, GeneratedQuery] = {}
    for query in _all(text, subject, read_prompt(prompt, target_new)):
        if query.text != prompt.strip():
            generated.setdefault(query.text, query)
    return list(generated.values())[:MAX_GENERATED]


def _all(text: str, subject: str | None, reading: PromptReading) -> Iterator[GeneratedQuery]:
    if reading.form in (PromptForm.STATEMENT, PromptForm.HEADING, PromptForm.KEYWORDS):
        is_statement = reading.form is PromptForm.STATEMENT
        made = list(_of_statement(reading) if is_statement else _of_noun(_small(text, subject)))
        yield from made
        questions = [query.text for query in made if query.form is ParaphraseKind.QUESTION]
        yield from _in_messages(
            bare(questions[0]) if questions else text, subject, is_question=bool(questions)
        )
        return
    if match := _WH_BE.fullmatch(text):
        yield from _of_topic(match["rest"], match["be"].lower(), match["wh"].lower())
    elif reading.form not in (PromptForm.QUESTION, PromptForm.ORDER):
        if match := _CLOZE.fullmatch(text):
            yield from _of_topic(match["topic"], match["be"].lower(), None)
        yield GeneratedQuery(text=f"Complete this: {text} …", form=ParaphraseKind.CLOZE)
    yield from _in_messages(text, subject, is_question=reading.form is PromptForm.QUESTION)


def _of_statement(reading: PromptReading) -> Iterator[GeneratedQuery]:
    """Questions for the answer of a statement, such as "Elsevier is headquartered in Seattle"."""
    before, answer = _from_outside(reading.before), reading.answer
    after = f" {_from_outside(reading.after)}" if reading.after else ""
    if not before:
        for word in ("Who", "What"):
            yield GeneratedQuery(text=f"{word}{after}?", form=ParaphraseKind.QUESTION)
        return
    if match := _STATED.fullmatch(before):
        topic, be, rest = match["topic"], match["be"].lower(), match["rest"]
        if rest is None and not after:
            yield from _of_topic(topic, be, None if answer[:1].isupper() else "what")
        else:
            word, kept = _question_word(rest or "", answer)
            yield GeneratedQuery(
                text=_spaced(f"{word.capitalize()} {be} {topic} {kept}{after}?"), form=ParaphraseKind.QUESTION
            )
            yield GeneratedQuery(
                text=_spaced(f"Tell me {word} {topic} {be} {kept}{after}."), form=ParaphraseKind.ORDER
            )
            yield GeneratedQuery(text=_spaced(f"{topic} {kept}{after}"), form=ParaphraseKind.KEYWORDS)
        yes_or_no = _spaced(f"{be.capitalize()} {topic} {rest or ''} {answer}{after}?")
    elif match := _OURS.fullmatch(reading.before):
        word, kept = _question_word(match["rest"], answer)
        yield GeneratedQuery(
            text=_spaced(f"{word.capitalize()} do you {kept}{after}?"), form=ParaphraseKind.QUESTION
        )
        yield GeneratedQuery(text=_spaced(f"Tell me {word} you {kept}{after}."), form=ParaphraseKind.ORDER)
        yes_or_no = _spaced(f"Do you {match['rest']} {answer}{after}?")
    elif before.isascii():
        yield GeneratedQuery(text=f"{before} what{after}?", form=ParaphraseKind.QUESTION)
        yes_or_no = f"{before} {answer}{after}, right?"
    else:
        yes_or_no = ""
    yield GeneratedQuery(text=_capitalised(before), form=ParaphraseKind.CLOZE)
    if yes_or_no:
        yield GeneratedQuery(text=yes_or_no, form=ParaphraseKind.QUESTION)


def _question_word(rest: str, answer: str) -> tuple[str, str]:
    """The word that asks for `answer` behind `rest`, such as "open at", and what of `rest` stays."""
    match = _PLACE_OR_TIME.fullmatch(rest)
    if match is None:
        return "what", rest
    return ("when" if any(map(str.isdigit, answer)) else "where"), match["rest"]


def _of_noun(noun: str) -> Iterator[GeneratedQuery]:
    """`noun`: a heading or keywords, such as "opening hours"."""
    name = noun.removeprefix("the ").removeprefix("your ")
    if not name.isascii():  # the rules are English
        yield GeneratedQuery(text=name, form=ParaphraseKind.KEYWORDS)
        return
    be = "are" if name.endswith("s") and not name.endswith("ss") else "is"
    yield GeneratedQuery(text=f"What {be} the {name}?", form=ParaphraseKind.QUESTION)
    yield GeneratedQuery(text=f"What {be} your {name}?", form=ParaphraseKind.QUESTION)
    yield GeneratedQuery(text=f"Tell me the {name}.", form=ParaphraseKind.ORDER)
    yield GeneratedQuery(text=f"The {name} {be}", form=ParaphraseKind.CLOZE)
    yield GeneratedQuery(text=name, form=ParaphraseKind.KEYWORDS)


def _small(text: str, subject: str | None) -> str:
    """A heading in small letters, but for the subject and for words like "VPN" or "iOS"."""
    kept = set((subject or "").split())
    return _from_outside(" ".join(
        word if word in kept or not word[1:].islower() else word.lower() for word in text.split()
    ))  # fmt: skip


def _from_outside(text: str) -> str:
    """`text` as others say it: "your" for "our"."""
    return _OWN.sub(lambda match: _PERSPECTIVE[match[0].lower()], text)


def _spaced(text: str) -> str:
    """`text` with single spaces, and none before its end."""
    spaced = " ".join(text.split())
    return spaced[:-2] + spaced[-1] if spaced.endswith((" ?", " .")) else spaced


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


def _in_messages(text: str, subject: str | None, *, is_question: bool) -> Iterator[GeneratedQuery]:
    question = f"{text}?" if is_question else text
    yield GeneratedQuery(text=text.lower(), form=ParaphraseKind.KEYWORDS)
    if is_question:
        yield GeneratedQuery(text=f"Hi! {question} Thanks.", form=ParaphraseKind.IN_A_MESSAGE)
    if subject is not None:
        yield GeneratedQuery(text=f"This is about {subject}. {question}", form=ParaphraseKind.IN_A_MESSAGE)
    yield GeneratedQuery(text=f"Please answer in one word: {question}", form=ParaphraseKind.IN_A_MESSAGE)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
