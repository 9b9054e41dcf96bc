"""Reading of GGUF files, against the package gguf's own reader."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from serac_gateway.models.language_models.gguf_file import GgufFile
from tests.tiny_gguf import tiny_gguf


def test_metadata_and_tensors_are_those_that_gguf_reads(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    ours, reference = GgufFile(path), GGUFReader(path)
    fields = {name: field for name, field in reference.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == {name: field.contents() for name, field in fields.items()}
    assert len(reference.tensors) > 70
    for tensor in reference.tensors:
        np.testing.assert_array_equal(ours.tensor(tensor.name), dequantize(tensor.data, tensor.tensor_type))
        assert ours.shape(tensor.name) == tuple(int(size) for size in reversed(tensor.shape))


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q5_0])
def test_quantised_tensors_are_dequantised_whole_or_by_rows(
    tmp_path: Path, kind: GGMLQuantizationType
) -> None:
    writer = GGUFWriter(tmp_path / "file.gguf", "gemma3")
    writer.add_custom_alignment(64)
    weight = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    stored = quantize(weight, kind)
    writer.add_tensor("first", np.ones(3, np.float32))
    writer.add_tensor("second", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "file.gguf")
    wanted = dequantize(stored, kind)
    assert np.abs(wanted - weight).max() < 0.2
    np.testing.assert_array_equal(file.tensor("second"), wanted)
    np.testing.assert_array_equal(file.tensor("second", slice(2, 4)), wanted[2:4])
    with pytest.raises(KeyError):
        file.tensor("third")


def test_a_file_that_is_none_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    damaged = tmp_path / "damaged.gguf"
    for content, problem in (
        (b"GGML" + whole[4:], "begins with b'GGML'"),
        (whole[:4] + struct.pack("<I", 4) + whole[8:], "version 4"),
        (whole[:3_000], "ends early"),
    ):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=problem):
            GgufFile(damaged)
    damaged.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="buffer"):
        GgufFile(damaged).tensor("blk.5.post_ffw_norm.weight")
