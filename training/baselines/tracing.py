"""Causal tracing: where in a model an answer comes from.

Meng, Bau, Andonian, Belinkov, "Locating and Editing Factual Associations in GPT", NeurIPS 2022, arXiv
2202.05262, section 2. A prompt is run in three ways, and p is the probability of the answer's first token:

    clean       as it is
    corrupted   noise N(0, σ²) on the subject's embeddings, σ a multiple of their standard deviation
    restored    corrupted, but some states are put back as in the clean run

    indirect effect of a place = p(restored there) − p(corrupted), mean over draws of noise

A place is a token with the output of a layer ("state"), or with the MLPs or attentions of a window of layers
around one, whose single contributions are too small to see. The noise is measured and added at the embedding
module's output, which in Gemma is √D times the weight. High effects are no advice where to edit: edits work
best at other layers (Hase et al., arXiv 2301.04213).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import msgspec
import torch
from torch import Tensor, nn

from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.hooks import changed, recorded, replayed
from training.progress import OnProgress
from training.runs import TrainingError

KINDS = ("state", "mlp", "attention")


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What configs/baselines/tracing.toml holds."""

    noise: float
    """σ in standard deviations of the subject's embeddings."""
    draws: int
    window: int
    """Layers restored together for MLPs and attentions, around the layer that is named."""
    seed: int


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The effects of all places; every list of effects is by layer, then by token."""

    prompt: str
    """As the model read it."""
    subject: str
    answer: str
    """The token whose probability is followed."""
    tokens: list[str]
    subject_tokens: list[int]
    """Indices of those that got noise."""
    clean: float
    """Probability of the answer; so are the other two."""
    corrupted: float
    window: int
    state: list[list[float]]
    mlp: list[list[float]]
    attention: list[list[float]]


class Tracer:
    """One prompt with its noise: runs it clean, corrupted, and restored at any places.

    Legend of shapes: N draws, L tokens, D width, V vocabulary.
    """

    def __init__(
        self, model: CausalModel, text: str, subject: str, config: TracingConfig, *, answer: str | None = None
    ) -> None:
        """`text` is what the model reads; without `answer` its own next token is followed.

        Raises:
            TrainingError: The text does not contain the subject, or the answer has no token.
        """
        self._model = model
        self._embedding: nn.Module = model.network.get_input_embeddings()
        self.ids = model.prompt_ids(text)
        self.subject_tokens = model.subject_tokens(text, subject)
        self._draws = config.draws
        self._modules = {
            "state": model.layers,
            "mlp": [model.module(f"model.layers.{at}.mlp") for at in range(len(model.layers))],
            "attention": [model.module(f"model.layers.{at}.self_attn") for at in range(len(model.layers))],
        }
        places = {(kind, at): module for kind, of in self._modules.items() for at, module in enumerate(of)}
        with torch.no_grad(), recorded({**places, ("embedding", 0): self._embedding}) as seen:
            probabilities_V = self._next_token(1)[0]
        self._clean = {place: states[0] for place, states in seen.items()}
        self.answer_id = self._followed(answer, probabilities_V)
        self.clean = probabilities_V[self.answer_id].item()
        self._noise_NSD = self._drawn_noise(config)
        with recorded(dict(enumerate(model.layers))) as corrupted:
            self.corrupted = self.restored([])
        self._corrupted_states = corrupted

    @torch.no_grad()
    def restored(self, places: Sequence[tuple[str, int, int]]) -> float:
        """Probability of the answer with (kind, layer, token) put back under noise; no places: corrupted."""
        by_module: dict[tuple[str, int], list[int]] = {}
        for kind, layer, token in places:
            by_module.setdefault((kind, layer), []).append(token)
        with ExitStack() as stack:
            stack.enter_context(changed(self._embedding, self._corrupt))
            if lowest := min((layer for _, layer, _ in places), default=0):  # below it all is as corrupted
                states_NLD = self._corrupted_states[lowest - 1]
                stack.enter_context(replayed(self._model.layers[:lowest], states_NLD))
            for (kind, layer), tokens in by_module.items():
                clean_LD = self._clean[kind, layer]

                def put_back(
                    states_NLD: Tensor, tokens: list[int] = tokens, clean_LD: Tensor = clean_LD
                ) -> Tensor:
                    states_NLD = states_NLD.clone()
                    states_NLD[:, tokens] = clean_LD[tokens]
                    return states_NLD

                stack.enter_context(changed(self._modules[kind][layer], put_back))
            return self._next_token(self._draws)[:, self.answer_id].mean().item()

    def _next_token(self, copies: int) -> Tensor:
        """Probabilities after the last token, (N, V)."""
        states_NLD = self._model.hidden(self._model.batch([self.ids] * copies))
        return torch.softmax(self._model.logits(states_NLD[:, -1]), -1)

    def _followed(self, answer: str | None, probabilities_V: Tensor) -> int:
        if answer is None:
            return int(probabilities_V.argmax())
        ids = self._model.target_ids(answer)
        if not ids:
            raise TrainingError(f"the answer {answer!r} has no token; give a word, or leave it out")
        return ids[0]

    def _drawn_noise(self, config: TracingConfig) -> Tensor:
        subject_SD = self._clean["embedding", 0][self.subject_tokens]
        generator = torch.Generator().manual_seed(config.seed)
        noise_NSD = torch.randn((config.draws, *subject_SD.shape), generator=generator)
        return noise_NSD * config.noise * subject_SD.std()

    def _corrupt(self, embedded_NLD: Tensor) -> Tensor:
        embedded_NLD = embedded_NLD.clone()
        embedded_NLD[:, self.subject_tokens] += self._noise_NSD
        return embedded_NLD


def traced(
    model: CausalModel,
    prompt: str,
    subject: str,
    config: TracingConfig,
    *,
    answer: str | None = None,
    on_progress: OnProgress = silent,
) -> Trace:
    """The effects of all places of a prompt: layers × tokens × 3 kinds, each a run of all draws.

    A token before the subject has no effect in any layer, since nothing that it looks back on is corrupted.

    Raises:
        TrainingError: The prompt does not contain the subject.
        ConfigError: The model has not the modules of a Gemma or Llama.
    """
    text = model.prompt_text(prompt)
    tracer = Tracer(model, text, subject, config, answer=answer)
    layers, first = len(model.layers), tracer.subject_tokens[0]
    effects = {kind: [[0.0] * len(tracer.ids) for _ in range(layers)] for kind in KINDS}
    done, total = 0, len(KINDS) * layers * (len(tracer.ids) - first)
    for kind in KINDS:
        for layer in range(layers):
            for token in range(first, len(tracer.ids)):
                on_progress("restored runs", done, total)
                places = [(kind, at, token) for at in window_around(layer, layers, kind, config.window)]
                effects[kind][layer][token] = tracer.restored(places) - tracer.corrupted
                done += 1
    on_progress("restored runs", done, total)
    return Trace(
        prompt=text,
        subject=subject,
        answer=model.tokenizer.decode([tracer.answer_id]),
        tokens=[model.tokenizer.decode([token]) for token in tracer.ids],
        subject_tokens=tracer.subject_tokens,
        clean=tracer.clean,
        corrupted=tracer.corrupted,
        window=config.window,
        **effects,
    )


def window_around(layer: int, layers: int, kind: str, window: int) -> range:
    """The layers restored together: the layer alone for states, else up to `window` around it."""
    if kind == "state":
        return range(layer, layer + 1)
    begin = max(0, layer - window // 2)
    return range(begin, min(layers, layer - window // 2 + window))
