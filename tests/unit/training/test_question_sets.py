"""Pairs of public question sets: one meaning in scope, one group and another meaning out of scope."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from training.data import question_sets
from training.data.question_sets import Question, follow_up_pairs, labelled_pairs


def rows(path: Path, *records: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode(), mtime=0))


def question(text: str, meaning: str, language: str = "en", *, is_broad: bool = False) -> Question:
    return Question(text=text, language=language, meaning=meaning, group="hall", is_broad=is_broad)


QUESTIONS = [
    question("When was Larch Hall built?", "built"),
    question("Wann wurde Larch Hall gebaut?", "built", "de"),
    question("Who owns Larch Hall?", "owner"),
    question("Wem gehört Larch Hall?", "owner", "de"),
]


def pairs_of(questions: list[Question], *, foreign: bool) -> list[tuple[str, str, bool]]:
    maker = question_sets._Maker("hall", questions, random.Random(5))
    return [(p.prompt, p.text, p.in_scope) for _ in range(60) for p in maker.pairs(foreign=foreign)]


def meaning_in(text: str) -> str:
    return "built" if "built" in text.casefold() or "gebaut" in text.casefold() else "owner"


def test_one_meaning_is_in_scope_in_every_language() -> None:
    made = pairs_of(QUESTIONS, foreign=True)
    assert {in_scope for *_, in_scope in made} == {True, False}
    for prompt, text, in_scope in made:
        assert in_scope == (meaning_in(prompt) == meaning_in(text))
    assert any(
        in_scope and prompt.startswith("Wh") and "Larch Hall gebaut" in text
        for prompt, text, in_scope in made
    )


def test_texts_under_one_broad_heading_are_no_paraphrases() -> None:
    broad = [
        question("cancel my card", "card", is_broad=True),
        question("my card is lost", "card", is_broad=True),
        question("how high is the fee", "fee", is_broad=True),
    ]
    for prompt, text, in_scope in pairs_of(broad, foreign=False):
        if in_scope:
            assert prompt.casefold() in text.casefold()
        assert {prompt, text} != {"cancel my card", "my card is lost"}


def test_a_follow_up_is_in_scope_of_its_stand_alone_form(tmp_path: Path) -> None:
    dialogue = [
        {"dialog": "d", "turn": 1, "article": "Ada", "text": "Who was Ada?", "in_context": "Who was Ada?"},
        {
            "dialog": "d",
            "turn": 2,
            "article": "Ada",
            "text": "Where was Ada born?",
            "in_context": "Where was she born?",
        },
        {
            "dialog": "d",
            "turn": 3,
            "article": "Ada",
            "text": "When did Ada die?",
            "in_context": "When did she die?",
        },
    ]
    rows(tmp_path / "canard/dev.jsonl.gz", *dialogue)
    stand_alone = {turn["in_context"]: turn["text"] for turn in dialogue}
    made = list(follow_up_pairs(tmp_path, random.Random(1), edits=30))
    assert {pair.in_scope for pair in made} == {True, False}
    for pair in made:
        assert pair.in_scope == (stand_alone[pair.text] == pair.prompt)
        assert pair.text not in pair.context


def test_labels_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "question_pairs_other_languages"
    rows(
        folder / "arabic_nsurl.jsonl.gz",
        {"text_a": "أ", "text_b": "ب", "label": 1},
        {"text_a": "ت", "text_b": "ث", "label": 0},
    )
    made = {pair.prompt: pair.in_scope for pair in labelled_pairs(tmp_path, random.Random(0), rows=9)}
    assert made == {"أ": True, "ت": False}
