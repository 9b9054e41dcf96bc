"""Where the models that decide are computed, and in which numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from serac_gateway.config.model import Device, ModelsConfig, Precision
from serac_gateway.errors import ConfigError


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A device and a precision that go together: int8 in ONNX Runtime on the CPU, the others in torch."""

    device: Device
    precision: Precision

    @property
    def is_torch(self) -> bool:
        """Whether torch computes it."""
        return self.precision is not Precision.INT8


ON_CPU = Placement(device=Device.CPU, precision=Precision.INT8)


def cuda_is_available() -> bool:
    """Whether torch sees a CUDA device. Torch takes seconds to import: it is loaded only with a driver."""
    if not any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def classifier_placement(models: ModelsConfig) -> Placement:
    """Of the scope classifier: by default on the GPU if there is one.

    Raises:
        ConfigError: The device is missing, or does not compute in that precision.
    """
    device = models.device
    if device is None:
        wants_torch = models.precision not in (None, Precision.INT8)
        device = Device.CUDA if models.precision is not Precision.INT8 and cuda_is_available() else Device.CPU
        if device is Device.CPU and not wants_torch:
            return ON_CPU
    return _checked(device, models.precision)


def encoder_placement(models: ModelsConfig) -> Placement:
    """Of the embedded encoder: in int8 on the CPU unless device or precision is named.

    Its vectors are stored. In other numbers they are other vectors, which must not be compared with stored
    ones: a GPU that appears in the machine must not change that by itself.

    Raises:
        ConfigError: The device is missing, or does not compute in that precision.
    """
    if models.device is None and models.precision is None:
        return ON_CPU
    return classifier_placement(models)


def _checked(device: Device, precision: Precision | None) -> Placement:
    if device is Device.CUDA and precision is Precision.INT8:
        raise ConfigError(
            "models.precision is 'int8', and models.device 'cuda' computes in bf16 or fp32; leave precision"
            ' out, or set device = "cpu"',
            field="models.precision",
        )
    if device is Device.CUDA and not cuda_is_available():
        raise ConfigError(
            "models.device is 'cuda', and torch sees no CUDA device here; check the driver (nvidia-smi) and"
            " that torch was installed with CUDA, or leave models.device out",
            field="models.device",
        )
    default = Precision.BF16 if device is Device.CUDA else Precision.INT8
    return Placement(device=device, precision=precision or default)
