"""Reads in which form and language a request wants its answer, in any language that the encoder knows.

Sentences of message and system prompt are embedded, and heads on the vectors (heads.py) say which form each
asks for. A sentence that asks its question and for a form at once is read by its pieces (windows.py). No list
of words is behind it. Names of members and words to begin with are taken from the text (arguments.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from serac_gateway.domain.edits import Edit, wordings
from serac_gateway.domain.parts import parts_of
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import STRUCTURES, FormKind, WantedForm
from serac_gateway.models.classifiers.spelling import asks_the_same
from serac_gateway.models.counterfactual.verdicts.languages import language_of
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.forms.arguments import (
    foreign_name,
    gapped,
    last_name,
    without_quoted,
    written_beginning,
    written_bullet,
    written_keys,
    written_marks,
    written_object,
)
from serac_gateway.models.forms.heads import (
    GAP,
    KEY,
    KINDS,
    NO_FORM,
    SPOKEN,
    WANTED,
    FormHeads,
)
from serac_gateway.models.forms.windows import clauses, rough_pieces, windows

SURE: Final = 0.5
"""The least probability of a form that a sentence of a message asks for."""
SURE_OF_PIECE: Final = 0.8
"""The same of a piece of a sentence: of many pieces one is like a form by chance."""
SURE_OF_MUCH: Final = 0.9
"""The same of anything for a form that changes more than signs around the answer."""
SURE_OF_INSTRUCTIONS: Final = 0.7
"""The same of a sentence of a system prompt, which speaks of many things."""
MAY_HOLD: Final = 0.15
"""The least probability of any form in a rough piece of a sentence for all pieces to be read."""
SURE_OF_LANGUAGE: Final = 0.5
SURE_OF_KEY: Final = 0.7
SURE_OF_SPOKEN: Final = 0.8
_COMMONEST: Final = "en"
"""What a text of names alone is taken for."""
_MAX_GAPS: Final = 24
_JOINED_FROM: Final = "\u1100"
"""Letters of scripts that write words together, or particles on to them: a name has to be quoted."""
_REMEMBERED: Final = 256
_GROUPS: Final = (
    frozenset({*STRUCTURES, FormKind.OTHER}),
    frozenset({FormKind.SENTENCE, FormKind.BARE, FormKind.YES_NO, FormKind.BEGIN}),
    frozenset({FormKind.UPPER, FormKind.LOWER}),
    frozenset({FormKind.BULLET}),
    frozenset({FormKind.QUOTES}),
    frozenset({FormKind.LANGUAGE}),
)
"""An answer has one form of each group."""


_MUCH: Final = frozenset({FormKind.OTHER, FormKind.BEGIN})
_BESIDE_OTHERS: Final = frozenset({FormKind.LANGUAGE, FormKind.UPPER, FormKind.LOWER})


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that asks for a form."""

    kind: FormKind
    probability: float
    text: str
    sentence: str
    """The sentence that it is from; of a system prompt all of it."""


