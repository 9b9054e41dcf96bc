"""Trains the network of MEND or KnowledgeEditor on edits with a paraphrase and an unrelated prompt each."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.hyper_network import WEIGHTS_FILE, HyperNetwork, changed, read_weights
from training.baselines.target_gradients import target_gradients
from training.progress import OnProgress
from training.runs import TrainingError

_STATE_FILE = "state.json"
_OPTIMIZER_FILE = "optimizer.pt"


class HyperTrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a hyper-network is trained."""

    zsre_rows: int = 4_000
    counterfact_rows: int = 4_000
    steps: int = 1_000
    """Of the optimiser."""
    edits_a_step: int = 4
    """Edits whose gradients are summed for a step; each is made and measured alone."""
    learning_rate: float = 3e-4
    edit_weight: float = 0.1
    """Of −log p(target), beside the weight of the KL."""
    locality_weight: float = 1.0
    """Where the weight of the KL begins."""
    locality_margin: float = 0.0
    """m of a constraint KL ≤ m, in nats."""
    multiplier_rate: float = 0.0
    """How much the KL's weight changes by at a step, for each nat that the KL is off m; 0: it is fixed."""
    max_norm: float = 100.0
    """Longer gradients are shortened to it."""
    statistics_edits: int = 200
    """Edits observed for running statistics before the first step, for networks that have some."""
    checkpoint_every_steps: int = 25
    seed: int = 11


class TrainingEdit(msgspec.Struct, frozen=True, kw_only=True):
    """What one training step of a hyper-network takes."""

    edit: EditDraft
    paraphrase: str
    """On which the edited model must say the target."""
    unrelated: str
    """On which the edited model must go on as the base model does."""


