"""Trains the encoder: some of the layers of multilingual-e5-small, taught by all twelve; resumable.

The words stay as they are and are looked up in the package, as the gateway does; no file of a run holds any.

Shape suffixes: T texts, L tokens, D embedding width.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from transformers import BertModel

from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5
from serac_gateway.models.encoders.e5 import PREFIX
from training.data.pairs import Pair
from training.encoder.examples import Example, batches
from training.encoder.losses import centred, contrastive_loss, distillation_loss
from training.encoder.weights import load_encoder, package_encoder, save_encoder
from training.runs import TrainingError
from training.scope.train import flushing_denormals

_FORWARD = 64
"""Texts of like length that run through the model together."""
_MEAN_EXAMPLES = 500
"""Whose texts the teacher's mean is taken of."""


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train."""

    layers: tuple[int, ...] = (1, 3, 5, 7, 9, 11)
    """Of multilingual-e5-small's, numbered from 0."""
    steps: int = 2_000
    batch_size: int = 48
    """Edits."""
    neighbours: int = 4
    """Edits in a row of the alphabetical order that come into one batch."""
    statement_share: float = 0.25
    """Of the edits that come as their statement."""
    negative_share: float = 0.35
    """Of the edits that come with a request out of their scope."""
    learning_rate: float = 4e-4
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    temperature: float = 0.05
    contrast_weight: float = 0.1
    """Of the contrastive loss, beside the distillation's 1."""
    negative_weight: float = 0.3
    """Of a near request out of scope, beside other edits' requests."""
    alike: float = 0.8
    """Edits whose prompts the teacher finds this near, by centred cosine, ask the same."""
    max_tokens: int = 64
    threads: int = 2
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the products; the weights stay float32. auto: bf16 on processors with
    AMX; with AVX-512 alone its products take twice as long as those of float32."""
    seed: int = 17
    checkpoint_every_steps: int = 100


class TrainedEncoder(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave."""

    checkpoint: Path
    steps: int
    mean_loss: float


class _Texts:
    """Runs texts through encoders."""

    def __init__(self, e5: EmbeddedE5, max_tokens: int, *, in_bf16: bool) -> None:
        self._e5 = e5
        self._max_tokens = min(max_tokens, e5.positions)
        self._in_bf16 = in_bf16

    def vectors(self, model: BertModel, texts: Sequence[str]) -> torch.Tensor:
        """Mean over the tokens at unit length, as the gateway's graph has it. *Shape:* (T, D)."""
        ids = [self._e5.tokenizer.single(PREFIX + text, self._max_tokens) for text in texts]
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        parts = []
        for start in range(0, len(order), _FORWARD):
            parts.append(self._forward(model, [ids[place] for place in order[start : start + _FORWARD]]))
        places = torch.empty(len(order), dtype=torch.long)
        places[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[places]

    def _forward(self, model: BertModel, rows: list[list[int]]) -> torch.Tensor:
        width = max(map(len, rows))
        words_TLD = np.zeros((len(rows), width, self._e5.words.width), dtype=np.float32)
        mask_TL = torch.zeros((len(rows), width), dtype=torch.long)
        for place, ids in enumerate(rows):
            words_TLD[place, : len(ids)] = self._e5.words.rows(ids)
            mask_TL[place, : len(ids)] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
            hidden_TLD = model(
                inputs_embeds=torch.from_numpy(words_TLD), attention_mask=mask_TL
            ).last_hidden_state
        kept_TLD = hidden_TLD.float() * mask_TL[:, :, None]
        return F.normalize(kept_TLD.sum(1) / mask_TL.sum(1, keepdim=True), dim=-1)


class _Teacher:
    """All layers of multilingual-e5-small; remembers the vectors of texts, as prompts come again."""

    def __init__(self, e5: EmbeddedE5, texts: _Texts) -> None:
        self._model = package_encoder(e5).eval()
        self._texts = texts
        self._known: dict[str, torch.Tensor] = {}
        self._mean_D = torch.zeros(e5.words.width)

    def take_mean(self, texts: Sequence[str]) -> None:
        """Centre on the mean of these from now on."""
        self._mean_D = self._raw(texts).mean(0)

    def vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Centred. *Shape:* (T, D)."""
        return centred(self._raw(texts), self._mean_D)

    def _raw(self, texts: Sequence[str]) -> torch.Tensor:
        if fresh := [text for text in dict.fromkeys(texts) if text not in self._known]:
            with torch.no_grad():
                self._known |= zip(fresh, self._texts.vectors(self._model, fresh).half(), strict=True)
        return torch.stack([self._known[text] for text in texts]).float()


@flushing_denormals()
def train_encoder(
    pairs: Sequence[Pair],
    *,
    run: Path,
    settings: TrainingSettings,
    e5: EmbeddedE5 | None = None,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> TrainedEncoder:
    """Fit an encoder on `pairs`; write checkpoints into `run`, and go on from the one there.

    `progress` gets step, steps and the running mean loss.

    Raises:
        TrainingError: Too few edits, a foreign checkpoint, or a loss that is not finite; the last good
            checkpoint stays.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint"
    e5 = e5 or embedded_e5()
    made = batches(
        pairs, steps=settings.steps, batch_size=settings.batch_size, neighbours=settings.neighbours,
        statement_share=settings.statement_share, negative_share=settings.negative_share,
        seed=settings.seed,
    )  # fmt: skip
    state = _resumed(checkpoint, settings, len(made))
    model = load_encoder(checkpoint) if state else package_encoder(e5, settings.layers)
    model.embeddings.word_embeddings.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True,
    )  # fmt: skip
    if state:
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", weights_only=True))
    texts = _Texts(e5, settings.max_tokens, in_bf16=in_bf16(settings.precision, torch.cpu.get_capabilities()))
    teacher = _Teacher(e5, texts)
    teacher.take_mean(_texts_for_mean(made))
    mean_loss = float(state["mean_loss"]) if state else 0.0
    model.train()
    for step in range(int(state["step"]) if state else 0, len(made)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, len(made), settings.warmup_fraction)
        loss = _loss(made[step], model, teacher, texts, settings)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()!r} at step {step}; the last good checkpoint is kept in"
                f" {str(checkpoint)!r}; lower learning_rate and start again to continue from it"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        progress(step + 1, len(made), mean_loss)
        if (step + 1) % settings.checkpoint_every_steps == 0 or step + 1 == len(made):
            _save(checkpoint, model, e5, optimizer, settings, step + 1, len(made), mean_loss)
    return TrainedEncoder(checkpoint=checkpoint, steps=len(made), mean_loss=mean_loss)


