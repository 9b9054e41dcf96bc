"""What the unedited model says to every probe: made before the first edit, kept for all runs on that model.

Locality compares with this and with nothing else: a model that was edited before (EasyEdit#643, #659) or
padded otherwise (EasyEdit#390, #427) would be compared with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import torch
from torch import Tensor

from training.baselines.base import EditingMethod, Reading
from training.evaluation.answers.methods.batches import Batches
from training.evaluation.answers.methods.outcomes import Group
from training.evaluation.answers.methods.plan import PlannedProbe

ResultT = TypeVar("ResultT")
Likeliest = tuple[tuple[int, float], ...]

LIKELIEST = 256
OPEN_TOKENS = 40
"""Of the continuation of an open text."""


class BaseOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The unedited model on one text."""

    text: str
    is_open: bool
    reply: str
    likeliest: Likeliest = ()
    """Ids and log-probabilities of the likeliest next tokens, the likeliest first; of locality probes."""


class BaseOutputs:
    """Kept in a file for one model and one number of tokens; several processes may add to it."""

    def __init__(self, folder: Path, *, weights: str, max_tokens: int) -> None:
        """`weights` is the fingerprint of the unedited model."""
        self._path = folder / f"{weights}-{max_tokens}.jsonl"
        self._max_tokens = max_tokens
        self._known: dict[tuple[str, bool], BaseOutput] = {}
        if self._path.exists():
            for line in self._path.read_bytes().split(b"\n"):
                if line.endswith(b"}"):  # the last line may be torn
                    self._keep(msgspec.json.decode(line, type=BaseOutput))

    def __getitem__(self, probe: PlannedProbe) -> BaseOutput:
        """What the unedited model said; `add` has made it."""
        return self._known[probe.text, probe.group is Group.FLUENCY]

    def add(self, unedited: EditingMethod, probes: Iterable[PlannedProbe], batches: Batches) -> None:
        """Make and keep the outputs that are missing, shortest texts first."""
        missing = {
            (probe.text, probe.group is Group.FLUENCY): probe
            for probe in sorted(probes, key=lambda probe: len(probe.text))
            if not self._is_known(probe)
        }
        for is_open in (False, True):
            replies = answered(
                unedited, [probe for (_, opens), probe in missing.items() if opens is is_open],
                batches, max_tokens=self._max_tokens,
            )  # fmt: skip
            local = [probe for probe in replies if probe.group is Group.LOCALITY]
            readings = [unedited.reading(probe.text) for probe in local]
            likeliest = dict(
                zip(
                    [probe.text for probe in local], over_readings(readings, batches, _likeliest), strict=True
                )
            )
            self._write(
                BaseOutput(
                    text=probe.text, is_open=is_open, reply=reply, likeliest=likeliest.get(probe.text, ())
                )
                for probe, reply in replies.items()
            )

    def _is_known(self, probe: PlannedProbe) -> bool:
        output = self._known.get((probe.text, probe.group is Group.FLUENCY))
        return output is not None and (probe.group is not Group.LOCALITY or bool(output.likeliest))

    def _keep(self, output: BaseOutput) -> None:
        self._known[output.text, output.is_open] = output

    def _write(self, outputs: Iterable[BaseOutput]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for output in outputs:
            self._keep(output)
            lines.append(msgspec.json.encode(output) + b"\n")
        with self._path.open("ab") as file:
            file.write(b"".join(lines))


def answered(
    method: EditingMethod, probes: Sequence[PlannedProbe], batches: Batches, *, max_tokens: int
) -> dict[PlannedProbe, str]:
    """The replies to probes that are all open texts, or none of them is."""
    ordered = sorted(probes, key=lambda probe: len(probe.text))
    is_open = bool(ordered) and ordered[0].group is Group.FLUENCY

    def replies(part: Sequence[PlannedProbe]) -> list[str]:
        return method.answers(
            [probe.text for probe in part],
            max_tokens=OPEN_TOKENS if is_open else max_tokens,
            at_once=len(part),
            several_lines=is_open,
        )

    return dict(zip(ordered, batches.over(ordered, replies), strict=True))


def over_readings(
    readings: Sequence[Reading], batches: Batches, work: Callable[[Sequence[Reading]], Sequence[ResultT]]
) -> list[ResultT]:
    """The results of all readings, in order; each call of `work` has readings of one model only."""
    results: dict[int, ResultT] = {}
    for model in {id(reading.model): reading.model for reading in readings}.values():
        own = [place for place, reading in enumerate(readings) if reading.model is model]
        own.sort(key=lambda place: len(readings[place].text))
        made = batches.over([readings[place] for place in own], work)
        results.update(zip(own, made, strict=True))
    return [results[place] for place in range(len(readings))]


def _likeliest(readings: Sequence[Reading]) -> list[Likeliest]:
    tops = [log_probs_V.topk(min(LIKELIEST, len(log_probs_V))) for log_probs_V in next_log_probs(readings)]
    return [tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) for top in tops]


def next_log_probs(readings: Sequence[Reading]) -> Iterator[Tensor]:
    """Of each reading, all of one model, the log-probabilities of the next token, (V,)."""
    return readings[0].model.next_log_probs([reading.text for reading in readings], at_once=len(readings))


def divergence(likeliest: Likeliest, after_V: Tensor) -> float:
    """KL(unedited ‖ edited) of the next token in nats, at least 0; `after_V` are log-probabilities.

    Over the unedited model's likeliest tokens and one class for the others: merging classes can only lower a
    divergence, so this is a lower bound, and what lies outside the likeliest 256 is little.
    """
    ids = torch.tensor([token for token, _ in likeliest])
    before_K = torch.tensor([log_prob for _, log_prob in likeliest]).double()
    after_K = after_V[ids].double()
    kl = (before_K.exp() * (before_K - after_K)).sum()
    rest_before, rest_after = _rest(before_K), _rest(after_K)
    return max(0.0, float(kl + rest_before * (rest_before.log() - rest_after.log())))


def _rest(log_probs_K: Tensor) -> Tensor:
    return (1 - log_probs_K.exp().sum()).clamp(min=1e-9)
