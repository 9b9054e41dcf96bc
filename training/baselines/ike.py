"""IKE: the new fact stands before the query, behind demonstrations of what to do with such a fact.

Zheng et al., "Can We Edit Factual Knowledge by In-Context Learning?", EMNLP 2023, arXiv 2305.12740. A
demonstration is a fact of the training rows with a query and its answer, of three kinds: copy (the fact's
own prompt), update (a paraphrase, answered by the fact) and retain (a neighbour, answered as before), mixed
1:3:4. Demonstrations are those whose facts are nearest to the new fact, the nearest last.

The paper takes 32 of them and always puts the edited fact into the prompt. Here the nearest stored edit is
put there for every query, without a gate, as nothing in the method says when not to; and there are 8, since
reading 32 costs a 270M model on a processor some ten seconds a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from serac_gateway.models.encoders.base import Encoder
from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.context import EditIndex, ListedEdits, statement
from training.benchmarks.base import Benchmark, Case
from training.progress import OnProgress
from training.runs import read_config

IKE_CONFIG = Path("configs/baselines/ike.toml")


class IkeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/ike.toml."""

    copies: int
    updates: int
    retains: int
    pool: int
    """Cases of each set of training rows from which demonstrations are taken."""


class Demonstration(msgspec.Struct, frozen=True, kw_only=True):
    """A fact, and what a query is answered with it in view."""

    fact: str
    query: str
    answer: str

    @property
    def text(self) -> str:
        """As the paper's code writes it."""
        return f"New Fact: {self.fact}\nPrompt: {self.query} {self.answer}\n\n"


class Ike(ListedEdits):
    """Weights stay as they are."""

    name = "ike"
    paper = "Zheng et al. 2023, arXiv 2305.12740"

    def __init__(
        self, model: CausalModel, settings: IkeSettings, encoder: Encoder, sets: Sequence[Benchmark]
    ) -> None:
        """`sets` are training rows, never those that are reported."""
        super().__init__(model)
        self._settings = settings
        self._encoder = encoder
        self._sets = sets
        self._index = EditIndex(encoder)
        self._cases: list[Case] = []
        self._facts_ND = np.empty((0, encoder.width), dtype=np.float32)
        self._before: dict[str, str] = {}
        """The demonstrations of an edit, by its prompt."""

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Encode the facts of the training rows."""
        self._cases = [case for rows in self._sets for case in _usable(rows)[: self._settings.pool]]
        facts = [statement(case.edit) for case in self._cases]
        self._facts_ND = self._encoder.encode(facts)
        on_progress("encoding demonstrations", len(facts), len(facts))

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        super().edit(edits)
        self._index.add(edits)
        for edit in edits:
            self._before[edit.prompt] = "".join(
                demonstration.text for demonstration in self.demonstrations(edit)
            )

    @override
    def undo(self) -> None:
        super().undo()
        self._index = EditIndex(self._encoder)
        self._before.clear()

    @override
    def prompt_text(self, query: str) -> str:
        nearest = self._index.nearest(query, 1)
        if not nearest:
            return self.model.prompt_text(query)
        ((_, edit),) = nearest
        return f"{self._before[edit.prompt]}New Fact: {statement(edit)}\nPrompt: {query}"

    def demonstrations(self, edit: EditDraft) -> list[Demonstration]:
        """Of the training rows nearest to the edit, the nearest last."""
        (fact_D,) = self._encoder.encode([statement(edit)])
        nearest = [self._cases[place] for place in np.argsort(-(self._facts_ND @ fact_D), kind="stable")]
        kinds = [0] * self._settings.copies + [1] * self._settings.updates + [2] * self._settings.retains
        return [_demonstration(case, kind) for case, kind in zip(nearest, kinds, strict=False)][::-1]

    @property
    @override
    def held_bytes(self) -> int:
        """Texts, demonstrations and vectors."""
        return (
            super().held_bytes
            + sum(len(text.encode()) for text in self._before.values())
            + self._index.nbytes
        )


def _usable(rows: Benchmark) -> list[Case]:
    """Cases with a paraphrase and a neighbour whose answer is known."""
    return [
        case
        for case in rows.cases
        if any(probe.kind == "rephrase" for probe in case.probes)
        and any(not probe.in_scope and probe.answers for probe in case.probes)
    ]


def _demonstration(case: Case, kind: int) -> Demonstration:
    """Kind 0 copies, 1 updates, 2 retains."""
    fact = statement(case.edit)
    if kind == 2:
        kept = next(probe for probe in case.probes if not probe.in_scope and probe.answers)
        return Demonstration(fact=fact, query=kept.text, answer=kept.answers[0])
    rephrased = next(probe.text for probe in case.probes if probe.kind == "rephrase")
    return Demonstration(
        fact=fact, query=rephrased if kind == 1 else case.edit.prompt, answer=case.edit.target_new
    )


def open_ike(model: CausalModel, config: Path | None) -> Ike:
    """With the gateway's encoder and the training rows of CounterFact and zsRE.

    Raises:
        ConfigError: Settings, encoder or data cannot be read.
    """
    from serac_gateway.config.loading import load_config
    from serac_gateway.models.loading import open_embedded_encoder
    from training.benchmarks import counterfact, zsre

    settings = read_config(config or IKE_CONFIG, IkeSettings)
    encoder = open_embedded_encoder(load_config().data_path)
    return Ike(model, settings, encoder, [counterfact.load_10k(), zsre.load_10k()])
