"""The embedded encoder in ONNX Runtime, int8 on the CPU: a third of the time of fp32.

Texts run one at a time on purpose. Dynamic quantisation picks its scales from the whole batch, so in a batch
a text's vector would depend on its company; alone, the same text has the same vector always. Batching would
gain a factor of 1.3 at most.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.conversion import convert_in_child
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.encoders.export_request import EXPORTING, ExportRequest
from serac_gateway.models.folder_digests import is_sound, write_digests
from serac_gateway.models.progress import OnStep, Step

_MAX_TOKENS = 256
"""What all-MiniLM-L6-v2 was trained for; longer texts are cut."""
_RECIPE = "onnx-int8-v1"
"""Part of the fingerprint: raise it when export or quantisation change the numbers."""
_GRAPH = "graph-2"
"""Part of the folder's name: raise it when the graph changes and the numbers do not."""
_WORK_PREFIX = ".encoder-"
_CONVERTER = "serac_gateway.models.encoders.minilm_export"


class OnnxEncoder(Encoder):
    """An exported encoder; one instance serves all threads."""

    def __init__(self, folder: Path) -> None:
        """Load ``model.onnx``, ``tokenizer.json`` and ``fingerprint`` from `folder`.

        Raises:
            ConfigError: A file is missing or damaged.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # requests run side by side instead
        try:
            self._session = onnxruntime.InferenceSession(
                folder / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._fingerprint = (folder / "fingerprint").read_text("utf-8")
        except Exception as exc:  # both libraries raise bare Exceptions of their own making
            raise ConfigError(
                f"the exported encoder in {str(folder)!r} cannot be read: {exc};"
                " delete that folder and start again, it is made anew"
            ) from exc
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._width = int(self._session.get_outputs()[0].shape[-1])

    @property
    def width(self) -> int:
        """D."""
        return self._width

    @property
    def fingerprint(self) -> str:
        """The recipe and a digest of the weights that were exported."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`."""
        vectors_BD = np.empty((len(texts), self._width), dtype=np.float32)
        for row, text in enumerate(texts):
            ids_1L = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
            try:
                (vectors_BD[row],) = self._session.run(None, {"input_ids": ids_1L})[0]
            except Exception as exc:  # onnxruntime's errors share no base class but this
                raise ModelUnavailableError(
                    f"the encoder failed on a text of {len(text)} characters: {exc}"
                ) from exc
        return vectors_BD


def open_embedded_minilm(weights: Path, cache: Path, on_step: OnStep = lambda step: None) -> OnnxEncoder:
    """The embedded all-MiniLM-L6-v2 from `weights`, exported and quantised once into `cache`.

    Starts that run side by side wait for one export; a start that is killed leaves nothing half made.

    Raises:
        ConfigError: The weights cannot be read, or the copy cannot be written.
    """
    digest = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()[:16]
    fingerprint = f"{_RECIPE}-{digest}"
    folder = cache / f"encoder-{fingerprint}-{_GRAPH}"
    if not is_sound(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / "encoder.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_sound(folder):
                    for leftover in cache.glob(f"{_WORK_PREFIX}*"):  # of an export that was killed
                        shutil.rmtree(leftover, ignore_errors=True)
                    shutil.rmtree(folder, ignore_errors=True)
                    _export(weights, folder, fingerprint, on_step)
                    shutil.rmtree(cache / f"encoder-{fingerprint}", ignore_errors=True)  # of the first graph
        except OSError as exc:
            raise ConfigError(
                f"cannot write the exported encoder to {str(folder)!r}: {exc.strerror or exc};"
                " free space there or choose another --data-dir"
            ) from exc
    return OnnxEncoder(folder)


def _export(weights: Path, folder: Path, fingerprint: str, on_step: OnStep) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=folder.parent))
    try:
        on_step(Step(EXPORTING, 0.0))
        request = ExportRequest(weights=str(weights), folder=str(temporary), fingerprint=fingerprint)
        convert_in_child(_CONVERTER, request, on_step)
        write_digests(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
