"""Chooses the edit index that fits the configuration and the hardware."""

from __future__ import annotations

import logging
from collections.abc import Callable

from serac_gateway.config.model import IndexConfig, IndexKind
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.faiss_gpu import CudaDevice, FaissGpuIndex, cuda_device_count
from serac_gateway.edit_index.tiered import SealingThread, TieredIndex

log = logging.getLogger(__name__)

EXACT = IndexConfig(kind=IndexKind.FLAT)


def index_maker(
    width: int, config: IndexConfig = EXACT, thread: SealingThread | None = None
) -> Callable[[], EditIndex]:
    """What makes a namespace's index. `thread`, which all share, is needed for all kinds but `FLAT`."""
    if config.kind is IndexKind.FLAT or thread is None:
        return lambda: FaissFlatIndex(width)
    device = _device() if config.kind is IndexKind.AUTO else None
    if device is not None:
        return lambda: FaissGpuIndex(width, device=device)
    return lambda: TieredIndex(width, config=config, thread=thread)


def _device() -> CudaDevice | None:
    if not cuda_device_count():
        return None
    try:
        return CudaDevice()
    except RuntimeError as error:  # faiss's own: a card whose driver or memory is not usable
        log.warning(
            "the CUDA device cannot be used, so edits are searched in main memory: %s; set index.kind to ivf"
            " if that is meant, else look at nvidia-smi",
            str(error).splitlines()[0][:200],
        )
        return None
