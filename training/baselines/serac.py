"""SERAC as published: a memory of edits, a scope classifier by embeddings, a small counterfactual model.

Mitchell et al., "Memory-Based Model Editing at Scale", ICML 2022, arXiv 2206.06520. For a query x and the
nearest edit m in the memory (prompt and new answer as one text)

    g(m, x) = exp(-‖e(x) - e(m)‖²),    answer = counterfactual([m ; x]) if g > ½, else base(x)

e is trained by binary cross-entropy, as much weight on queries in scope as on those out of it:

    ℓ = -E[log g(m, x_in) + log(1 - g(m, x_out))]

x_in is a rephrasing; x_out are the data set's own queries out of scope (neighbours of CounterFact, questions
of Natural Questions for zsRE) and the prompt of another edit of the batch. The threshold is ½, by no choice.

What differs from the paper, since nothing can be downloaded here: e is all-MiniLM-L6 (six layers, like
DistilBERT) with its own mean-pooled unit vectors instead of DistilBERT's first state; it is trained for a few
hundred steps on two CPU cores; the counterfactual model is the embedded Gemma with this project's adapter,
not a T5 trained beside the classifier.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.counterfactual.truncation import MAX_FIELD_CHARS
from training.baselines.base import Reading, silent
from training.baselines.causal_model import CausalModel
from training.baselines.context import ListedEdits
from training.benchmarks.base import Benchmark
from training.progress import OnProgress
from training.runs import TrainingError, read_config

SERAC_CONFIG = Path("configs/baselines/serac.toml")
THRESHOLD = 0.5
_SMALLEST = 1e-6


class SeracSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/serac.toml."""

    weights: str
    """The file of the trained classifier; made by `prepare` if it is not there."""
    steps: int
    batch_size: int
    """Edits a step."""
    learning_rate: float
    seed: int


class Triple(msgspec.Struct, frozen=True, kw_only=True):
    """An edit with a query in its scope and one out of it."""

    memory: str
    in_scope: str
    out_of_scope: str


class ScopeEncoder(nn.Module):
    """e: from texts to unit vectors, mean-pooled."""

    def __init__(self, encoder: nn.Module, tokenizer: Any) -> None:  # noqa: ANN401 - not typed
        """A BERT of transformers and its tokenizer."""
        super().__init__()
        self.encoder = encoder
        self._tokenizer = tokenizer

    def forward(self, texts: Sequence[str]) -> Tensor:
        """*Shape:* (B, D)."""
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=96, return_tensors="pt"
        )
        states_BLD = self.encoder(**batch).last_hidden_state
        mask_BL1 = batch["attention_mask"][..., None].to(states_BLD)
        return F.normalize((states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1), dim=-1)


def scope_loss(memory_BD: Tensor, in_scope_BD: Tensor, out_of_scope_BD: Tensor) -> Tensor:
    """ℓ, its second part over the given queries out of scope and over the next edit's prompt in the batch."""
    inside = _squared(memory_BD, in_scope_BD)
    outside = torch.cat(
        [_squared(memory_BD, out_of_scope_BD), _squared(memory_BD, in_scope_BD.roll(1, dims=0))]
    )
    return inside.mean() - torch.log((1 - torch.exp(-outside)).clamp(min=_SMALLEST)).mean()


def _squared(left_BD: Tensor, right_BD: Tensor) -> Tensor:
    return (left_BD - right_BD).square().sum(-1)


