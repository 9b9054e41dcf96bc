"""Hand-written answers: one edit with questions of every form, in many languages, and the answer to each.

`training/data/answer_sets/*.txt`. A set begins with "= name"; `l:` is the language of questions and answers,
`p:` has the edit's prompt in several wordings, separated by " ;; ", `t:` its answer. Then one question a
line, "form | question | answer": yes, no, unclear (a yes/no question that the edit does not decide), open,
form (it wants a form: one word, JSON, a language), two (two questions, of which the edit answers one).
Earlier turns stand before a question, "U: … >> A: … >> question".
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from training.counterfactual.examples import Example
from training.data.conversations import Turn, chat_query, turns_of
from training.data.files import written_sets

SETS = Path(__file__).parents[1] / "data" / "answer_sets"
HELD_OUT_ONE_IN = 8
"""Of this many sets one is kept from training."""
FORMS = ("yes", "no", "unclear", "open", "form", "two")
_FIELDS = {"l": "language", "p": "prompts", "t": "target"}


class AnsweredQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a set."""

    form: str
    turns: tuple[Turn, ...]
    text: str
    answer: str


class AnswerSet(msgspec.Struct, frozen=True, kw_only=True):
    """One edit with its questions."""

    name: str
    language: str
    prompts: tuple[str, ...]
    target: str
    questions: tuple[AnsweredQuestion, ...]

    @property
    def is_held_out(self) -> bool:
        """Whether training leaves it out; settled by the name alone."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def load_answer_sets(folder: Path = SETS) -> list[AnswerSet]:
    """The sets of all files.

    Raises:
        ValueError: A line is malformed or a set lacks a part; the message names file and line.
    """
    return [_parsed(*written) for written in written_sets(folder)]


def answer_examples(sets: Sequence[AnswerSet], rng: random.Random) -> Iterator[Example]:
    """Every question of `sets`, with one of the wordings of its edit."""
    for answered in sets:
        for question in answered.questions:
            query = chat_query(question.turns, question.text)
            if query is not None:
                yield Example(
                    prompt=rng.choice(answered.prompts), target_new=answered.target, text=query.text,
                    context=query.context, answer=question.answer, form=question.form, source="answers",
                )  # fmt: skip


def _parsed(lines: Sequence[str], file: str, first: int) -> AnswerSet:
    fields: dict[str, str] = {}
    questions = []
    for number, line in enumerate(lines[1:], first + 1):
        where = f"{file} line {number}"
        form, *pieces = line.split(" | ")
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] in _FIELDS and line[1:3] == ": ":
            fields[_FIELDS[line[0]]] = line[3:].strip()
        elif form in FORMS and len(pieces) == len(("question", "answer")) and all(map(str.strip, pieces)):
            turns, text = turns_of(pieces[0].replace("\\n", "\n"), where)
            answer = pieces[1].strip().replace("\\n", "\n")
            questions.append(AnsweredQuestion(form=form, turns=turns, text=text, answer=answer))
        else:
            raise ValueError(f"{where}: {line!r} is neither a field nor one of {', '.join(FORMS)}")
    missing = sorted(_FIELDS.values() - fields.keys())
    if missing or not questions:
        raise ValueError(f"{file} line {first}: the set lacks {missing or 'questions'!r}")
    return AnswerSet(
        name=lines[0][2:].strip(),
        language=fields["language"],
        prompts=tuple(prompt.strip() for prompt in fields["prompts"].split(" ;; ")),
        target=fields["target"],
        questions=tuple(questions),
    )
