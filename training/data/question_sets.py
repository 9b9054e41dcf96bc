"""Pairs from public questions by other authors: parallel ones, by paragraph, by intent, in conversations.

Where a set says that two texts ask the same (one question in two languages, two utterances of one meaning, a
follow-up and its stand-alone form), they are in scope of each other; two questions about one paragraph, place
or dialogue are not, which is what same subject, other attribute means in the wild.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from training.data.files import read_rows
from training.data.pairs import Pair
from training.data.public_sets import ANSWERS

_POLITE = (
    "{q}", "{q}", "{q}", "Please tell me: {q}", "Hi! {q}", "{q} Thanks!", "Quick question: {q}",
    "{q} (asking for a friend)",
    "I need to know this today. {q}", "Q: {q}\nA:", "hello, {q}", "{q} Please answer briefly.",
)  # fmt: skip


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question by another author."""

    text: str
    language: str
    meaning: str
    """Equal for texts that ask the same."""
    group: str
    """Equal for questions about one paragraph, place, dialogue or domain."""
    answer: str | None = None
    is_broad: bool = False
    """Whether texts of one meaning only fall under one heading, so that only other ones say something."""


def question_pairs(data: Path, rng: random.Random, *, edits: int, foreign: float = 0.6) -> Iterator[Pair]:
    """Pairs of `edits` edits from sets that say what asks the same; `foreign` of them across languages."""
    if not edits:
        return
    sets = {name: list(read(data)) for name, read in _SETS.items()}
    makers = {name: _Maker(name, questions, rng) for name, questions in sets.items()}
    weights = {name: min(len(questions), 9_000) ** 0.7 for name, questions in sets.items()}
    names = list(makers)
    for name in rng.choices(names, [weights[n] for n in names], k=edits):
        yield from makers[name].pairs(foreign=rng.random() < foreign)


def follow_up_pairs(data: Path, rng: random.Random, *, edits: int) -> Iterator[Pair]:
    """CANaRD: a question as it stands alone is the edit, as it was asked in its dialogue the query."""
    if not edits:
        return
    dialogues: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in sorted(read_rows(data / "canard/dev.jsonl.gz"), key=lambda row: (row["dialog"], row["turn"])):
        dialogues[row["dialog"]].append(row)
    long_enough = [turns for turns in dialogues.values() if len(turns) > 2]
    for _ in range(edits):
        turns = rng.choice(long_enough)
        place = rng.randrange(1, len(turns))
        edit = turns[place]
        answer = rng.choice(ANSWERS)

        def turn_pair(
            number: int,
            in_scope: bool,
            kind: str,
            *,
            turns: Sequence[dict[str, str]] = turns,
            edit: dict[str, str] = edit,
            answer: str = answer,
        ) -> Pair:
            earlier = tuple(turn["in_context"] for turn in turns[max(0, number - 2) : number])
            return Pair(
                prompt=edit["text"], target=answer, text=turns[number]["in_context"], context=earlier,
                in_scope=in_scope, kind=kind, subject=edit["article"],
            )  # fmt: skip

        yield turn_pair(place, True, "follow-up")
        other = rng.choice([n for n in range(len(turns)) if n != place])
        yield turn_pair(other, False, "follow-up, other question")
        if rng.random() < 0.5:
            stranger = rng.choice(long_enough)
            if stranger[0]["article"] != edit["article"]:
                number = rng.randrange(len(stranger))
                yield turn_pair(number, False, "follow-up, other dialogue", turns=stranger)


