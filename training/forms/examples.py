"""Examples for the heads that read forms: written requests with their slots filled, and what asks for none.

`training/data/form_requests/*.txt`: "= kind" begins requests for a form, "none" what only looks like one;
then a request a line, "language: text", with the slots [K] (the name of a member), [N] (a number), [L] (words
to begin with) and [G] (a language, by its name in the line's own: CLDR's). Questions are those of the
contrast sets.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from babel import Locale

from serac_gateway.domain.wanted_forms import STRUCTURES
from serac_gateway.models.forms.arguments import gapped, without_quoted
from serac_gateway.models.forms.heads import GAP, NO_FORM
from training.data.contrasts import ContrastSet, filled_in

REQUESTS = Path(__file__).parents[1] / "data" / "form_requests"
LANGUAGES = (
    "en", "de", "fr", "es", "pt", "it", "nl", "pl", "ru", "tr", "ar", "hi", "zh", "ja", "ko", "sv", "da",
    "nb", "cs", "uk", "fi", "el", "he", "fa", "th", "bg", "ro", "hu", "id", "vi",
)  # fmt: skip
"""Those that a request may ask for."""
_KEYS = (
    "answer", "result", "value", "name", "mayor", "price", "employees", "opening_hours", "openingHours",
    "city", "phone_number", "capital", "email", "founded", "year", "leader", "director", "address", "total",
    "population", "naam", "leitung", "preis", "prix", "ville", "respuesta", "nombre", "risposta", "odpowiedz",
    "resposta", "svar", "ответ", "город", "имя", "cevap", "isim", "答案", "名前", "담당자", "count", "status",
    "url", "owner",
)  # fmt: skip
_BEGINNINGS = (
    "The answer is", "Sure:", "According to our records,", "Reply:", "Gladly,", "Info:", "Die Antwort lautet",
    "La réponse est", "Según consta,", "Good question!", "Ответ:", "Dear reader,", "答えは",
)  # fmt: skip
_NUMBERS = ("2", "3", "4", "5", "10", "20")
_BEHIND_QUESTION = 0.5


class FormRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the files."""

    kind: str
    language: str
    text: str
    """With its slots."""


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """A text with its label for one head; those of one `source` are similar."""

    text: str
    label: str
    source: str


def load_form_requests(folder: Path = REQUESTS) -> list[FormRequest]:
    """The requests of all files.

    Raises:
        ValueError: A line is malformed; the message names file and line.
    """
    requests: list[FormRequest] = []
    for file in sorted(folder.glob("*.txt")):
        kind = ""
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            language, sign, text = line.partition(": ")
            if line.startswith("= "):
                kind = line[2:].strip()
            elif line.strip() and (not kind or not sign or not text.strip()):
                raise ValueError(
                    f"{file.name} line {number}: {line!r} is neither '= kind' nor 'language: text'"
                )
            elif line.strip():
                language = {"no": "nb"}.get(language, language)
                requests.append(FormRequest(kind=kind, language=language, text=text.strip()))
    return requests


def kind_examples(requests: Sequence[FormRequest], rng: random.Random) -> Iterator[Labelled]:
    """Each request with its kind, those with slots filled several times."""
    for request in requests:
        times = 5 if "[G]" in request.text else 2 if "[" in request.text else 1
        for _ in range(times):
            text = without_quoted(_filled(request, rng))
            yield Labelled(text=text, label=request.kind, source=request.text)


def wanted_examples(requests: Sequence[FormRequest], rng: random.Random) -> Iterator[Labelled]:
    """Each request for a language with some of the languages, as their codes."""
    for request in requests:
        if "[G]" in request.text:
            for language in rng.sample(LANGUAGES, 12):
                filled = _filled(request, rng, language)
                yield Labelled(text=filled, label=language, source=request.text)


def key_examples(
    requests: Sequence[FormRequest], queries: Sequence[Labelled], rng: random.Random
) -> Iterator[Labelled]:
    """Words of requests for a structure with those around: "yes" for a name. Some stand behind a question."""
    for request in requests:
        if request.kind not in STRUCTURES:
            continue
        question = rng.choice(queries).text.rstrip("?.!") + " " if rng.random() < _BEHIND_QUESTION else ""
        name = rng.choice(_KEYS)
        text = question + request.text.replace("[K]", name)
        words = gapped(text, GAP)
        others = [around for word, around in words if word != name]
        yield from (
            Labelled(text=around, label="yes", source=request.text) for word, around in words if word == name
        )
        for around in rng.sample(others, min(5, len(others))):
            yield Labelled(text=around, label="no", source=request.text)


def questions(sets: Sequence[ContrastSet], rng: random.Random, *, each: int = 3) -> Iterator[Labelled]:
    """Some queries of each set, filled, with their language."""
    for contrast in sets:
        filling = filled_in(contrast, rng, rng.randrange(len(contrast.subjects)), own_prompts=True)
        for line in rng.sample(list(contrast.lines), min(each, len(contrast.lines))):
            yield Labelled(text=filling.fill(line.text), label=contrast.language, source=contrast.name)


def halves(queries: Sequence[Labelled], rng: random.Random) -> Iterator[Labelled]:
    """The beginning and the end of questions, which ask for no form."""
    for question in queries:
        words = question.text.split(" ")
        if len(words) >= 5:
            cut = rng.randrange(2, len(words) - 1)
            for half in (words[:cut], words[cut:]):
                yield Labelled(text=" ".join(half), label=NO_FORM, source=question.source)


def _filled(request: FormRequest, rng: random.Random, language: str | None = None) -> str:
    text = request.text.replace("[K]", rng.choice(_KEYS)).replace("[N]", rng.choice(_NUMBERS))
    text = text.replace("[L]", rng.choice(_BEGINNINGS))
    if "[G]" in text:
        names = Locale.parse(request.language).languages
        text = text.replace("[G]", names[language or rng.choice(LANGUAGES)])
    return text
