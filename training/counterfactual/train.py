"""Trains the adapter of the counterfactual model: LoRA on a frozen causal LM, loss on the answers only.

Two cores are enough because of four economies: the frozen weights compute in bfloat16 (2.5 times float32's
rate where the CPU has the instructions), batches hold examples of one length, hidden states become logits
only where an answer stands, and only over the tokens that the examples use with some thousand others (of
262,144). *Shapes:* B examples, L tokens, A answer tokens of a batch, D hidden width, S shortlisted tokens.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch import Tensor

from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.counterfactual.truncation import MAX_FIELD_CHARS
from training.counterfactual.examples import Example
from training.runs import TrainingError
from training.scope.train import Trained, flushing_denormals

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE_NAME = "google/gemma-3-270m"
"""What the adapter says it belongs to; the folder that it was read from would mean nothing elsewhere."""
OnStep = Callable[[int, int, float], None]


class AdapterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train."""

    steps: int = 2_000
    batch_size: int = 8
    learning_rate: float = 4e-4
    warmup_fraction: float = 0.03
    weight_decay: float = 0.0
    rank: int = 16
    alpha: int = 32
    bfloat16: bool = True
    """Compute the frozen weights in bfloat16; the adapter's own stay in float32."""
    other_tokens: int = 8_192
    """Tokens that no example uses but that the model must still not say."""
    max_tokens: int = 200
    """Longer examples are left out."""
    threads: int = 2
    seed: int = 13
    checkpoint_every_steps: int = 200


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """An example in tokens: start, prompt, answer, end."""

    ids: tuple[int, ...]
    answer_from: int
    """The place of the answer's first token; the end token belongs to the answer."""


def encode(example: Example, tokenizer: Any) -> Encoded:  # noqa: ANN401
    """The example as serving would have it: the prompt tokenised by itself, then the answer and the end."""
    prompt = trained_prompt(example, example.query, field_chars=MAX_FIELD_CHARS)
    plain = tokenizer.backend_tokenizer
    plain.encode_special_tokens = True  # control tokens in a prompt are text, as in serving
    before = [tokenizer.bos_token_id, *plain.encode(prompt, add_special_tokens=False).ids]
    said = plain.encode(f" {example.answer}", add_special_tokens=False).ids
    return Encoded(ids=(*before, *said, tokenizer.eos_token_id), answer_from=len(before))


@flushing_denormals()
def train_adapter(
    examples: Sequence[Example], *, model: Any, tokenizer: Any, run: Path, settings: AdapterSettings,  # noqa: ANN401
    on_step: OnStep = lambda step, steps, loss: None,
) -> Trained:  # fmt: skip
    """Fit an adapter to `model`, a causal LM in memory that is used up; write checkpoints into `run`.

    A run folder with a checkpoint of the same settings and data size is continued. `on_step` gets step, steps
    and the running mean loss in nats a token.

    Raises:
        TrainingError: No usable examples, a foreign checkpoint, or a loss that is not finite; the last good
            checkpoint stays.
    """
    encoded = [
        example
        for example in (encode(e, tokenizer) for e in examples)
        if len(example.ids) <= settings.max_tokens
    ]
    if not encoded:
        raise TrainingError(
            f"none of the {len(examples)} examples has {settings.max_tokens} tokens or fewer;"
            " name data, or raise max_tokens"
        )
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    checkpoint = run / "checkpoint"
    batches = _batches(encoded, settings)
    state = _resumed(checkpoint, settings, len(encoded))
    adapted = _adapted(model, settings, checkpoint if state else None)
    weights = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if state:
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", weights_only=True))
    shortlist_S = _shortlist(encoded, adapted.config.vocab_size, settings)
    first_step = int(state["step"]) if state else 0
    mean_loss = float(state["mean_loss"]) if state else 0.0
    for step in range(first_step, settings.steps):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * _rate(step, settings)
        loss = _loss(adapted, [encoded[i] for i in batches[step]], shortlist_S, settings)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()!r} at step {step}; the last good checkpoint is kept in"
                f" {str(checkpoint)!r}; lower learning_rate and start again to continue from it"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 100)
        on_step(step + 1, settings.steps, mean_loss)
        if (step + 1) % settings.checkpoint_every_steps == 0 or step + 1 == settings.steps:
            _save(checkpoint, adapted, optimizer, settings, step + 1, len(encoded), mean_loss)
    return Trained(checkpoint=checkpoint, steps=settings.steps, mean_loss=mean_loss)


