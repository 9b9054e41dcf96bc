"""Where the models that decide are computed, as the configuration says and the machine allows."""

from __future__ import annotations

import pytest

from serac_gateway.config.model import Device, ModelsConfig, Precision
from serac_gateway.errors import ConfigError
from serac_gateway.models.devices import (
    ON_CPU,
    Placement,
    classifier_placement,
    cuda_is_available,
    encoder_placement,
)
from serac_gateway.models.encoders.base import have_same_weights

without_cuda = pytest.mark.skipif(cuda_is_available(), reason="there is a CUDA device here")


@without_cuda
@pytest.mark.parametrize(
    ("models", "placement"),
    [
        (ModelsConfig(), ON_CPU),
        (ModelsConfig(device=Device.CPU), ON_CPU),
        (ModelsConfig(precision=Precision.INT8), ON_CPU),
        (
            ModelsConfig(precision=Precision.BF16),
            Placement(device=Device.CPU, precision=Precision.BF16),
        ),
        (
            ModelsConfig(device=Device.CPU, precision=Precision.FP32),
            Placement(device=Device.CPU, precision=Precision.FP32),
        ),
    ],
)
def test_without_a_gpu_all_is_on_the_cpu(models: ModelsConfig, placement: Placement) -> None:
    assert classifier_placement(models) == encoder_placement(models) == placement


@without_cuda
def test_a_gpu_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="torch sees no CUDA device here; check the driver"):
        classifier_placement(ModelsConfig(device=Device.CUDA))


def test_int8_on_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="computes in bf16 or fp32"):
        encoder_placement(ModelsConfig(device=Device.CUDA, precision=Precision.INT8))


@pytest.mark.skipif(not cuda_is_available(), reason="no CUDA device here")
def test_with_a_gpu_the_encoder_stays_where_its_stored_vectors_are_from() -> None:
    on_gpu = Placement(device=Device.CUDA, precision=Precision.BF16)
    assert (classifier_placement(ModelsConfig()), encoder_placement(ModelsConfig())) == (on_gpu, ON_CPU)
    assert encoder_placement(ModelsConfig(device=Device.CUDA)) == on_gpu


def test_fingerprints_of_the_same_weights_are_recognised() -> None:
    assert have_same_weights("e5-int8-v1-0123abcd", "e5-bf16-v1-0123abcd")
    assert not have_same_weights("e5-int8-v1-0123abcd", "e5-bf16-v1-0123abce")
    assert not have_same_weights("onnx-int8-v1-0123abcd", "st-fp32-0123abcd")
