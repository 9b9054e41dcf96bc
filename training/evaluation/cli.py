"""The measuring commands of `serac-train`: parsing and printing only."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True)


def calibrate_similarity(
    out: Annotated[Path, typer.Option(help="Folder that gets calibration.json.")] = Path(
        "serac_gateway/weights/similarity-minilm"
    ),
    encoder: Annotated[
        str | None, typer.Option(help="A sentence-transformers id or folder; default: the embedded one.")
    ] = None,
) -> None:
    """Calibrate the similarity classifier on the validation rows of the public data."""
    from serac_gateway.indexes.faiss_flat import FaissFlatIndex
    from training.evaluation import similarity_calibration
    from training.evaluation.gateway_parts import open_encoder

    with console.status("reading the data"):
        benchmarks = similarity_calibration.validation_sets()
        opened = open_encoder(encoder)
    with console.status("encoding and searching"):
        calibration = similarity_calibration.calibrate(
            encoder=opened,
            make_index=lambda: FaissFlatIndex(opened.width),
            benchmarks=benchmarks,
            provenance=similarity_calibration.provenance(
                shlex.join(["serac-train", "calibrate-similarity", *sys.argv[2:]])
            ),
        )
    path = similarity_calibration.write(calibration, out)
    console.print(f"wrote {path}: {calibration.provenance['at_threshold']}")