class Serac(ListedEdits):
    """The memory is searched by brute force; its order decides nothing."""

    name = "serac"
    paper = "Mitchell et al. 2022, arXiv 2206.06520"

    def __init__(
        self,
        model: CausalModel,
        settings: SeracSettings,
        encoder: ScopeEncoder,
        open_counterfactual: Callable[[], CausalModel],
        sets: Sequence[Benchmark],
    ) -> None:
        """`sets` are training rows."""
        super().__init__(model)
        self._settings = settings
        self._encoder = encoder
        self._open_counterfactual = open_counterfactual
        self._counterfactual: CausalModel | None = None
        self._sets = sets
        self._vectors: dict[str, Tensor] = {}
        """Of each edit, by prompt."""

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Train the classifier, or read the trained one."""
        path = Path(self._settings.weights)
        if path.is_file():
            load_model(self._encoder, path)
        else:
            triples = [triple for rows in self._sets for triple in triples_of(rows)]
            train(self._encoder, triples, self._settings, on_progress=on_progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_model(self._encoder, str(path))
        self._encoder.eval()

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        super().edit(edits)
        with torch.no_grad():
            vectors_BD = self._encoder([memory_text(edit.prompt, edit.target_new) for edit in edits])
        self._vectors |= {edit.prompt: vector_D for edit, vector_D in zip(edits, vectors_BD, strict=True)}

    @override
    def undo(self) -> None:
        super().undo()
        self._vectors.clear()

    @torch.no_grad()
    def scope(self, query: str) -> tuple[float, EditDraft] | None:
        """The nearest edit and g of it, that first; None without edits."""
        if not self._vectors:
            return None
        (query_D,) = self._encoder([query])
        distances = {prompt: _squared(vector_D, query_D).item() for prompt, vector_D in self._vectors.items()}
        nearest = min(distances, key=lambda prompt: (distances[prompt], prompt))
        return float(torch.exp(torch.tensor(-distances[nearest]))), self.edits[nearest]

    @override
    def reading(self, query: str) -> Reading:
        nearest = self.scope(query)
        if nearest is None or nearest[0] <= THRESHOLD:
            return Reading(model=self.model, text=self.model.prompt_text(query))
        if self._counterfactual is None:
            self._counterfactual = self._open_counterfactual()
        text = trained_prompt(nearest[1], Query(text=query), field_chars=MAX_FIELD_CHARS)
        return Reading(model=self._counterfactual, text=text)

    @property
    @override
    def held_bytes(self) -> int:
        """Texts and vectors; the classifier is the same for any edits."""
        return super().held_bytes + sum(vector_D.nbytes for vector_D in self._vectors.values())


def memory_text(prompt: str, answer: str) -> str:
    """An edit as the classifier reads it; the published code puts BERT's separator between."""
    return f"{prompt.strip()} [SEP] {answer.strip()}"


def triples_of(benchmark: Benchmark) -> list[Triple]:
    """Of the cases with a rephrasing and a query out of scope."""
    made = []
    for case in benchmark.cases:
        inside = [probe.text for probe in case.probes if probe.kind == "rephrase"]
        outside = [probe.text for probe in case.probes if not probe.in_scope]
        if inside and outside:
            memory = memory_text(case.edit.prompt, case.edit.target_new)
            made.append(Triple(memory=memory, in_scope=inside[0], out_of_scope=outside[0]))
    return made


def train(
    encoder: ScopeEncoder,
    triples: Sequence[Triple],
    settings: SeracSettings,
    *,
    on_progress: OnProgress = silent,
) -> list[float]:
    """Train `encoder` in place by Adam, and return the loss of each step.

    Raises:
        TrainingError: A loss is not finite.
    """
    rng = random.Random(settings.seed)
    torch.manual_seed(settings.seed)  # dropout
    optimizer = torch.optim.Adam(encoder.parameters(), lr=settings.learning_rate)
    encoder.train()
    losses = []
    for step in range(settings.steps):
        batch = rng.sample(triples, settings.batch_size)
        texts = [text for triple in batch for text in (triple.memory, triple.in_scope, triple.out_of_scope)]
        vectors_BD = encoder(texts)
        loss = scope_loss(vectors_BD[0::3], vectors_BD[1::3], vectors_BD[2::3])
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {step}; give a lower learning_rate than"
                f" {settings.learning_rate}"
            )
        optimizer.zero_grad()
        cast(Any, loss).backward()
        optimizer.step()
        losses.append(loss.item())
        on_progress("training the scope classifier", step + 1, settings.steps)
    return losses


def open_serac(model: CausalModel, config: Path | None) -> Serac:
    """With the embedded MiniLM and the training rows of CounterFact and zsRE.

    Raises:
        ConfigError: Settings, weights or data cannot be read.
    """
    from transformers import AutoModel, AutoTokenizer

    from serac_gateway.models.encoders.sentence_transformer import embedded_minilm_path
    from training.baselines.opening import open_counterfactual
    from training.benchmarks import counterfact, zsre

    settings = read_config(config or SERAC_CONFIG, SeracSettings)
    folder = embedded_minilm_path()
    encoder = ScopeEncoder(AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    sets = [counterfact.load_10k(), zsre.load_10k()]
    return Serac(model, settings, encoder, open_counterfactual, sets)
