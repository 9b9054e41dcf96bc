"""all-MiniLM-L6-v2 as an ONNX graph in int8: mean pooling and unit length over a BERT of six layers.

``python -m serac_gateway.models.encoders.minilm_export`` is the converter; models/conversion.py runs it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import onnx
from safetensors.numpy import load_file

from serac_gateway.models.bert_graph import BertGraph, BertSizes
from serac_gateway.models.conversion import run_converter
from serac_gateway.models.encoders.export_request import EXPORTING, ExportRequest
from serac_gateway.models.progress import OnStep, Step
from serac_gateway.models.weight_files import check_minilm


def export(request: ExportRequest, on_step: OnStep = lambda step: None) -> None:
    """Write `model.onnx`, `tokenizer.json` and `fingerprint` into the folder that `request` names.

    Raises:
        ConfigError: A file of the weights is missing, or it is damaged or another one.
        OSError: A file cannot be written.
    """
    weights, folder = Path(request.weights), Path(request.folder)
    check_minilm(weights)
    sizes = msgspec.json.decode((weights / "config.json").read_bytes(), type=BertSizes)
    graph = BertGraph(load_file(weights / "model.safetensors"), sizes)
    for layer in range(sizes.num_hidden_layers):
        on_step(Step(EXPORTING, layer / sizes.num_hidden_layers))
        graph.add_layer(layer)
    onnx.save(graph.as_vectors(), folder / "model.onnx")
    shutil.copy(weights / "tokenizer.json", folder)
    (folder / "fingerprint").write_text(request.fingerprint, "utf-8")
    on_step(Step(EXPORTING, 1.0))


if __name__ == "__main__":
    run_converter(ExportRequest, export)