class _Maker:
    """Draws edits and queries of one set."""

    def __init__(self, name: str, questions: Sequence[Question], rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._questions = list(questions)
        self._same: dict[str, list[Question]] = defaultdict(list)
        self._group: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            self._same[question.meaning].append(question)
            self._group[question.group].append(question)
        self._answers = [q.answer for q in questions if q.answer] or list(ANSWERS)

    def pairs(self, *, foreign: bool) -> Iterator[Pair]:
        rng = self._rng
        edit = rng.choice(self._questions)
        if foreign and rng.random() < 0.6:  # most edits are English, most foreign queries are asked of them
            english = [q for q in self._same[edit.meaning] if q.language == "en"]
            edit = rng.choice(english or [edit])
        target = (edit.answer or rng.choice(self._answers))[:80]

        def pair(query: Question, in_scope: bool, kind: str) -> Pair:
            text = query.text if query.language != "en" else rng.choice(_POLITE).replace("{q}", query.text)
            if rng.random() < 0.15:
                text = text.rstrip("?？؟").lower()
            return Pair(
                prompt=edit.text, target=target, text=text, in_scope=in_scope, kind=f"{self._name}, {kind}"
            )

        same = [] if edit.is_broad else [q for q in self._same[edit.meaning] if q.text != edit.text]
        wanted = [q for q in same if (q.language != edit.language) == foreign] or same
        if wanted:
            for query in rng.sample(wanted, min(2, len(wanted))):
                yield pair(query, True, "same meaning")
        else:
            yield pair(edit, True, "same words")
        others = [q for q in self._group[edit.group] if q.meaning != edit.meaning]
        if wanted and foreign:
            languages = {q.language for q in wanted} | {edit.language}
            others = [q for q in others if q.language in languages] or others
        elif not foreign:
            others = [q for q in others if q.language == edit.language] or others
        for query in _alike(edit, others, rng, 2):
            yield pair(query, False, "same group")
        if rng.random() < 0.4:
            stranger = rng.choice(self._questions)
            if stranger.group != edit.group:
                yield pair(stranger, False, "another group")


def _alike(edit: Question, others: Sequence[Question], rng: random.Random, count: int) -> list[Question]:
    """One of `others` at random, and the one of some drawn ones that shares most words with the edit."""
    if not others:
        return []
    drawn = rng.sample(list(others), min(12, len(others)))
    words = _words(edit.text)
    drawn.sort(key=lambda question: -len(words & _words(question.text)))
    return list({q.text: q for q in (drawn[0], drawn[-1] if count > 1 else drawn[0])}.values())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _xquad(data: Path) -> Iterator[Question]:
    for row in read_rows(data / "xquad/questions.jsonl.gz"):
        yield Question(
            text=row["text"], language=row["lang"], meaning=row["id"], group=row["para"], answer=row["answer"]
        )


def _qald(data: Path) -> Iterator[Question]:
    for name in ("qald9_train", "qald10"):
        for row in read_rows(data / f"qald/{name}.jsonl.gz"):
            yield Question(
                text=row["text"],
                language=row["lang"].split("_")[0],
                meaning=f"{name}:{row['id']}",
                group=name,
            )


def _rubq(data: Path) -> Iterator[Question]:
    for row in read_rows(data / "rubq/questions.jsonl.gz"):
        group = ",".join(row["subjects"]) or "any"
        yield Question(
            text=row["text"], language=row["lang"], meaning=row["id"], group=group, answer=row["answer"]
        )


def _xsemplr(data: Path) -> Iterator[Question]:
    for name in ("mschema2qa", "movernight"):
        for row in read_rows(data / f"xsemplr/{name}.jsonl.gz"):
            text = re.sub(r"\s+([.,?!؟،])", r"\1", row["text"])
            yield Question(
                text=text, language=row["lang"], meaning=f"{name}:{row['cluster']}", group=row["domain"]
            )


def _overnight(data: Path) -> Iterator[Question]:
    for row in read_rows(data / "overnight/utterances.jsonl.gz"):
        yield Question(text=row["text"], language="en", meaning=row["canonical"], group=row["domain"])


def _assistants(data: Path) -> Iterator[Question]:
    """The sets xSID and MTOP: translations of one utterance ask the same; intents are too broad for that."""
    for row in read_rows(data / "xsid/valid.jsonl.gz"):
        meaning = f"xsid:{row['text_en']}"
        yield Question(
            text=row["text"],
            language=row["lang"],
            meaning=meaning,
            group=f"xsid:{row['cluster'].split('/')[0]}",
        )
    for row in read_rows(data / "xsemplr/mtop.jsonl.gz"):
        yield Question(text=row["text"], language=row["lang"], meaning=row["id"], group=row["cluster"])


def _support(data: Path) -> Iterator[Question]:
    """Bitext's requests, whose clusters are one wish each; numbers and names in them are left as they are."""
    for row in read_rows(data / "bitext_support/utterances.jsonl.gz"):
        text = re.sub(r"\s?\b[A-Z]*\d[\dA-Z-]*\b", "", row["text"])
        yield Question(text=text, language="en", meaning=f"bitext:{row['cluster']}", group="bitext")


def _reading(data: Path) -> Iterator[Question]:
    """Several questions on one paragraph or sentence, in five languages; none has a paraphrase."""
    for row in read_rows(data / "squad_sentence_groups/questions.jsonl.gz"):
        yield Question(text=row["text"], language="en", meaning=row["text"], group=row["sentence_group"])
    for name in ("arcd_ar", "cmrc2018_zh", "faquad_pt", "jaquad_ja"):
        for row in read_rows(data / f"reading_other_languages/{name}.jsonl.gz"):
            yield Question(
                text=row["text"],
                language=row["lang"],
                meaning=row["text"],
                group=str(row["para"]),
                answer=row["answer"],
            )


def _faq(data: Path) -> Iterator[Question]:
    """Questions about one hotel or restaurant, and the same ones about another."""
    for row in read_rows(data / "dstc9_faq/faq_entries.jsonl.gz"):
        name = row.get("name") or ""
        text = (
            row["text"]
            if not name or name.casefold() in row["text"].casefold()
            else f"{name.title()}: {row['text']}"
        )
        yield Question(
            text=text,
            language="en",
            meaning=f"{row['entity']}:{row['doc']}",
            group=str(row["entity"]),
            answer=row["answer"],
        )
    for row in read_rows(data / "covid_faq_pages/questions.jsonl.gz"):
        yield Question(
            text=row["text"],
            language=row["lang"],
            meaning=row["text"],
            group=row["group"],
            answer=row["answer"],
        )


def _intents(data: Path) -> Iterator[Question]:
    """Banking, assistants and shops by intent: a weak sign of one meaning, a strong one of another."""
    for name in ("banking77/train", "clinc150/train", "hwu64/train"):
        for row in read_rows(data / f"{name}.jsonl.gz"):
            group = f"{name}:{row.get('domain') or row['cluster'].split('_')[0]}"
            yield Question(
                text=row["text"], language="en", meaning=row["cluster"], group=group, is_broad=True
            )


def labelled_pairs(data: Path, rng: random.Random, *, rows: int) -> Iterator[Pair]:
    """Arabic question pairs with their authors' labels."""
    if not rows:
        return
    read = read_rows(data / "question_pairs_other_languages/arabic_nsurl.jsonl.gz")
    for row in rng.sample(read, min(rows, len(read))):
        yield Pair(
            prompt=row["text_a"], target=rng.choice(ANSWERS), text=row["text_b"], in_scope=bool(row["label"]),
            kind="arabic, labelled",
        )  # fmt: skip


_SETS = {
    "xquad": _xquad, "qald": _qald, "rubq": _rubq, "xsemplr": _xsemplr, "overnight": _overnight,
    "assistants": _assistants, "bitext": _support, "reading": _reading, "faq": _faq, "intents": _intents,
}  # fmt: skip
