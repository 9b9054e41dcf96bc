"""What MEND and KnowledgeEditor share: a trained network turns an edit's gradient into weight changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.target_gradients import OuterProducts, target_gradients
from training.progress import OnProgress

WEIGHTS_FILE = "hyper.safetensors"


def edited_linears(
    model: CausalModel, layers: Sequence[int], matrices: Sequence[str]
) -> dict[str, nn.Linear]:
    """The linear layers of these MLPs by their path, as "model.layers.2.mlp.up_proj".

    Raises:
        ConfigError: There is none of that name.
    """
    linears: dict[str, nn.Linear] = {}
    for path in (f"model.layers.{layer}.mlp.{matrix}" for layer in layers for matrix in matrices):
        linear = model.module(path)
        if not isinstance(linear, nn.Linear):
            raise ConfigError(
                f"{path!r} of {model.name!r} is a {type(linear).__name__}, not a torch.nn.Linear"
            )
        linears[path] = linear
    return linears


class HyperNetwork(nn.Module, ABC):
    """Gives ΔW of each linear layer for an edit; differentiable in its own parameters only."""

    @abstractmethod
    def changes(self, edit: EditDraft, gradients: Mapping[str, OuterProducts]) -> dict[str, Tensor]:
        """ΔW by the layer's path, each shaped as the layer's weight, to be added to it."""

    def observe(self, gradients: Mapping[str, OuterProducts]) -> None:
        """While training: take what is to be normalised into the running statistics."""

    def forget_gradients(self) -> None:
        """Parameters need no gradients any more: the network is used, not trained."""
        self.eval().requires_grad_(False)


@contextmanager
def changed(linears: Mapping[str, nn.Module], changes: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the layers compute with W + ΔW, differentiable in ΔW; their own weights stay."""
    with ExitStack() as hooks:
        for path, change in changes.items():

            def add(_: nn.Module, given: tuple[Tensor], output: Tensor, change: Tensor = change) -> Tensor:
                return output + given[0] @ change.T

            hooks.callback(linears[path].register_forward_hook(add).remove)
        yield


class HyperEditor(EditingMethod):
    """Adds to the model's weights what a hyper-network gives."""

    def __init__(
        self,
        model: CausalModel,
        network: HyperNetwork,
        linears: Mapping[str, nn.Linear],
        *,
        weights: Path | None,
    ) -> None:
        """`weights` is the file that training wrote; None: the network as it is."""
        super().__init__(model)
        self.network = network
        self.linears = linears
        self._weights = weights
        self._before: dict[str, Tensor] = {}

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Read the network's weights.

        Raises:
            ConfigError: There are none yet, or they are of other settings.
        """
        if self._weights is not None:
            read_weights(self.network, self._weights, name=self.name)
            self._weights = None
        self.network.forget_gradients()

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """All at once: the changes of all edits, each for the weights before, are summed."""
        self.prepare()
        summed: dict[str, Tensor] = {}
        for done, edit in enumerate(edits):
            gradients = target_gradients(self.model, edit, self.linears)
            for path, change in self.network.changes(edit, gradients).items():
                summed[path] = summed[path] + change if path in summed else change
            on_progress(self.name, done + 1, len(edits))
        for path, change in summed.items():
            weight = self.linears[path].weight
            self._before.setdefault(path, weight.detach().clone())
            weight.data.add_(change)

    @override
    def undo(self) -> None:
        """Put the weights back that were there before the first edit."""
        for path, before in self._before.items():
            self.linears[path].weight.data.copy_(before)
        self._before.clear()

    @property
    @override
    def held_bytes(self) -> int:
        """The changed matrices."""
        return sum(before.nbytes for before in self._before.values())


def read_weights(network: HyperNetwork, path: Path, *, name: str) -> None:
    """Read what training wrote into the network.

    Raises:
        ConfigError: There is no such file, or it is of other settings.
    """
    if not path.is_file():
        raise ConfigError(
            f"{name!r} needs its trained network, and there is no file {str(path)!r}:"
            f" run serac-train baseline {name}, or set `run` in configs/baselines/{name}.toml"
        )
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, ValueError) as exc:
        raise ConfigError(
            f"{str(path)!r} is of another network: {str(exc).splitlines()[0]}; train {name!r} anew with"
            " these settings"
        ) from exc


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's random numbers begin with this seed; outside they go on as if none had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
