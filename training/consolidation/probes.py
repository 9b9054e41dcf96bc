"""What an edit is trained on, and what it is judged by: wordings held back from training, and neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from serac_gateway.control_plane.paraphrases import ParaphraseKind, paraphrases
from serac_gateway.domain.edits import Edit, wordings
from serac_gateway.errors import ConfigError

MOST_HELD_BACK = 4
NEIGHBOURS = 2
_ASKS_ALONE = (ParaphraseKind.QUESTION, ParaphraseKind.CLOZE)
_TASK_PREFIX = "Complete this:"


class GivenProbes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of a file of the user's own probes."""

    edit_id: str
    held_back: tuple[str, ...] = ()
    """Wordings that ask what the edit answers."""
    neighbours: tuple[str, ...] = ()
    """Prompts about others, which the edit does not answer."""


class EditProbes(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of one edit."""

    edit: Edit
    trained: tuple[str, ...]
    """Wordings beside the prompt that the model is trained on; of some methods none."""
    held_back: tuple[str, ...]
    """Wordings that it never is."""
    neighbours: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All, the prompt first."""
        return (self.edit.prompt, *self.trained, *self.held_back, *self.neighbours)


def read_given_probes(path: Path) -> dict[str, GivenProbes]:
    """The user's own probes by edit id, of an NDJSON file.

    Raises:
        ConfigError: It cannot be read, or a line has another form.
    """
    decoder = msgspec.json.Decoder(GivenProbes)
    given: dict[str, GivenProbes] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise ConfigError(f"cannot read the probes {str(path)!r}: {exc.strerror}") from exc
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            probes = decoder.decode(line)
        except ValueError as exc:  # msgspec's errors are ValueErrors
            raise ConfigError(
                f"line {number} of the probes {str(path)!r} is wrong: {exc}; write "
                '{"edit_id": "…", "held_back": ["…"], "neighbours": ["…"]}'
            ) from exc
        given[probes.edit_id] = probes
    return given


def plan_probes(
    edits: Sequence[Edit], given: Mapping[str, GivenProbes], *, trains_wordings: bool, seed: int
) -> list[EditProbes]:
    """The probes of each edit, always the same for the same seed.

    Of an edit's own wordings half are held back, at least one; it is trained on the others and on wordings
    made by fixed rules (which have no synonyms). Of an edit with none of its own the latter are held back.
    Neighbours are its prompt with the subjects of other edits in it.
    """
    taken = {text.casefold() for edit in edits for text in wordings(edit)}
    subjects = sorted({edit.subject for edit in edits if edit.subject})
    return [_probes(edit, given.get(edit.id), subjects, taken, trains_wordings, seed) for edit in edits]


def _probes(
    edit: Edit,
    given: GivenProbes | None,
    subjects: Sequence[str],
    taken: set[str],
    trains_wordings: bool,
    seed: int,
) -> EditProbes:
    def order(text: str) -> str:
        return hashlib.sha256(f"{seed} {edit.id} {text}".encode()).hexdigest()

    own = sorted(dict.fromkeys(wordings(edit)[1:]), key=order)
    half = (len(own) + 1) // 2
    back, trained = own[:half], own[half:]
    given = given or GivenProbes(edit_id=edit.id)
    held_back = dict.fromkeys((*given.held_back, *back)) or dict.fromkeys(_by_rule(edit))
    trained = [text for text in dict.fromkeys((*trained, *_by_rule(edit))) if text not in held_back]
    neighbours = given.neighbours or _neighbours(edit, sorted(subjects, key=order), taken)
    return EditProbes(
        edit=edit,
        trained=tuple(trained) if trains_wordings else (),
        held_back=tuple(text for text in held_back if text != edit.prompt)[:MOST_HELD_BACK],
        neighbours=tuple(neighbours),
    )


def _by_rule(edit: Edit) -> list[str]:
    """Wordings made by rule that a base model can continue: neither orders nor keywords."""
    return [
        query.text
        for query in paraphrases(edit.prompt, edit.subject, edit.target_new)
        if query.form in _ASKS_ALONE and not query.text.startswith(_TASK_PREFIX)
    ][:MOST_HELD_BACK]


def _neighbours(edit: Edit, subjects: Sequence[str], taken: set[str]) -> list[str]:
    subject = edit.subject
    if not subject or subject not in edit.prompt:
        return []
    texts = (edit.prompt.replace(subject, other) for other in subjects if other != subject)
    return [text for text in texts if text.casefold() not in taken][:NEIGHBOURS]
