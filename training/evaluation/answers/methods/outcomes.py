"""What a run of a method leaves behind: base outputs, a JSON line a case, a JSON line a round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from training.evaluation.outcomes import LineFolder

ROUNDS_FILE = "rounds.jsonl"
PROTOCOL = "greedy-1"
"""Changes with everything that makes results of older runs incomparable: forms of prompts, what is right."""


class Group(StrEnum):
    """What a probe measures."""

    RELIABILITY = "reliability"
    """The edited prompt itself."""
    GENERALIZATION = "generalization"
    """Other words for it."""
    LOCALITY = "locality"
    """Neighbours and unrelated texts: the answer must be the unedited model's."""
    PORTABILITY = "portability"
    """What follows from the edit."""
    ROBUSTNESS = "robustness"
    """The prompt disturbed."""
    FLUENCY = "fluency"
    """An open text about the subject, to be continued."""


class ProbeOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One probe. Whether its reply is right is judged from the texts, see summary.py."""

    group: Group
    kind: str
    text: str
    answers: tuple[str, ...] = ()
    rival_answers: tuple[str, ...] = ()
    verdict: bool | None = None
    is_ambiguous: bool = False
    reply: str
    base_reply: str
    """The unedited model's, made before the first edit."""
    kl_nats: float | None = None
    """KL(unedited ‖ edited) of the token after a locality probe, over the unedited model's likeliest tokens
    and one class for all others: at most the KL of all tokens."""
    is_top_share: float | None = None
    """Teacher-forced: the share of the first answer's tokens that the edited model would have chosen."""
    mean_log_prob: float | None = None
    """Of the first answer, in nats a token, teacher-forced."""
    true_mean_log_prob: float | None = None
    """Of the edit's former answer, where it is known and the probe is the edited prompt or a paraphrase."""


class CaseOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case."""

    case: str
    round: int
    prompt: str
    target_new: str
    target_true: str | None = None
    age: int
    """Edits made after its own, in its round."""
    just_after: str | None = None
    """The reply to the prompt directly after its own edit; None: nothing was made after it."""
    was_refused: bool = False
    """The method could not make the edit, say because its prompt lacks the subject; probes are asked."""
    probes: tuple[ProbeOutcome, ...]


class RoundOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a round cost."""

    round: int
    weights: str
    """The untouched model's fingerprint; also after the round."""
    edits: int
    refused: tuple[str, ...]
    """Why edits could not be made, one text an edit."""
    prepare_s: float
    """Once for all rounds of a process."""
    edit_s: float
    """All edits of the round together."""
    peak_bytes: int
    """Resident memory at its highest in preparing and editing, above that before; 0 where it is not known."""
    held_bytes: int
    """What has to be kept for the edits."""
    base_query_ms: tuple[float, ...]
    """Of some prompts, one at a time, the unedited model's time to the first token."""
    query_ms: tuple[float, ...]
    """The same with all edits made."""


class MethodFolder(LineFolder[CaseOutcome]):
    """A run of one method."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CaseOutcome)

    def add_round(self, outcome: RoundOutcome) -> None:
        """Add the line of a finished round."""
        with (self.folder / ROUNDS_FILE).open("ab") as file:
            file.write(msgspec.json.encode(outcome) + b"\n")

    def rounds(self) -> list[RoundOutcome]:
        """The finished rounds by number; of a round that was begun twice the later."""
        return sorted({line.round: line for line in self._lines()}.values(), key=lambda line: line.round)

    def _lines(self) -> Iterator[RoundOutcome]:
        path = self.folder / ROUNDS_FILE
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                if line.endswith(b"}"):
                    yield msgspec.json.decode(line, type=RoundOutcome)

    def protocol(self) -> Mapping[str, str]:
        """What has to be equal in every run of one table."""
        settings = self.settings()
        shared = {name: value for name, value in settings.decider.items() if name not in OWN_SETTINGS}
        weights = {line.weights for line in self._lines()}
        return {
            **shared,
            "path": str(settings.path),
            "seed": str(settings.seed),
            "cases": str(settings.sampled_cases),
            "weights": ", ".join(sorted(weights)) or "none yet",
        }


OWN_SETTINGS = frozenset({"method", "method config", "edits at once"})
"""Settings of a run in which the rows of a table may differ."""
