"""Exact search on a CUDA device, with the segments and the merging of `FaissFlatIndex`.

Faiss's device memory manager takes one thread at a time, for searches too (Faiss wiki, "Threads and
asynchronous calls"), so all indexes of a device share one lock. A search then waits for other searches and
for a write's copy to the device, but never for a merge, which works on the rows kept in main memory.
"""

from __future__ import annotations

import logging
import threading

import faiss
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex, FlatRows

log = logging.getLogger(__name__)

_MAX_ROWS_PER_SEARCH = 2_048
"""Faiss's limit of k on a device."""
_SCRATCH_BYTES = 64 * 1024 * 1024
"""Device memory for searches. Faiss would take 1.5 GB, for indexes of a few hundred MB."""


def cuda_device_count() -> int:
    """How many devices the installed faiss can use: 0 with faiss-cpu, whatever the machine has."""
    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0


class CudaDevice:
    """One device's memory manager and the lock that guards it; shared by all indexes on the device.

    Raises:
        ValueError: There is no such device.
    """

    def __init__(self, number: int = 0) -> None:
        if not 0 <= number < cuda_device_count():
            raise ValueError(
                f"CUDA device {number!r} is not there: faiss sees {cuda_device_count()}; install the extra"
                " [gpu] in place of [cpu], or use FaissFlatIndex"
            )
        self.number = number
        self.is_full = False
        """Whether it has refused vectors."""
        self.resources = faiss.StandardGpuResources()
        self.resources.setTempMemory(_SCRATCH_BYTES)
        self.lock = threading.RLock()  # re-entrant: a segment can be freed while its thread holds the lock


class FaissGpuIndex(FaissFlatIndex):
    """Exact inner-product search on a CUDA device."""

    def __init__(self, width: int, *, device: CudaDevice) -> None:
        super().__init__(width)
        self._device = device

    def _flat(self, vectors_RD: Vectors) -> FlatRows:
        try:
            return _RowsOnDevice(vectors_RD, self._device)
        except RuntimeError as error:  # faiss's own, of all that CUDA refuses
            if not self._device.is_full:
                self._device.is_full = True
                log.warning(
                    "CUDA device %d takes no further vectors; those that come are searched in main memory, as"
                    " exactly: %s; free memory of the device and restart, or set index.kind to ivf",
                    self._device.number, str(error).splitlines()[0][:200],
                )  # fmt: skip
            return super()._flat(vectors_RD)


class _RowsOnDevice:
    """Rows held twice: on the device to be searched, in main memory to be merged."""

    def __init__(self, vectors_RD: Vectors, device: CudaDevice) -> None:
        self.ntotal = len(vectors_RD)
        self._rows = faiss.IndexFlatIP(vectors_RD.shape[1])
        self._rows.add(np.ascontiguousarray(vectors_RD))
        self._lock = device.lock
        with self._lock:
            self._device_rows = faiss.index_cpu_to_gpu(device.resources, device.number, self._rows)

    def search(self, queries_BD: Vectors, rows_wanted: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if rows_wanted > _MAX_ROWS_PER_SEARCH:  # only when forms of few edits crowd the top
            return self._rows.search(queries_BD, rows_wanted)
        with self._lock:
            return self._device_rows.search(queries_BD, rows_wanted)

    def reconstruct_n(self, first: int, count: int) -> Vectors:
        rows_RD: Vectors = self._rows.reconstruct_n(first, count)
        return rows_RD

    def __del__(self) -> None:
        if "_lock" not in self.__dict__:
            return
        with self._lock:  # freeing goes through the device's memory manager too
            self.__dict__.pop("_device_rows", None)