def in_bf16(precision: str, capabilities: Mapping[str, object]) -> bool:
    """Whether products are made in bf16; `capabilities` as of `torch.cpu.get_capabilities()`."""
    return precision == "bf16" or (precision == "auto" and bool(capabilities.get("amx_bf16")))


def _loss(
    batch: Sequence[Example], model: BertModel, teacher: _Teacher, texts: _Texts, settings: TrainingSettings
) -> torch.Tensor:
    prompts_BD = teacher.vectors([example.prompt for example in batch])
    requests = [_nearest(example, teacher) for example in batch]
    owners = [place for place, example in enumerate(batch) if example.negative is not None]
    negatives = [example.negative for example in batch if example.negative is not None]
    every = [*(example.form for example in batch), *requests, *negatives]
    vectors_TD = texts.vectors(model, every)
    forms_BD, requests_BD, negatives_ND = torch.split(vectors_TD, [len(batch), len(batch), len(negatives)])
    contrast = contrastive_loss(
        forms_BD, requests_BD, negatives_ND,
        torch.tensor(owners, dtype=torch.long),
        prompts_BD @ prompts_BD.T >= settings.alike,
        temperature=settings.temperature, negative_weight=settings.negative_weight,
    )  # fmt: skip
    return distillation_loss(vectors_TD, teacher.vectors(every)) + settings.contrast_weight * contrast


def _nearest(example: Example, teacher: _Teacher) -> str:
    """That text of the request which the teacher finds nearest to the edit, as retrieval takes it."""
    if len(example.requests) == 1:
        return example.requests[0]
    form_1D, texts_RD = teacher.vectors([example.form]), teacher.vectors(example.requests)
    return example.requests[int((texts_RD @ form_1D[0]).argmax())]


def _texts_for_mean(made: Sequence[Sequence[Example]]) -> list[str]:
    examples = [example for batch in made for example in batch][:_MEAN_EXAMPLES]
    return [text for example in examples for text in (example.prompt, example.requests[0])]


def _rate(step: int, steps: int, warmup_fraction: float) -> float:
    warmup = max(1, int(warmup_fraction * steps))
    return (step + 1) / warmup if step < warmup else max(0.02, (steps - step) / max(1, steps - warmup))


def _resumed(checkpoint: Path, settings: TrainingSettings, steps: int) -> dict[str, Any] | None:
    path = checkpoint / "state.json"
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if state["steps"] != steps or state["settings"] != json.loads(msgspec.json.encode(settings)):
        raise TrainingError(
            f"{str(checkpoint)!r} is of another run ({state['steps']} steps, now {steps}, or other settings);"
            " give another run folder, or delete it"
        )
    return state


def _save(
    checkpoint: Path, model: BertModel, e5: EmbeddedE5, optimizer: torch.optim.Optimizer,
    settings: TrainingSettings, step: int, steps: int, mean_loss: float,
) -> None:  # fmt: skip
    """Write beside, then move: a stop in between leaves the old checkpoint whole."""
    fresh = checkpoint.with_name("checkpoint.new")
    save_encoder(model, fresh, e5)
    torch.save(optimizer.state_dict(), fresh / "optimizer.pt")
    state = {
        "step": step, "steps": steps, "mean_loss": mean_loss,
        "settings": json.loads(msgspec.json.encode(settings)),
    }  # fmt: skip
    (fresh / "state.json").write_text(json.dumps(state), encoding="utf-8")
    old = checkpoint.with_name("checkpoint.old")
    if checkpoint.exists():
        checkpoint.rename(old)
    fresh.rename(checkpoint)
    shutil.rmtree(old, ignore_errors=True)
