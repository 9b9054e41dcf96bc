"""Chooses the edit index that fits the hardware."""

from __future__ import annotations

from collections.abc import Callable

from serac_gateway.edit_index.base import EditIndex
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.faiss_gpu import CudaDevice, FaissGpuIndex, cuda_device_count


def index_maker(width: int) -> Callable[[], EditIndex]:
    """Makes a namespace's index: on the GPU if faiss has one, else in memory; exact either way."""
    if cuda_device_count():
        device = CudaDevice()
        return lambda: FaissGpuIndex(width, device=device)
    return lambda: FaissFlatIndex(width)
