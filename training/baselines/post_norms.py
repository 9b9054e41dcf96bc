"""What an MLP adds to the residual stream, and what it can add: the target of an edit, made reachable.

Gemma 2 and 3 and OLMo 2 normalise the MLP's output y once more before it is added:

    contribution(y) = g ⊙ y / rms(y),   g = 1 + w in Gemma

so that only y's direction counts, and all contributions lie on an ellipsoid with half-axes |gᵢ| √D. Code of
ROME, MEMIT and AlphaEdit that takes Gemma for a Llama adds the wanted change of the residual stream to y: on
Gemma 3 270M it then arrives three to five times too large and at an angle. Here the wanted contribution t is
projected first, onto the nearest point of the ellipsoid:

    minimise ‖g ⊙ u − t‖ with ‖u‖² = D   ⇒   uᵢ = gᵢ tᵢ / (gᵢ² + μ)

with the root μ > −min g² of ‖u‖² = D, which falls in μ. Gains of exactly 0 occur, so nothing is divided by g.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_NAME = "post_feedforward_layernorm"
_HALVINGS = 200


class Contribution:
    """The way from the output of a layer's value matrix to the residual stream; all float64."""

    def __init__(self, layer: nn.Module) -> None:
        norm = dict(layer.named_children()).get(_NAME)
        self._norm: Callable[[Tensor], Tensor] | None = norm
        if norm is not None:
            width = next(norm.parameters()).shape[0]
            # By what the module does to a vector of rms 1: whether gains are w or 1 + w is its own business.
            self._gains_D = norm(torch.ones(width)).detach().double()

    def of(self, outputs_ED: Tensor) -> Tensor:
        """What is added to the residual stream for these outputs of the matrix, (E, D)."""
        if self._norm is None:
            return outputs_ED
        added_ED: Tensor = self._norm(outputs_ED.float()).detach().double()
        return added_ED

    def outputs_for(self, wanted_ED: Tensor, outputs_ED: Tensor) -> Tensor:
        """Outputs of the matrix, (E, D), whose contributions are nearest to `wanted_ED`.

        Behind a norm they are as long as `outputs_ED`, since their length has no effect.
        """
        if self._norm is None:
            return wanted_ED
        nearest = [nearest_on_ellipsoid(self._gains_D, wanted_D) for wanted_D in wanted_ED]
        lengths_E1: Tensor = outputs_ED.norm(dim=1, keepdim=True)
        reached_ED: Tensor = torch.stack(nearest) * lengths_E1 / wanted_ED.shape[1] ** 0.5
        return reached_ED


def nearest_on_ellipsoid(gains_D: Tensor, wanted_D: Tensor) -> Tensor:
    """The u, (D,), of length √D for which gains ⊙ u is nearest to `wanted_D`."""
    width = len(gains_D)
    squares_D, products_D = gains_D**2, gains_D * wanted_D
    smallest = squares_D.min()
    # At the upper end ‖u‖ ≤ ‖g ⊙ t‖ / (min g² + μ) ≤ √D; the lower end is the pole.
    low, high = torch.zeros(()).double(), products_D.norm() / width**0.5
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_long = (products_D / (squares_D - smallest + middle)).square().sum() > width
        low, high = (middle, high) if too_long else (low, middle)
    unit_D = products_D / (squares_D - smallest + high).clamp(min=torch.finfo(torch.float64).tiny)
    # Where ‖u‖ stays below √D down to the pole, the rest goes where it costs least; rounding's share too.
    cheapest = int(squares_D.argmin())
    missing = width - unit_D.square().sum() + unit_D[cheapest] ** 2
    if missing > 0:
        sign = -1.0 if unit_D[cheapest] < 0 else 1.0
        unit_D[cheapest] = sign * missing.sqrt()
    nearest_D: Tensor = unit_D * (width**0.5 / unit_D.norm())
    return nearest_D
