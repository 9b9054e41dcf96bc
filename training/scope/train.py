"""Trains the cross-encoder of the scope classifier: batches by length, balanced loss, resumable."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerBase

from serac_gateway.models.classifiers.pair_text import edit_text, request_text
from training.data.pairs import Pair, depends_on_edit
from training.runs import TrainingError
from training.scope.losses import two_question_loss


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
    freeze_embeddings: bool = True
    layers: int | None = None
    """Of the weights to begin from, this many from below are kept; None: all."""
    frozen_layers: int = 0
    """This many from below stay as they are: a sixth of the time for two of eight."""
    threads: int = 2
    seed: int = 13
    checkpoint_every_steps: int = 200


OUTPUTS = 2
"""Whether the edit answers the query; whether a right answer depends on it, as that of a next step does."""


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
    start_from: Path,
    run: Path,
    settings: TrainingSettings,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Trained:
    """Fit a cross-encoder on `pairs`, from the weights in `start_from`; write checkpoints into `run`.

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
    tokenizer = AutoTokenizer.from_pretrained(str(start_from))
    batches = _batches(pairs, tokenizer, settings)
    state = _resumed(checkpoint, settings, len(batches))
    model = load_cross_encoder(
        checkpoint if state else start_from, dropout=settings.dropout, layers=settings.layers
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
            _save(checkpoint, model, tokenizer, optimizer, settings, step + 1, len(batches), mean_loss)
    return Trained(checkpoint=checkpoint, steps=len(batches), mean_loss=mean_loss)


def load_cross_encoder(
    folder: Path, *, dropout: float = 0.0, layers: int | None = None
) -> BertForSequenceClassification:
    """A cross-encoder with two outputs, in scope and depends on the edit, from a folder of weights.

    From an encoder both outputs begin at random, and the second token type like the first, the only one that
    an encoder has seen. From a checkpoint of one output the second begins as a copy. The `layers` from below
    stay.

    Raises:
        TrainingError: The folder holds no BERT, or a classifier with more outputs.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as exc:
        raise TrainingError(
            f"{str(folder)!r} holds no readable config.json; name a folder that training wrote"
        ) from exc
    labels = len(config.get("id2label", range(2)))  # transformers leaves its default of two out
    is_classifier = "BertForSequenceClassification" in config.get("architectures", [])
    if config.get("model_type") != "bert" or (is_classifier and labels > OUTPUTS):
        raise TrainingError(
            f"{str(folder)!r} holds a {config.get('model_type')!r} with {labels} outputs;"
            f" the scope classifier is a BERT with {OUTPUTS} outputs"
        )
    outputs = labels if is_classifier else OUTPUTS
    model: BertForSequenceClassification = BertForSequenceClassification.from_pretrained(
        str(folder), num_labels=outputs, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    if outputs < OUTPUTS:
        _second_output_like_the_first(model)
    if layers is not None and layers < len(model.bert.encoder.layer):
        model.bert.encoder.layer = model.bert.encoder.layer[:layers]
        model.config.num_hidden_layers = layers
    if not is_classifier:
        types_TD = model.bert.embeddings.token_type_embeddings.weight
        with torch.no_grad():
            types_TD[1].copy_(types_TD[0])
    return model


def _second_output_like_the_first(model: BertForSequenceClassification) -> None:
    first = model.classifier
    both = torch.nn.Linear(first.in_features, OUTPUTS)
    with torch.no_grad():
        both.weight.copy_(first.weight.expand(OUTPUTS, -1))
        both.bias.copy_(first.bias.expand(OUTPUTS))
    model.classifier = both
    model.num_labels = model.config.num_labels = OUTPUTS


def _check_labels(pairs: Sequence[Pair]) -> None:
    positives = sum(pair.in_scope for pair in pairs)
    if not pairs:
        raise TrainingError("there are no training pairs; give edits and traffic, or name the public sets")
    if positives in (0, len(pairs)):
        side = "out of" if positives == 0 else "in"
        raise TrainingError(f"all {len(pairs)} training pairs are {side} scope; a classifier needs both")


def _batches(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, settings: TrainingSettings
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Batches of pairs of like length, in random order, the same for the same seed.

    *Shape:* input_ids, token_type_ids, attention_mask (B, L); labels (B, 2), see `two_question_loss`.
    """
    encoded = tokenizer(
        [edit_text(p.prompt, p.target) for p in pairs],
        [request_text(p.text, p.context, p.instructions, edit_text(p.prompt, p.target)) for p in pairs],
        truncation=True, max_length=settings.max_tokens,
    )  # fmt: skip
    lengths = [len(ids) for ids in encoded["input_ids"]]
    rng = random.Random(settings.seed)
    made: list[dict[str, np.ndarray[Any, Any]]] = []
    for _ in range(settings.epochs):
        order = list(range(len(pairs)))
        rng.shuffle(order)
        chunk = settings.batch_size * 50
        epoch: list[list[int]] = []
        for start in range(0, len(order), chunk):
            block = sorted(order[start : start + chunk], key=lambda i: lengths[i])
            epoch.extend(
                block[i : i + settings.batch_size] for i in range(0, len(block), settings.batch_size)
            )
        rng.shuffle(epoch)
        made.extend(_padded(encoded, rows, [_labels(pairs[i]) for i in rows]) for rows in epoch)
    return made


def _labels(pair: Pair) -> tuple[float, float]:
    depends = depends_on_edit(in_scope=pair.in_scope, kind=pair.kind)
    return float(pair.in_scope), math.nan if depends is None else float(depends)


def _padded(
    encoded: Mapping[str, list[list[int]]], rows: list[int], labels: list[tuple[float, float]]
) -> dict[str, np.ndarray[Any, Any]]:
    width = max(len(encoded["input_ids"][i]) for i in rows)
    batch: dict[str, np.ndarray[Any, Any]] = {}
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        matrix = np.zeros((len(rows), width), dtype=np.int64)
        for place, i in enumerate(rows):
            matrix[place, : len(encoded[name][i])] = encoded[name][i]
        batch[name] = matrix
    batch["labels"] = np.asarray(labels, dtype=np.float32)
    return batch


def _optimizer(model: BertForSequenceClassification, settings: TrainingSettings) -> torch.optim.AdamW:
    if settings.freeze_embeddings:
        # The names of the world stay where the encoder has them, and a step takes 25 % less time.
        model.bert.embeddings.word_embeddings.requires_grad_(False)
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
    checkpoint: Path, model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int, steps: int, mean_loss: float,
) -> None:  # fmt: skip
    """Write beside, then move: a stop in between leaves the old checkpoint whole."""
    fresh = checkpoint.with_name("checkpoint.new")
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
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
    if old.exists():
        for path in old.iterdir():
            path.unlink()
        old.rmdir()
