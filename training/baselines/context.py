"""Methods that change what the model reads, never its weights: nothing, the right edit, a retrieved edit.

    reads(q) = statement(e) ⏎ q     with e the edit chosen for q, or q alone

A 270M model is the weak half of these methods: it does not always repeat what stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from serac_gateway.models.counterfactual.prompts import PromptedEdit
from serac_gateway.models.encoders.base import Encoder
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.progress import OnProgress
from training.runs import read_config

RAG_CONFIG = Path("configs/baselines/rag.toml")


class Unedited(EditingMethod):
    """The lower row of every table: the edits are ignored."""

    name = "unedited"
    paper = "the model as it is"

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Do nothing."""

    @override
    def undo(self) -> None:
        """Nothing was done."""

    @property
    @override
    def held_bytes(self) -> int:
        """Nothing is kept."""
        return 0


class ListedEdits(EditingMethod):
    """Keeps the edits as texts; of equal prompts the newest counts."""

    def __init__(self, model: CausalModel) -> None:
        super().__init__(model)
        self.edits: dict[str, EditDraft] = {}
        """By prompt, oldest first."""

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """List them."""
        for edit in edits:
            self.edits.pop(edit.prompt, None)
            self.edits[edit.prompt] = edit

    @override
    def undo(self) -> None:
        """Forget them."""
        self.edits.clear()

    @property
    @override
    def held_bytes(self) -> int:
        """The texts in UTF-8."""
        return sum(len(statement(edit).encode()) for edit in self.edits.values())


class InContext(ListedEdits):
    """The upper row: whoever asks says which edits govern the query, and they stand before it verbatim.

    No user can do that. The row shows what the model makes of a right answer in front of it.
    """

    name = "in-context"
    paper = "the edit verbatim before the query that it governs"

    def __init__(self, model: CausalModel) -> None:
        super().__init__(model)
        self.governing: Mapping[str, Sequence[EditDraft]] = {}
        """The edits of a query, by its text; queries that are not in it are read alone."""

    @override
    def prompt_text(self, query: str) -> str:
        """The governing edits, a line each, and the query."""
        own = [edit for edit in self.governing.get(query, ()) if edit.prompt in self.edits]
        return after_edits(own, self.model.prompt_text(query))


class RetrievalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/rag.toml."""

    min_similarity: float
    """τ: an edit that is less similar to the query is not put before it."""
    edits: int = 1
    """At most so many are."""


class EditIndex:
    """The vectors of edits: each by its prompt and by its prompt with the answer, the nearer counts."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._edits: list[EditDraft] = []
        self._vectors_NFD = np.empty((0, 2, encoder.width), dtype=np.float32)

    def add(self, edits: Sequence[EditDraft]) -> None:
        """Encode them and keep their vectors."""
        texts = [text for edit in edits for text in (edit.prompt, statement(edit))]
        vectors = self._encoder.encode(texts).reshape(len(edits), 2, -1)
        self._edits += edits
        self._vectors_NFD = np.concatenate([self._vectors_NFD, vectors])

    def nearest(self, query: str, count: int) -> list[tuple[float, EditDraft]]:
        """The most similar edits with their cosines in -1..1, best first; of equal ones the newer first."""
        if not self._edits:
            return []
        (query_D,) = self._encoder.encode([query])
        similarities_N = (self._vectors_NFD @ query_D).max(axis=1)
        order = np.lexsort((-np.arange(len(self._edits)), -similarities_N))[:count]
        return [(float(similarities_N[place]), self._edits[place]) for place in order]

    @property
    def nbytes(self) -> int:
        """Of the vectors."""
        return self._vectors_NFD.nbytes


class RetrievedEdits(ListedEdits):
    """RAG over edits: those most similar to the query and above a gate τ stand before it.

    The gate is the method: MeLLo (arXiv 2305.14795) retrieves without, RECIPE (arXiv 2405.03279) learns it.
    """

    name = "rag"
    paper = "Zhong et al. 2023, arXiv 2305.14795 (MeLLo), with a gate on similarity"

    def __init__(self, model: CausalModel, settings: RetrievalSettings, encoder: Encoder) -> None:
        super().__init__(model)
        self._settings = settings
        self._encoder = encoder
        self._index = EditIndex(encoder)

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """List and encode them."""
        super().edit(edits)
        self._index.add(edits)

    @override
    def undo(self) -> None:
        super().undo()
        self._index = EditIndex(self._encoder)

    @override
    def prompt_text(self, query: str) -> str:
        """The retrieved edits, the most similar last, and the query."""
        nearest = self._index.nearest(query, self._settings.edits)
        passed = [edit for similarity, edit in nearest if similarity >= self._settings.min_similarity]
        return after_edits(passed[::-1], self.model.prompt_text(query))

    @property
    @override
    def held_bytes(self) -> int:
        """Texts and vectors."""
        return super().held_bytes + self._index.nbytes


def open_retrieved_edits(model: CausalModel, config: Path | None) -> RetrievedEdits:
    """With the gateway's embedded encoder.

    Raises:
        ConfigError: The settings or the encoder cannot be read.
    """
    from serac_gateway.config.loading import load_config
    from serac_gateway.models.loading import open_embedded_encoder

    settings = read_config(config or RAG_CONFIG, RetrievalSettings)
    return RetrievedEdits(model, settings, open_embedded_encoder(load_config().data_path))


def statement(edit: PromptedEdit) -> str:
    """Prompt and new answer as one text; see `serac_gateway.domain.edits.statement`."""
    return f"{edit.prompt.strip()} {edit.target_new.strip()}"


def after_edits(edits: Sequence[PromptedEdit], text: str) -> str:
    """The statements of edits, a line each, and the text."""
    return "\n".join([*(f"Fact: {statement(edit)}" for edit in edits), text])
