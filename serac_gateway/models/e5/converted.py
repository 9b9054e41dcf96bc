"""The converted models in the data folder, each made the first time it is opened."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import onnxruntime

from serac_gateway.errors import ConfigError
from serac_gateway.models.conversion import convert_in_child
from serac_gateway.models.converted_folders import converted_folder
from serac_gateway.models.e5.conversion_request import (
    CONFIG_FILE,
    CONVERTER,
    MODEL_FILE,
    PROJECTION_FILE,
    WEIGHTS_FILE,
    E5Conversion,
)
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.progress import OnStep, Step


def converted_e5(
    e5: EmbeddedE5,
    models: Path,
    *,
    kind: Literal["encoder", "scope-classifier"],
    name: str,
    weights: Path | None,
    projection: Path | None = None,
    on_step: OnStep,
    others: int,
) -> Path:
    """The ONNX file of the encoder or pair model, converted once from `weights` into ``KIND-NAME``.

    `projection` is the folder of that of an encoder's vectors.

    See `converted_folder` for `others` and what is raised.
    """
    step = f"converting the {kind.replace('-', ' ')} (once)"

    def convert(folder: Path) -> None:
        on_step(Step(step, 0.0))
        request = E5Conversion(
            package_file=str(e5.path),
            weights=None if weights is None else str(weights),
            projection=None if projection is None else str(projection),
            folder=str(folder),
            head="vectors" if kind == "encoder" else "logits",
            step=step,
        )
        convert_in_child(CONVERTER, request, on_step)

    return converted_folder(models, kind, name, convert, others=others) / MODEL_FILE


def weights_digest(e5: EmbeddedE5, weights: Path | None, projection: Path | None = None) -> str:
    """Of all that a model is made of: 16 hexadecimal digits.

    Raises:
        ConfigError: A file of the trained weights cannot be read.
    """
    files = [] if weights is None else [weights / CONFIG_FILE, weights / WEIGHTS_FILE]
    files += [] if projection is None else [projection / PROJECTION_FILE]
    if not files:
        return e5.digest[:16]
    digest = hashlib.sha256(e5.digest.encode())
    for path in files:
        try:
            digest.update(path.read_bytes())
        except OSError as exc:
            raise ConfigError(
                f"cannot read the trained weights {str(path)!r}: {exc.strerror or exc}; put them"
                " there, or name another folder"
            ) from exc
    return digest.hexdigest()[:16]


def open_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """The converted model at `path`; `threads` compute one text or pair.

    Raises:
        ConfigError: It is missing or damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores have other work
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime raises direct subclasses of Exception
        raise ConfigError(
            f"the converted model {str(path)!r} cannot be read: {exc};"
            f" delete the folder {str(path.parent)!r} and start again, it is made anew"
        ) from exc