class FormReader:
    """Reads forms by the encoder whose vectors the heads were trained on. Thread-safe."""

    def __init__(self, encoder: Encoder, heads: FormHeads) -> None:
        self._encoder = encoder
        self._heads = heads
        self._of_instructions = lru_cache(_REMEMBERED)(self._read_instructions)

    def read(self, query: Query, edit: Edit) -> WantedForm:
        """The form in which `query`, in scope of `edit`, wants its answer.

        Raises:
            ModelUnavailableError: The encoder failed.
        """
        wishes: list[_Wish] = []
        question = None
        if not any(asks_the_same(wording, query.text) for wording in wordings(edit)):
            wishes, question = self._read_message(query.text, edit.prompt)
        of_instructions = self._of_instructions(query.instructions) if query.instructions else ()
        chosen = {wish.kind: wish for wish in _chosen([*wishes, *of_instructions])}
        kinds = list(chosen)
        key = None
        structure = next((wish for kind, wish in chosen.items() if kind in STRUCTURES), None)
        if structure is not None:
            written = self._written_keys(structure, [*wishes, *of_instructions])
            key = written[0] if written else self._likely_key(structure)
            if len(written) > 1:  # a value fills no more than one
                kinds = [FormKind.OTHER if kind in STRUCTURES else kind for kind in kinds]
        begin, wish = chosen.get(FormKind.BEGIN), chosen.get(FormKind.LANGUAGE)
        spoken = self._spoken_language(question or query.text, edit)
        language = spoken if wish is None else self._wanted_language(wish) or spoken
        if language == spoken:  # the answer has it anyway
            kinds = [kind for kind in kinds if kind is not FormKind.LANGUAGE]
        marks, bullet = chosen.get(FormKind.QUOTES), chosen.get(FormKind.BULLET)
        return WantedForm(
            kinds=tuple(kinds),
            key=key,
            marks=(written_marks(marks.sentence) if marks is not None else None) or WantedForm().marks,
            bullet=(written_bullet(bullet.sentence) if bullet is not None else None) or WantedForm().bullet,
            beginning=None if begin is None else written_beginning(begin.sentence),
            language=language,
            question=question,
        )

    def _read_message(self, text: str, prompt: str) -> tuple[list[_Wish], str | None]:
        """What a message asks for, and the message without it; None: nothing is to be left out.

        The sentence that is most like the edit's `prompt` asks the question; the others may be a form as they
        are.
        """
        sentences = [part.text for part in parts_of(text)]
        if not sentences:
            return [], None
        vectors_BD = self._encoder.encode([*map(without_quoted, sentences), prompt])
        asking = int((vectors_BD[:-1] @ vectors_BD[-1]).argmax())
        read = self._heads.likeliest_but(KINDS, NO_FORM, vectors_BD[:-1])
        wishes: list[_Wish] = []
        left: list[str] = []
        for place, (sentence, (kind, probability)) in enumerate(zip(sentences, read, strict=True)):
            is_form = _is_wish(kind, probability, text, least=SURE)
            whole = [_wish(kind, probability, sentence, sentence)] if is_form else []
            if place != asking and (written := written_object(sentence)) is not None:
                wishes.append(_wish(FormKind.JSON, 1.0, written, sentence))
                continue
            if is_form and place != asking:
                wishes += [*whole, *self._pieces(sentence, windows(sentence))]
                continue
            if place == asking:
                pieces = self._inner_pieces(sentence)
                wishes += pieces or whole
                for piece in sorted(pieces, key=lambda piece: -len(piece.text)):
                    sentence = sentence.replace(piece.text, " ", 1)
            left.append(sentence)
        question = " ".join(" ".join(left).split()).strip(" ,;:—–、，；：")
        return wishes, question if wishes and any(map(str.isalnum, question)) else None

    def _inner_pieces(self, sentence: str) -> list[_Wish]:
        """What pieces of a sentence that also asks its question ask for."""
        if (written := written_object(sentence)) is not None:
            return [_wish(FormKind.JSON, 1.0, written, sentence)]
        rough = [without_quoted(sentence[begin:end]) for begin, end in rough_pieces(sentence)]
        if not rough or self._heads.of(KINDS, NO_FORM, self._encoder.encode(rough)).min() > 1 - MAY_HOLD:
            return []
        return self._pieces(sentence, windows(sentence))

    def _pieces(self, sentence: str, spans: Sequence[tuple[int, int]]) -> list[_Wish]:
        """What pieces of a sentence ask for: for each form the piece that does so most clearly."""
        texts = [sentence[begin:end] for begin, end in spans]
        if not texts:
            return []
        best: dict[str, _Wish] = {}
        for text, (kind, probability) in zip(texts, self._kinds(texts), strict=True):
            if not _is_wish(kind, probability, sentence, least=SURE_OF_PIECE):
                continue
            if kind not in best or probability > best[kind].probability:
                best[kind] = _wish(kind, probability, text, sentence)
        return list(best.values())

    def _kinds(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """What each text asks for, with the probability."""
        return self._heads.best(KINDS, self._encoder.encode([without_quoted(text) for text in texts]))

    def _read_instructions(self, text: str) -> tuple[_Wish, ...]:
        """What the sentences of a system prompt, and their clauses, ask for."""
        wishes: list[_Wish] = []
        for part in parts_of(text):
            spans = clauses(part.text)
            texts = [part.text, *(part.text[begin:end] for begin, end in spans if len(spans) > 1)]
            for passage, (kind, probability) in zip(texts, self._kinds(texts), strict=True):
                if _is_wish(kind, probability, text, least=SURE_OF_INSTRUCTIONS):
                    wishes.append(_wish(kind, probability, passage, text))
        return tuple(wishes)

    def _written_keys(self, structure: _Wish, wishes: Sequence[_Wish]) -> tuple[str, ...]:
        """The names that signs mark in the passage, else in its sentence, else in others for a form."""
        for text in (structure.text, structure.sentence, *(wish.sentence for wish in wishes)):
            if keys := written_keys(text):
                return keys
        ends = (last_name(text) for text in (structure.sentence, *(wish.sentence for wish in wishes)))
        return tuple(end for end in ends if end is not None and end.casefold() not in STRUCTURES)[:1]

    def _likely_key(self, structure: _Wish) -> str | None:
        """The word of a passage's sentence that is most likely a name; None: none is."""
        for text in (structure.text, structure.sentence):
            if (name := foreign_name(text, besides=STRUCTURES)) is not None:
                return name
        words = gapped(structure.sentence, GAP)
        place = structure.sentence[: structure.sentence.find(structure.text)].count(" ")
        words = words[max(0, place - _MAX_GAPS // 2) :][:_MAX_GAPS]
        words = [
            pair for pair in words if pair[0].casefold() not in STRUCTURES and max(pair[0]) < _JOINED_FROM
        ]
        if not words:
            return None
        likely_G = self._heads.of(KEY, "yes", self._encoder.encode([around for _, around in words]))
        best = int(likely_G.argmax())
        return words[best][0] if likely_G[best] >= SURE_OF_KEY else None

    def _wanted_language(self, wish: _Wish) -> str | None:
        """The language that a passage asks for; None: none is clear."""
        ((language, probability),) = self._heads.best(WANTED, self._encoder.encode([wish.text]))
        return language if probability >= SURE_OF_LANGUAGE else None

    def _spoken_language(self, text: str, edit: Edit) -> str | None:
        """The language of a message, by the words that the edit does not have: names look English."""
        known = {word.casefold() for word in f"{edit.prompt} {edit.target_new}".split()}
        own = " ".join(word for word in text.split() if word.casefold() not in known)
        own = own if len(own.split()) > 1 else text
        by_words = language_of(text)
        ((language, probability),) = self._heads.best(SPOKEN, self._encoder.encode([own]))
        if probability < SURE_OF_SPOKEN or (by_words is not None and language == _COMMONEST):
            return by_words
        return language


def _wish(kind: str, probability: float, text: str, sentence: str) -> _Wish:
    return _Wish(kind=FormKind(kind), probability=probability, text=text, sentence=sentence)


def _chosen(wishes: Sequence[_Wish]) -> list[_Wish]:
    """One wish a group: the message's, which come first, before the system prompt's; then the clearest."""
    wishes = [wish for wish in wishes if wish.kind is not FormKind.OTHER or _is_clearest(wish, wishes)]
    chosen: list[_Wish] = []
    for group in _GROUPS:
        of_group = [wish for wish in wishes if wish.kind in group]
        if of_group:
            first = of_group[0].sentence
            same = [wish for wish in of_group if wish.sentence == first]
            chosen.append(max(same, key=lambda wish: wish.probability))
    return chosen


def _is_wish(kind: str, probability: float, text: str, *, least: float) -> bool:
    """Whether a passage of `text` asks for a form surely enough, for a structure by its name or signs.

    Their names are the same in all languages.
    """
    if kind == NO_FORM or probability < (SURE_OF_MUCH if kind in _MUCH else least):
        return False
    return kind not in STRUCTURES or kind in text.casefold() or any(sign in text for sign in "<{")


def _is_clearest(other: _Wish, wishes: Sequence[_Wish]) -> bool:
    """Whether no other form is asked for more clearly there: "without reasons" is like one."""
    beside = (wish for wish in wishes if wish.sentence == other.sentence and wish.kind not in _BESIDE_OTHERS)
    return all(wish.probability <= other.probability for wish in beside)