class HyperTrained(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave."""

    weights: Path
    steps: int
    edit_loss: float
    """Of the last steps, in nats a token."""
    locality_loss: float
    """KL of the last steps, in nats."""


class _State(msgspec.Struct, kw_only=True):
    """What goes on from a checkpoint."""

    settings: HyperTrainingSettings
    edits: int
    step: int = 0
    multiplier: float
    edit_loss: float = 0.0
    locality_loss: float = 0.0


def train_hyper_network(
    model: CausalModel, network: HyperNetwork, linears: Mapping[str, nn.Module],
    edits: Sequence[TrainingEdit], *, run: Path, settings: HyperTrainingSettings, name: str,
    on_progress: OnProgress = silent,
) -> HyperTrained:  # fmt: skip
    """Fit the network's parameters; the model's stay. Goes on from the run's checkpoint, if there is one.

    Raises:
        TrainingError: No edits, a checkpoint of other settings, or a loss that is not finite; the last good
            checkpoint stays.
    """
    if not edits:
        raise TrainingError(f"there are no edits to train {name!r} on; raise zsre_rows or counterfact_rows")
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    state = _resumed(run, settings, len(edits), network, optimizer, name)
    order = _order(len(edits), settings)
    if state.step == 0:
        _observe(model, network, linears, [edits[i] for i in order[: settings.statistics_edits]], on_progress)
    while state.step < settings.steps:
        begin = state.step * settings.edits_a_step
        batch = [edits[i] for i in order[begin : begin + settings.edits_a_step]]
        losses = [_losses(model, network, linears, each) for each in batch]
        edit_loss = torch.stack([edit for edit, _ in losses]).mean()
        locality_loss = torch.stack([locality for _, locality in losses]).mean()
        loss = settings.edit_weight * edit_loss + state.multiplier * locality_loss
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of {name!r} became {loss.item()!r} at step {state.step}; the last checkpoint is"
                f" kept in {str(run)!r}; lower learning_rate or edit_rate and give another --run"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), settings.max_norm)
        optimizer.step()
        _count(state, settings, float(edit_loss.detach()), float(locality_loss.detach()))
        on_progress(f"target {state.edit_loss:.3f}, KL {state.locality_loss:.3f}", state.step, settings.steps)
        if state.step % settings.checkpoint_every_steps == 0 or state.step == settings.steps:
            _save(run, network, optimizer, state)
    return HyperTrained(
        weights=run / WEIGHTS_FILE,
        steps=state.step,
        edit_loss=state.edit_loss,
        locality_loss=state.locality_loss,
    )


def _losses(
    model: CausalModel, network: HyperNetwork, linears: Mapping[str, nn.Module], each: TrainingEdit
) -> tuple[Tensor, Tensor]:
    """−log p(target | paraphrase) and KL(base ‖ edited) behind the unrelated prompt, of the edited model."""
    changes = network.changes(each.edit, target_gradients(model, each.edit, linears))
    unrelated = model.prompt_text(each.unrelated)
    with torch.no_grad():
        before_V = _next_log_probs(model, unrelated)
    with changed(linears, changes):
        (target_T,) = model.target_log_probs([(model.prompt_text(each.paraphrase), each.edit.target_new)])
        after_V = _next_log_probs(model, unrelated)
    return -target_T.mean(), (before_V.exp() * (before_V - after_V)).sum()


def _next_log_probs(model: CausalModel, text: str) -> Tensor:
    states_LD = model.hidden(model.batch([model.prompt_ids(text)]))[0]
    return torch.log_softmax(model.logits(states_LD[-1]), -1)


def _observe(
    model: CausalModel, network: HyperNetwork, linears: Mapping[str, nn.Module],
    edits: Sequence[TrainingEdit], on_progress: OnProgress,
) -> None:  # fmt: skip
    for done, each in enumerate(edits):
        network.observe(target_gradients(model, each.edit, linears))
        on_progress("statistics", done + 1, len(edits))


def _order(edits: int, settings: HyperTrainingSettings) -> list[int]:
    """Which edits the steps take: every edit once before any twice, the same for the same seed."""
    rng = random.Random(settings.seed)
    order: list[int] = []
    while len(order) < max(settings.steps * settings.edits_a_step, settings.statistics_edits):
        order += rng.sample(range(edits), edits)
    return order


def _count(state: _State, settings: HyperTrainingSettings, edit_loss: float, locality_loss: float) -> None:
    state.step += 1
    share = 1 / min(state.step, 50)
    state.edit_loss += share * (edit_loss - state.edit_loss)
    state.locality_loss += share * (locality_loss - state.locality_loss)
    broken_by = locality_loss - settings.locality_margin
    state.multiplier = max(0.0, state.multiplier + settings.multiplier_rate * broken_by)


def _resumed(
    run: Path, settings: HyperTrainingSettings, edits: int, network: HyperNetwork,
    optimizer: torch.optim.Optimizer, name: str,
) -> _State:  # fmt: skip
    if not (run / _STATE_FILE).is_file():
        return _State(settings=settings, edits=edits, multiplier=settings.locality_weight)
    state = msgspec.json.decode((run / _STATE_FILE).read_bytes(), type=_State)
    if (state.settings, state.edits) != (settings, edits):
        raise TrainingError(
            f"{str(run)!r} is of another run ({state.edits} edits, now {edits}, or other settings); give"
            " another --run, or delete it"
        )
    read_weights(network, run / WEIGHTS_FILE, name=name)
    optimizer.load_state_dict(torch.load(run / _OPTIMIZER_FILE, weights_only=True))
    return state


def _save(run: Path, network: HyperNetwork, optimizer: torch.optim.Optimizer, state: _State) -> None:
    """Write beside, then move, the state last: a stop in between leaves a checkpoint that goes on."""
    run.mkdir(parents=True, exist_ok=True)
    fresh = run / "checkpoint.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, fresh / WEIGHTS_FILE
    )
    torch.save(optimizer.state_dict(), fresh / _OPTIMIZER_FILE)
    (fresh / _STATE_FILE).write_bytes(msgspec.json.encode(state))
    for name in (WEIGHTS_FILE, _OPTIMIZER_FILE, _STATE_FILE):
        (fresh / name).rename(run / name)
    fresh.rmdir()
