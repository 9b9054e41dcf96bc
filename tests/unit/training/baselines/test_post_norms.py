"""Contributions of an MLP behind a normalisation, and the nearest reachable one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.baselines.causal_model import CausalModel
from training.baselines.post_norms import Contribution, nearest_on_ellipsoid

WIDTH = 24


def drawn(seed: int, size: int = WIDTH) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gains(kind: str) -> Tensor:
    gains_D = 5 + 3 * drawn(7)
    if kind == "with zeros":
        gains_D[[2, 9]] = 0.0
    if kind == "of both signs":
        gains_D[::2] *= -1
    return gains_D


@pytest.mark.parametrize("kind", ["ordinary", "with zeros", "of both signs"])
@pytest.mark.parametrize("size", [0.1, 5.0, 500.0])
def test_the_nearest_point_is_on_the_ellipsoid_and_nearer_than_any_other(kind: str, size: float) -> None:
    """Its length is √D, and no other point tried is nearer, around it or anywhere."""
    gains_D, wanted_D = gains(kind), size * drawn(3)
    nearest_D = nearest_on_ellipsoid(gains_D, wanted_D)
    assert nearest_D.norm().item() == pytest.approx(WIDTH**0.5, rel=1e-12)
    distance = (gains_D * nearest_D - wanted_D).norm()
    for seed in range(200):
        for near in (1e-4, 1e-2, 1.0, 1e6):
            other_D = nearest_D + near * drawn(100 + seed)
            other_D *= WIDTH**0.5 / other_D.norm()
            assert (gains_D * other_D - wanted_D).norm() >= distance * (1 - 1e-9)


def test_a_point_of_the_ellipsoid_is_its_own_nearest() -> None:
    """What can be reached exactly is reached exactly, also with gains of zero."""
    gains_D = gains("with zeros")
    unit_D = drawn(5)
    unit_D *= WIDTH**0.5 / unit_D.norm()
    wanted_D = gains_D * unit_D
    assert torch.allclose(gains_D * nearest_on_ellipsoid(gains_D, wanted_D), wanted_D, atol=1e-6)


def test_nothing_wanted_is_met_where_it_costs_least() -> None:
    """For the centre the nearest points are the ends of the shortest axis."""
    gains_D = gains("ordinary")
    distance = (gains_D * nearest_on_ellipsoid(gains_D, torch.zeros_like(gains_D))).norm()
    assert distance.item() == pytest.approx((gains_D.abs().min() * WIDTH**0.5).item())


def test_gemmas_contribution_is_reached(editable: CausalModel) -> None:
    """The norm applied to the outputs that are given for a wanted contribution is its projection."""
    layer = editable.layers[1]
    contribution = Contribution(layer)
    outputs_ED = torch.stack([drawn(1, 32), 9 * drawn(2, 32)])
    assert torch.allclose(contribution.of(7 * outputs_ED), contribution.of(outputs_ED), rtol=1e-4)
    wanted_ED = contribution.of(outputs_ED) + 0.5 * torch.stack([drawn(3, 32), drawn(4, 32)])
    reached_ED = contribution.outputs_for(wanted_ED, outputs_ED)
    assert torch.allclose(reached_ED.norm(dim=1), outputs_ED.norm(dim=1))
    gains_D = 1 + layer.get_parameter("post_feedforward_layernorm.weight").double()
    for wanted_D, made_D in zip(wanted_ED, contribution.of(reached_ED), strict=True):
        projected_D = gains_D * nearest_on_ellipsoid(gains_D, wanted_D)
        assert torch.allclose(made_D, projected_D, rtol=1e-4, atol=1e-4)
        assert (made_D - wanted_D).norm() < 0.7 * wanted_D.norm()


def test_without_a_norm_what_is_wanted_is_written() -> None:
    """In a Llama's layer the output of the matrix is the contribution."""
    contribution = Contribution(nn.Sequential())
    wanted_ED = drawn(1).reshape(2, 12)
    assert torch.equal(contribution.of(wanted_ED), wanted_ED)
    assert torch.equal(contribution.outputs_for(wanted_ED, 3 * wanted_ED), wanted_ED)
