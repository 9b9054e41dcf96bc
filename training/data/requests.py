"""Whole requests around a question: what applications, mails and front ends put before, behind and around it.

`request_forms/*.txt` holds a form a line, written by hand: "+ kind | pieces" where a direct answer to the
question [Q] is wanted, "- kind | pieces" where the question is only material or nothing is asked. Pieces are
separated by " >> " and begin with "S: ", "U: " or "A: "; the last is the user's. Slots: [Q] question, [A] the
edit's answer, [O] another answer, [X] the subject, [P] a passage with the fact, [F] a paragraph on something
else, [R] an unrelated question, [S] another question about the subject.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from training.data.conversations import Turn, chat_query, turns_of
from training.data.pairs import Pair

FORMS = Path(__file__).parent / "request_forms"
_LINE = re.compile(r"([+-]) ([a-z -]+) \| (.+)")
_SLOT = re.compile(r"\[([QAOXPFRS])\]")


class RequestForm(msgspec.Struct, frozen=True, kw_only=True):
    """A request with slots."""

    wants_answer: bool
    kind: str
    turns: tuple[Turn, ...]
    text: str

    @property
    def slots(self) -> frozenset[str]:
        """The letters of its slots."""
        return frozenset(_SLOT.findall(" ".join((*(turn.text for turn in self.turns), self.text))))


class EditWithQueries(msgspec.Struct, frozen=True, kw_only=True):
    """An edit with texts that ask for it and texts that ask something else about its subject."""

    prompt: str
    target: str
    subject: str | None
    asking: tuple[str, ...]
    others: tuple[str, ...]


def load_request_forms(folder: Path = FORMS) -> list[RequestForm]:
    """The forms of all files.

    Raises:
        ValueError: A line is malformed; the message names file and line.
    """
    forms = []
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(
                    f"{path.name} line {number}: {line[:60]!r} is no request form;"
                    " see training/data/requests.py"
                )
            turns, text = turns_of(match[3].replace("\\n", "\n"), f"{path.name} line {number}")
            forms.append(RequestForm(wants_answer=match[1] == "+", kind=match[2], turns=turns, text=text))
    return forms


def edits_with_queries(pairs: Sequence[Pair]) -> list[EditWithQueries]:
    """The edits of `pairs` that some text without earlier turns asks for."""
    asking: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    others: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if not pair.context and not pair.instructions and len(pair.text) < 200:
            (asking if pair.in_scope else others)[(pair.prompt, pair.target)].append(pair)
    return [
        EditWithQueries(
            prompt=edit[0],
            target=edit[1],
            subject=rows[0].subject,
            asking=tuple(pair.text for pair in rows),
            others=tuple(pair.text for pair in others[edit]),
        )
        for edit, rows in asking.items()
    ]


def request_pairs(
    edits: Sequence[EditWithQueries],
    forms: Sequence[RequestForm],
    rng: random.Random,
    *,
    passages: Sequence[str],
    unrelated: Sequence[str],
    count: int,
) -> Iterator[Pair]:
    """`count` requests in the forms, about half of them in scope of their edit.

    A form in which an answer is wanted also comes with another question of the edit's, which is out of scope.
    """
    for _ in range(count):
        edit, form = rng.choice(edits), rng.choice(forms)
        in_scope = form.wants_answer
        question = rng.choice(edit.asking)
        if in_scope and edit.others and rng.random() < 0.25:
            question, in_scope = rng.choice(edit.others), False
        pair = _filled(edit, form, question, in_scope, rng, passages, unrelated)
        if pair is not None:
            yield pair


def _filled(
    edit: EditWithQueries, form: RequestForm, question: str, in_scope: bool, rng: random.Random,
    passages: Sequence[str], unrelated: Sequence[str],
) -> Pair | None:  # fmt: skip
    slots = form.slots
    if ("X" in slots and not edit.subject) or ("S" in slots and not edit.others):
        return None
    if not in_scope and form.wants_answer and slots & {"S"}:
        return None
    fact = edit.prompt if edit.target in edit.prompt else f"{edit.prompt.rstrip('?')}: {edit.target}."
    around = rng.sample(list(passages), 4)
    values = {
        "Q": question, "A": edit.target.rstrip("."), "O": rng.choice(unrelated).split()[-1].strip("?"),
        "X": edit.subject or "", "P": " ".join((around[0], fact, around[1])), "F": " ".join(around[2:]),
        "R": rng.choice(unrelated), "S": rng.choice(edit.others) if edit.others else "",
    }  # fmt: skip

    def fill(text: str) -> str:
        return _SLOT.sub(lambda match: values[match[1]], text)

    query = chat_query([Turn(role=turn.role, text=fill(turn.text)) for turn in form.turns], fill(form.text))
    if query is None:
        return None
    return Pair(
        prompt=edit.prompt, target=edit.target, text=query.text, context=query.context,
        instructions=query.instructions, in_scope=in_scope, kind=f"request, {form.kind}",
        subject=edit.subject,
    )  # fmt: skip
