"""A BERT over the words of multilingual-e5-small in torch, on the CPU or a GPU, in float32 or bfloat16.

Texts of several threads are computed together (models/batching.py). Every shape that the device sees is of a
short list: rows are padded to a length of `LENGTHS`, and on a GPU batches to a count of `COUNTS`, so that
kernels are chosen, and graphs could be recorded, once a shape.

Shape suffixes: B rows, L tokens, D width, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.config.model import Device, Precision
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.models.batching import SharedBatches
from serac_gateway.models.devices import Placement
from serac_gateway.models.e5.embedded import EmbeddedE5

if TYPE_CHECKING:
    import torch

LENGTHS: Final = (16, 32, 64, 128, 256, 512)
COUNTS: Final = (8, 16, 32, 64)
_MOST = 4 * COUNTS[-1]
"""Rows of a batch; the device sees them in parts of at most `COUNTS[-1]`."""


class Tokens(msgspec.Struct, frozen=True):
    """A text or a pair of texts."""

    ids: Sequence[int]
    types: Sequence[int]


class TorchBert:
    """A model of transformers that is given the words' vectors. Thread-safe."""

    def __init__(
        self,
        e5: EmbeddedE5,
        model: torch.nn.Module,
        head: Callable[[Any, Any], Any],
        placement: Placement,
        *,
        name: str,
        counts: Sequence[int] | None = None,
    ) -> None:
        """Move `model` to the device; `head(output, mask_BL)` makes its output (B, O) of what it returns.

        `name` is for errors. `counts` are the sizes of batches; None: those of the device.
        """
        import torch

        dtypes = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}
        self._e5 = e5
        self._device = torch.device(placement.device.value)
        self._dtype = dtypes[placement.precision]
        self._model = model.to(device=self._device, dtype=self._dtype).eval()
        self._head = head
        self._name = name
        self._counts = (COUNTS if placement.device is Device.CUDA else ()) if counts is None else counts
        self._batches = SharedBatches[Tokens, NDArray[np.float32]](self._computed, most=_MOST)

    def run(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """The output of each row, computed with those of other threads. *Shape:* (B, O); (0, 0) without rows.

        Raises:
            ModelUnavailableError: The device failed, or is full.
        """
        outputs = self._batches.run(rows)
        return np.stack(outputs) if outputs else np.empty((0, 0), dtype=np.float32)

    def _computed(self, rows: list[Tokens]) -> list[NDArray[np.float32]]:
        by_length: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            length = min(_at_least(len(row.ids), LENGTHS), self._e5.positions)
            by_length.setdefault(length, []).append(place)
        outputs: dict[int, NDArray[np.float32]] = {}
        for length, places in by_length.items():
            for begin in range(0, len(places), COUNTS[-1]):
                part = places[begin : begin + COUNTS[-1]]
                for place, output_O in zip(
                    part, self._forward([rows[place] for place in part], length), strict=False
                ):
                    outputs[place] = output_O
        return [outputs[place] for place in range(len(rows))]

    def _forward(self, rows: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """The outputs of `rows` and of the empty ones that fill the batch up."""
        import torch

        count = _at_least(len(rows), self._counts)
        words_BLD = np.zeros((count, length, self._e5.words.width), dtype=np.float32)
        types_BL = np.zeros((count, length), dtype=np.int64)
        mask_BL = np.zeros((count, length), dtype=np.int64)
        mask_BL[:, 0] = 1  # an empty row attends to something, or its numbers would not be finite
        for place, row in enumerate(rows):
            words_BLD[place, : len(row.ids)] = self._e5.words.rows(row.ids)
            types_BL[place, : len(row.ids)] = row.types
            mask_BL[place, : len(row.ids)] = 1
        try:
            with torch.inference_mode():
                mask = torch.from_numpy(mask_BL).to(self._device)
                output = self._model(
                    inputs_embeds=torch.from_numpy(words_BLD).to(device=self._device, dtype=self._dtype),
                    token_type_ids=torch.from_numpy(types_BL).to(self._device),
                    attention_mask=mask,
                )
                outputs_BO = self._head(output, mask)
                return np.asarray(outputs_BO.float().cpu().numpy(), dtype=np.float32)
        except RuntimeError as exc:  # torch's class for a lost or full device
            raise ModelUnavailableError(f"the {self._name} failed on {len(rows)} texts: {exc}") from exc


def _at_least(number: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes` that holds `number`; itself if none does."""
    return next((size for size in sizes if size >= number), number)


def tensors(weights: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """`weights` as torch's, in float32."""
    import torch

    return {name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in weights.items()}
