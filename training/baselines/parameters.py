"""The parameters that a method changes: chosen by name, saved, restored bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel


def chosen_parameters(model: CausalModel, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The model's parameters whose names match one of the patterns ("model.layers.17.*"), in its order.

    A tied tensor comes once, under its first name: for Gemma's head that is "model.embed_tokens.weight".

    Raises:
        ConfigError: A pattern matches no parameter.
    """
    named = dict(model.network.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise ConfigError(
                f"no parameter of {model.name!r} matches {pattern!r}; name them as the model does, such as "
                f"{list(named)[-1]!r}, with * for any part (a tied head has the name of the embeddings)"
            )
    return {
        name: parameter
        for name, parameter in named.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


@contextmanager
def with_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters, which have gradients inside and none after."""
    chosen = list(parameters)
    for parameter in chosen:
        parameter.requires_grad_(True)
    try:
        yield chosen
    finally:
        for parameter in chosen:
            parameter.requires_grad_(False)
            parameter.grad = None


class SavedParameters:
    """Parameters and a copy of what they held."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    @property
    def size_bytes(self) -> int:
        """Of the copies, which are as large as the parameters."""
        return sum(value.nbytes for value in self.values.values())

    @torch.no_grad()
    def restore(self) -> None:
        """Give every parameter its saved value."""
        for name, value in self.values.items():
            self.parameters[name].copy_(value)
