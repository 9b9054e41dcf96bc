"""Opens the cross-encoder, and runs those that ship as int8 ONNX: the same weights are dequantised for a GPU.

In ONNX Runtime pairs run one at a time on purpose: dynamic quantisation picks its scales from the whole
batch, so in a batch a pair's logit would depend on the other pairs. Batching would gain a factor of 1.3 at
most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.classifiers.base import PairModel
from serac_gateway.models.classifiers.e5_pairs import TorchE5PairModel, holds_e5_weights, open_onnx_e5_pairs
from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.progress import OnStep

if TYPE_CHECKING:
    import torch

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
WEIGHT_NAMES = "serac_weight_names"
"""Metadata of the ONNX file: torch's name of each weight -> its initialiser, and whether it is transposed."""
CONFIG = "serac_bert_config"
"""Metadata of the ONNX file: the BertConfig as JSON."""


class OnnxPairModel:
    """int8 in ONNX Runtime."""

    def __init__(self, folder: Path, *, max_tokens: int, threads: int = 2) -> None:
        """Load ``model.onnx`` and ``tokenizer.json``; `threads` compute one pair.

        Raises:
            ConfigError: A file is missing or damaged.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores have other work
        self._tokenizer = _tokenizer(folder, max_tokens)
        try:
            self._session = onnxruntime.InferenceSession(
                folder / MODEL_FILE, options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # onnxruntime raises direct subclasses of Exception
            raise _unreadable(folder / MODEL_FILE, exc) from exc

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `PairModel.logits`.

        Raises:
            ModelUnavailableError: The model failed.
        """
        rows: list[NDArray[np.float32]] = []
        for edit, query in pairs:
            encoding = self._tokenizer.encode(edit, query)
            try:
                (logits_1O,) = self._session.run(
                    None,
                    {
                        "input_ids": np.array([encoding.ids], dtype=np.int64),
                        "token_type_ids": np.array([encoding.type_ids], dtype=np.int64),
                    },
                )
            except Exception as exc:  # onnxruntime's errors have no other common base class
                raise ModelUnavailableError(
                    f"the scope classifier failed on a pair of {len(encoding.ids)} tokens: {exc}"
                ) from exc
            rows.append(np.asarray(logits_1O, dtype=np.float32))
        return np.concatenate(rows) if rows else np.empty((0, 0), dtype=np.float32)


class TorchPairModel:
    """The same weights dequantised; differs from `OnnxPairModel` by its quantised activations."""

    def __init__(self, folder: Path, *, max_tokens: int, device: str) -> None:
        """Load ``model.onnx`` and ``tokenizer.json`` onto `device`.

        Raises:
            ConfigError: A file is missing or damaged.
        """
        self._tokenizer = _tokenizer(folder, max_tokens)
        self._tokenizer.enable_padding()
        self._device = device
        self._model = dequantised(folder / MODEL_FILE).to(device).eval()

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `PairModel.logits`; all pairs in one batch.

        Raises:
            ModelUnavailableError: The model failed.
        """
        import torch

        if not pairs:
            return np.empty((0, 0), dtype=np.float32)
        encodings = self._tokenizer.encode_batch(list(pairs))

        def tensor_BL(name: str) -> torch.Tensor:
            return torch.tensor([getattr(encoding, name) for encoding in encodings], device=self._device)

        try:
            with torch.inference_mode():
                logits_BO = self._model(
                    input_ids=tensor_BL("ids"),
                    token_type_ids=tensor_BL("type_ids"),
                    attention_mask=tensor_BL("attention_mask"),
                ).logits
                return np.asarray(logits_BO.float().cpu().numpy(), dtype=np.float32)
        except RuntimeError as exc:  # torch's class for a lost or full device
            raise ModelUnavailableError(f"the scope classifier failed on {len(pairs)} pairs: {exc}") from exc


def dequantised(path: Path) -> torch.nn.Module:
    """A BertForSequenceClassification with the weights of the ONNX file at `path`.

    Raises:
        ConfigError: The file is missing or damaged, or was not written by serac-train.
    """
    import onnx
    import torch
    from onnx import numpy_helper
    from transformers import BertConfig, BertForSequenceClassification

    try:
        model = onnx.load(str(path))
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        names: dict[str, tuple[str, bool]] = json.loads(metadata[WEIGHT_NAMES])
        config = BertConfig(**json.loads(metadata[CONFIG]))
    except Exception as exc:  # protobuf, JSON and file errors alike mean that serac-train did not write it
        raise _unreadable(path, exc) from exc
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    bert = BertForSequenceClassification(config)
    state = {}
    for name, (initialiser, transposed) in names.items():
        if initialiser in arrays:
            weights = numpy_helper.to_array(arrays[initialiser]).astype(np.float32)
        else:
            whole = numpy_helper.to_array(arrays[f"{initialiser}_quantized"]).astype(np.float32)
            zero = numpy_helper.to_array(arrays[f"{initialiser}_zero_point"]).astype(np.float32)
            scale = numpy_helper.to_array(arrays[f"{initialiser}_scale"]).astype(np.float32)
            weights = (whole - zero) * scale  # a scale for all, or for each column
        state[name] = torch.from_numpy(np.ascontiguousarray(weights.T if transposed else weights))
    missing, unexpected = bert.load_state_dict(state, strict=False)
    absent = [name for name in missing if not name.endswith("position_ids")]
    if absent or unexpected:
        raise _unreadable(path, ValueError(f"weights {absent or unexpected!r} do not fit"))
    loaded: torch.nn.Module = bert
    return loaded


def cuda_is_available() -> bool:
    """Whether torch sees a CUDA device. Torch takes seconds to import: it is loaded only with a driver."""
    if not any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def _tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as exc:  # the library raises bare Exceptions
        raise _unreadable(folder / TOKENIZER_FILE, exc) from exc
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _unreadable(path: Path, exc: Exception) -> ConfigError:
    return ConfigError(
        f"the scope classifier's file {str(path)!r} cannot be read: {exc};"
        " name a folder that serac-train wrote, or leave models.scope_classifier out of the configuration"
    )


def open_pair_model(
    folder: Path,
    data_path: Path | None,
    *,
    max_tokens: int,
    threads: int = 2,
    on_gpu: bool | None = None,
    on_step: OnStep = lambda step: None,
) -> PairModel:
    """The weights in `folder`: in torch with CUDA if it is available, else int8 in ONNX Runtime.

    Weights that were trained from multilingual-e5-small are converted once, into `data_path`. `on_gpu`
    insists on either runtime. `threads` compute one pair on the CPU.

    Raises:
        ConfigError: They are missing or damaged, or cannot be converted.
    """
    is_on_gpu = cuda_is_available() if on_gpu is None else on_gpu
    if not holds_e5_weights(folder):
        if is_on_gpu:
            return TorchPairModel(folder, max_tokens=max_tokens, device="cuda")
        return OnnxPairModel(folder, max_tokens=max_tokens, threads=threads)
    if is_on_gpu:
        return TorchE5PairModel(embedded_e5(), folder, max_tokens=max_tokens, device="cuda")
    if data_path is None:
        raise ConfigError(f"the weights in {str(folder)!r} are converted into a data folder; name one")
    return open_onnx_e5_pairs(
        embedded_e5(),
        folder,
        data_path / "models",
        max_tokens=max_tokens,
        threads=threads,
        on_step=on_step,
    )
