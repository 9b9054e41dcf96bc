"""Looking at, changing, skipping and ending a forward pass; nothing stays on the network afterwards.

Decoder layers return a tensor in transformers 5 and returned a tuple before; attention still returns one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

K = TypeVar("K")


class _EndedError(Exception):
    """The module that was waited for has run."""


@contextmanager
def recorded(modules: Mapping[K, nn.Module], *, inputs: bool = False) -> Iterator[dict[K, Tensor]]:
    """A dictionary that holds, after a forward pass, each module's last output, or its last input."""
    seen: dict[K, Tensor] = {}
    handles = []
    for key, module in modules.items():

        def look(_: nn.Module, given: tuple[Any, ...], output: Any, key: K = key) -> None:  # noqa: ANN401
            seen[key] = given[0] if inputs else _states(output)

        handles.append(module.register_forward_hook(look))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """`change` gets the module's output, (B, L, width), and gives what later modules see instead."""

    def replace(_: nn.Module, given: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401
        states = change(_states(output))
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replayed(layers: Sequence[nn.Module], states: Tensor) -> Iterator[None]:
    """These layers, the first ones of a network, are not computed; `states` leaves the last of them."""

    def skip(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        return hidden_states

    def replay(*_: object, **__: object) -> Tensor:
        return states

    for layer in layers:
        vars(layer)["forward"] = replay if layer is layers[-1] else skip  # before the class's own
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


@contextmanager
def ending_at(module: nn.Module) -> Iterator[None]:
    """The block is left as soon as `module` has run, since what comes after it is not needed.

    A block in which it does not run is left with an AssertionError.
    """

    def end(*_: object) -> None:
        raise _EndedError

    handle = module.register_forward_hook(end)
    try:
        yield
        raise AssertionError("the module did not run")
    except _EndedError:
        return
    finally:
        handle.remove()


def _states(output: Any) -> Tensor:  # noqa: ANN401 - a tensor, or a tuple that begins with it
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
