"""Trains the cross-encoder of the scope classifier: batches by length, balanced loss, resumable.

Its words are those of multilingual-e5-small and stay as they are: a model is trained with the words that its
pairs have, and no file of a run holds any.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import BertForSequenceClassification

from serac_gateway.models.classifiers.pair_text import edit_text, request_text
from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5
from training.data.pairs import Pair, depends_on_edit
from training.runs import TrainingError
from training.scope.losses import two_question_loss
from training.scope.weights import load_cross_encoder, save_cross_encoder


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train. Durations are counted in examples so that another batch size keeps its meaning."""

    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 5e-5
    head_learning_rate: float = 5e-4
    warmup_fraction: float = 0.05
    weight_decay: float = 0.01
    dropout: float = 0.1
    label_smoothing: float = 0.02
    max_tokens: int = 80
    layers: int | None = None
    """Of the weights to begin from, this many from below are kept; None: all."""
    frozen_layers: int = 0
    """This many from below stay as they are: a sixth of the time for two of eight."""
    threads: int = 2
    seed: int = 13
    checkpoint_every_steps: int = 200


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave."""

    checkpoint: Path
    steps: int
    mean_loss: float


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Denormal numbers cost a factor of time and say nothing; the rest of the process keeps them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@flushing_denormals()
def train_scope(
    pairs: Sequence[Pair],
    *,
    start_from: Path | None,
    run: Path,
    settings: TrainingSettings,
    e5: EmbeddedE5 | None = None,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Trained:
    """Fit a cross-encoder on `pairs`; write checkpoints into `run`.

    It begins from the weights in `start_from`, None: from multilingual-e5-small itself, whose words `e5` has.
    A run folder with a checkpoint of the same settings and data size is continued. `progress` gets step,
    steps and the running mean loss.

    Raises:
        TrainingError: No pairs, only one label, a foreign checkpoint, or a loss that is not finite; the
            last good checkpoint stays.
    """
    _check_labels(pairs)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint"
    e5 = e5 or embedded_e5()
    batches, words_W = _batches(pairs, e5, settings)
    state = _resumed(checkpoint, settings, len(batches))
    model = load_cross_encoder(
        checkpoint if state else start_from, e5, dropout=settings.dropout, layers=settings.layers
    )
    model.bert.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        torch.from_numpy(e5.words.rows(words_W)), freeze=True
    )
    optimizer = _optimizer(model, settings)
    if state:
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", weights_only=True))
    first_step = int(state["step"]) if state else 0
    mean_loss = float(state["mean_loss"]) if state else math.log(2)
    model.train()
    for step in range(first_step, len(batches)):
        _set_rate(optimizer, settings, step, len(batches))
        batch = batches[step]
        logits_B2 = model(**{k: torch.from_numpy(v) for k, v in batch.items() if k != "labels"}).logits
        loss = two_question_loss(
            logits_B2, torch.from_numpy(batch["labels"]), smoothing=settings.label_smoothing
        )
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()!r} at step {step}; the last good checkpoint is kept in"
                f" {str(checkpoint)!r};"
                " lower learning_rate and start again to continue from it"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 100)
        progress(step + 1, len(batches), mean_loss)
        if (step + 1) % settings.checkpoint_every_steps == 0 or step + 1 == len(batches):
            _save(checkpoint, model, e5, optimizer, settings, step + 1, len(batches), mean_loss)
    return Trained(checkpoint=checkpoint, steps=len(batches), mean_loss=mean_loss)


def _check_labels(pairs: Sequence[Pair]) -> None:
    positives = sum(pair.in_scope for pair in pairs)
    if not pairs:
        raise TrainingError("there are no training pairs; give edits and traffic, or name the public sets")
    if positives in (0, len(pairs)):
        side = "out of" if positives == 0 else "in"
        raise TrainingError(f"all {len(pairs)} training pairs are {side} scope; a classifier needs both")


def _batches(
    pairs: Sequence[Pair], e5: EmbeddedE5, settings: TrainingSettings
) -> tuple[list[dict[str, np.ndarray[Any, Any]]], list[int]]:
    """Batches of pairs of like length, in random order, the same for the same seed; and the words in them.

    *Shape:* input_ids, token_type_ids, attention_mask (B, L); labels (B, 2), see `two_question_loss`; words
    (W,), ids of multilingual-e5-small, to whose places the input_ids point.
    """
    encoded = []
    for pair in pairs:
        edit = edit_text(pair.prompt, pair.target)
        request = request_text(pair.text, pair.context, pair.instructions, edit)
        encoded.append(e5.tokenizer.pair(edit, request, min(settings.max_tokens, e5.positions)))
    words_W = sorted({word for ids, _ in encoded for word in ids})
    places = {word: place for place, word in enumerate(words_W)}
    rows = [([places[word] for word in ids], types) for ids, types in encoded]
    rng = random.Random(settings.seed)
    made: list[dict[str, np.ndarray[Any, Any]]] = []
    for _ in range(settings.epochs):
        order = list(range(len(pairs)))
        rng.shuffle(order)
        chunk = settings.batch_size * 50
        epoch: list[list[int]] = []
        for start in range(0, len(order), chunk):
            block = sorted(order[start : start + chunk], key=lambda i: len(rows[i][0]))
            epoch.extend(
                block[i : i + settings.batch_size] for i in range(0, len(block), settings.batch_size)
            )
        rng.shuffle(epoch)
        made.extend(_padded([rows[i] for i in batch], [_labels(pairs[i]) for i in batch]) for batch in epoch)
    return made, words_W


def _labels(pair: Pair) -> tuple[float, float]:
    depends = depends_on_edit(in_scope=pair.in_scope, kind=pair.kind)
    return float(pair.in_scope), math.nan if depends is None else float(depends)


def _padded(
    rows: list[tuple[list[int], list[int]]], labels: list[tuple[float, float]]
) -> dict[str, np.ndarray[Any, Any]]:
    width = max(len(ids) for ids, _ in rows)
    names = ("input_ids", "token_type_ids", "attention_mask")
    batch: dict[str, np.ndarray[Any, Any]] = {
        name: np.zeros((len(rows), width), dtype=np.int64) for name in names
    }
    for place, (ids, types) in enumerate(rows):
        batch["input_ids"][place, : len(ids)] = ids
        batch["token_type_ids"][place, : len(ids)] = types
        batch["attention_mask"][place, : len(ids)] = 1
    batch["labels"] = np.asarray(labels, dtype=np.float32)
    return batch


def _optimizer(model: BertForSequenceClassification, settings: TrainingSettings) -> torch.optim.AdamW:
    for layer in model.bert.encoder.layer[: settings.frozen_layers]:
        layer.requires_grad_(False)
    head = [p for n, p in model.named_parameters() if n.startswith(("classifier", "bert.pooler"))]
    body = [
        p
        for n, p in model.named_parameters()
        if not n.startswith(("classifier", "bert.pooler")) and p.requires_grad
    ]
    return torch.optim.AdamW(
        [
            {"params": body, "peak": settings.learning_rate},
            {"params": head, "peak": settings.head_learning_rate},
        ],
        lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True,
    )  # fmt: skip


def _set_rate(optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int, steps: int) -> None:
    warmup = max(1, int(settings.warmup_fraction * steps))
    share = (step + 1) / warmup if step < warmup else max(0.02, (steps - step) / max(1, steps - warmup))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def _resumed(checkpoint: Path, settings: TrainingSettings, steps: int) -> dict[str, Any] | None:
    path = checkpoint / "state.json"
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if state["steps"] != steps or state["settings"] != msgspec.to_builtins(settings):
        raise TrainingError(
            f"{str(checkpoint)!r} is of another run ({state['steps']} steps, now {steps}, or other settings);"
            " give another run folder, or delete it"
        )
    return state


def _save(
    checkpoint: Path, model: BertForSequenceClassification, e5: EmbeddedE5,
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int, steps: int, mean_loss: float,
) -> None:  # fmt: skip
    """Write beside, then move: a stop in between leaves the old checkpoint whole."""
    fresh = checkpoint.with_name("checkpoint.new")
    save_cross_encoder(model, fresh, e5)
    torch.save(optimizer.state_dict(), fresh / "optimizer.pt")
    state = {
        "step": step,
        "steps": steps,
        "mean_loss": mean_loss,
        "settings": msgspec.to_builtins(settings),
        "time": time.time(),
    }
    (fresh / "state.json").write_text(json.dumps(state), encoding="utf-8")
    old = checkpoint.with_name("checkpoint.old")
    if checkpoint.exists():
        checkpoint.rename(old)
    fresh.rename(checkpoint)
    shutil.rmtree(old, ignore_errors=True)