def answer_loss(model: Any, batch: Sequence[Encoded], shortlist_S: Tensor) -> Tensor:  # noqa: ANN401
    """Mean over the examples of the mean loss of their answer tokens, so that long answers do not outweigh.

    `model` is the adapted causal LM. Padding stands at the end, where causal attention never looks.
    """
    width = max(len(example.ids) for example in batch)
    ids_BL = torch.zeros((len(batch), width), dtype=torch.long)
    for row, example in enumerate(batch):
        ids_BL[row, : len(example.ids)] = torch.tensor(example.ids)
    rows = [row for row, example in enumerate(batch) for _ in example.ids[example.answer_from :]]
    places = [place for example in batch for place in range(example.answer_from, len(example.ids))]
    weights = [
        1 / (len(example.ids) - example.answer_from)
        for example in batch
        for _ in example.ids[example.answer_from :]
    ]
    causal = model.get_base_model()
    hidden_BLD = causal.model(input_ids=ids_BL, use_cache=False).last_hidden_state
    hidden_AD = hidden_BLD[torch.tensor(rows), torch.tensor(places) - 1]
    logits_AS = hidden_AD @ causal.get_output_embeddings().weight[shortlist_S].T.to(hidden_AD.dtype)
    labels_A = torch.searchsorted(shortlist_S, ids_BL[torch.tensor(rows), torch.tensor(places)])
    losses_A = torch.nn.functional.cross_entropy(logits_AS.float(), labels_A, reduction="none")
    return (losses_A * torch.tensor(weights)).sum() / len(batch)


def _loss(model: Any, batch: Sequence[Encoded], shortlist_S: Tensor, settings: AdapterSettings) -> Tensor:  # noqa: ANN401
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bfloat16),
        disable_input_dtype_casting(model, active=settings.bfloat16),
    ):
        return answer_loss(model, batch, shortlist_S)


def _shortlist(encoded: Sequence[Encoded], vocabulary: int, settings: AdapterSettings) -> Tensor:
    """The tokens that logits are computed for, in order: all of the examples and a sample of the others."""
    used = {token for example in encoded for token in example.ids}
    others = sorted(set(range(vocabulary)) - used)
    rng = random.Random(settings.seed)
    return torch.tensor(sorted({*used, *rng.sample(others, min(settings.other_tokens, len(others)))}))


def _batches(encoded: Sequence[Encoded], settings: AdapterSettings) -> list[list[int]]:
    """`settings.steps` batches of examples of like length, in random order, the same for the same seed."""
    rng = random.Random(settings.seed)
    made: list[list[int]] = []
    size = settings.batch_size
    while len(made) < settings.steps:
        order = list(range(len(encoded)))
        rng.shuffle(order)
        epoch: list[list[int]] = []
        for start in range(0, len(order), size * 50):
            block = sorted(order[start : start + size * 50], key=lambda i: len(encoded[i].ids))
            epoch.extend(block[i : i + size] for i in range(0, len(block), size))
        rng.shuffle(epoch)
        made.extend(epoch)
    return made[: settings.steps]


def _rate(step: int, settings: AdapterSettings) -> float:
    warmup = max(1, int(settings.warmup_fraction * settings.steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.02, (settings.steps - step) / max(1, settings.steps - warmup))


def _adapted(model: Any, settings: AdapterSettings, checkpoint: Path | None) -> Any:  # noqa: ANN401
    if settings.bfloat16:
        model = model.to(torch.bfloat16)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        if checkpoint is not None:
            return PeftModel.from_pretrained(model, str(checkpoint), is_trainable=True)
        return get_peft_model(model, config)


def _resumed(checkpoint: Path, settings: AdapterSettings, examples: int) -> dict[str, Any] | None:
    path = checkpoint / "state.json"
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if state.get("examples") != examples or state.get("settings") != msgspec.to_builtins(settings):
        raise TrainingError(
            f"{str(checkpoint)!r} is of another run ({state.get('examples')} examples, now {examples}, or"
            " other settings); give another run folder, or delete it"
        )
    return state


def _save(
    checkpoint: Path, model: Any, optimizer: torch.optim.Optimizer, settings: AdapterSettings, step: int,  # noqa: ANN401
    examples: int, mean_loss: float,
) -> None:  # fmt: skip
    """Write beside, then move: a stop in between leaves the old checkpoint whole."""
    fresh, old = checkpoint.with_name("checkpoint.new"), checkpoint.with_name("checkpoint.old")
    shutil.rmtree(fresh, ignore_errors=True)
    for config in model.peft_config.values():
        config.base_model_name_or_path = BASE_NAME
    model.save_pretrained(str(fresh), save_embedding_layers=False)
    torch.save(optimizer.state_dict(), fresh / "optimizer.pt")
    state = {
        "step": step, "examples": examples, "mean_loss": mean_loss, "settings": msgspec.to_builtins(settings),
    }  # fmt: skip
    (fresh / "state.json").write_text(json.dumps(state), encoding="utf-8")
    if checkpoint.exists():
        checkpoint.rename(old)
    fresh.rename(checkpoint)
    shutil.rmtree(old, ignore_errors=True)
