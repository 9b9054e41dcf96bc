"""Single decisions with stores of their own: field cases by their readers, and sets by a writer of ours.

Unlike a `Benchmark`, whose edits are all stored together, each case has just its edits in force, as a reader
of its label had them in mind: "What are the opening hours?" is out of scope of nothing but its own context.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from serac_gateway.domain.edits import EditDraft, EditKind
from serac_gateway.errors import ConfigError
from training.data.contrasts import Filling, filled_in, load_contrast_sets
from training.data.conversations import Turn, chat_messages
from training.data.files import data_folder, read_rows

WRITTEN_SETS = Path(__file__).parent / "written_sets"
"""Written for validation alone, by a writer who saw neither the training sets nor the code."""
SECOND_WRITTEN_SETS = WRITTEN_SETS.with_name("written_sets_second")
"""The same by two further writers, while the fifth stage was trained: what the first sets have little of."""
SUPPRESSION_SETS = WRITTEN_SETS.with_name("suppression_sets")
"""Suppressions by a writer of their own, for reports: neither weights nor a threshold are chosen on them."""
SUPPRESSION_CALIBRATION_SETS = WRITTEN_SETS.with_name("suppression_calibration_sets")
"""Suppressions by another writer: the threshold of suppressions is chosen on them."""
_WRITTEN = {
    "written": (WRITTEN_SETS, EditKind.FACT),
    "written-second": (SECOND_WRITTEN_SETS, EditKind.FACT),
    "suppressions": (SUPPRESSION_SETS, EditKind.SUPPRESSION),
    "suppressions-calibration": (SUPPRESSION_CALIBRATION_SETS, EditKind.SUPPRESSION),
}
"""The folder of each source, and the kind of its edits."""


class DecisionCase(msgspec.Struct, frozen=True, kw_only=True):
    """One request, the edits that are stored, and whether one of them has to answer."""

    source: str
    kind: str
    edits: tuple[EditDraft, ...]
    messages: tuple[dict[str, Any], ...]
    in_scope: bool
    answers: tuple[str, ...] = ()
    """In scope, the governing edit's target contains one of these; empty: any edit will do."""
    may_pass: bool = False
    """In scope, passing it to the base model is right as well."""
    language: str = "en"

    def is_right(self, target: str | None) -> bool:
        """Whether a decision is right that lets the edit with this target govern; None: none does."""
        if target is None:
            return not self.in_scope or self.may_pass
        if not self.in_scope:
            return False
        return not self.answers or any(answer.casefold() in target.casefold() for answer in self.answers)


def field_cases(path: Path | None = None) -> list[DecisionCase]:
    """The field cases: what broke in real use, retold on invented entities. Not to be trained on.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    read = read_rows(path or data_folder() / "field_cases/editing.jsonl.gz")
    return [
        DecisionCase(
            source="field",
            kind=row["kind"],
            edits=tuple(msgspec.convert(edit, EditDraft) for edit in row["edits"]),
            messages=tuple(row["messages"]),
            in_scope=row["expect"] != "out",
            answers=tuple(row.get("answer_contains") or ()) if len(row["edits"]) > 1 else (),
            may_pass=bool(row.get("may_pass_out")),
        )
        for row in read
    ]


def written_cases(
    folder: Path = WRITTEN_SETS, *, kind: EditKind = EditKind.FACT, seed: int = 0
) -> list[DecisionCase]:
    """Every query of the written sets, each with the edit of its set, which is of that kind."""
    rng = random.Random(seed)
    made = []
    for contrast in load_contrast_sets(folder):
        filling = filled_in(contrast, rng, rng.randrange(len(contrast.subjects)), own_prompts=True)
        edit = EditDraft(prompt=filling.prompt, target_new=filling.target, subject=None, kind=kind)
        made += [
            DecisionCase(
                source="written",
                kind=line.kind,
                edits=(edit,),
                messages=tuple(_messages(filling, line.turns, line.text)),
                in_scope=line.in_scope,
                language=contrast.language,
            )
            for line in contrast.lines
        ]
    return made


def _messages(filling: Filling, turns: tuple[Turn, ...], text: str) -> Iterator[dict[str, str]]:
    filled = [Turn(role=turn.role, text=filling.fill(turn.text)) for turn in turns]
    yield from chat_messages(filled, filling.fill(text))


def open_cases(source: str, path: Path | None = None) -> list[DecisionCase]:
    """The cases of that name.

    Raises:
        ConfigError: There is no such source, or its file cannot be read.
    """
    if source == "field":
        return field_cases(path)
    if source in _WRITTEN:
        folder, kind = _WRITTEN[source]
        return written_cases(path or folder, kind=kind)
    raise ConfigError(f"no cases are named {source!r}; choose one of field, {', '.join(_WRITTEN)}")
