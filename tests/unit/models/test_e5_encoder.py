"""The multilingual encoder: converted once and whole, and near to the same weights in torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError
from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5
from serac_gateway.models.e5.file import E5File
from serac_gateway.models.encoders.e5 import E5Encoder, open_e5_encoder
from serac_gateway.models.loading import open_embedded_encoder
from serac_gateway.models.progress import Step
from tests.e5_files import save_halved, write_e5_file

PIECES = [(f"▁{letter}", -3.0 - place / 10) for place, letter in enumerate("abcdefghij")] + [
    ("▁query:", -2.0),
    ("▁", -4.0),
]
LETTERS = ["a b c", "c b a", "a a a a j", "d", "i h g f e d c b a", ""]
SENTENCES = [
    "Who is the chief executive officer of Acme?", "What are the opening hours on Sunday?",
    "Wer ist der Vorstandsvorsitzende von Acme?", "Кто является генеральным директором Acme?",
    "谁是Acme的首席执行官？", "AcmeのCEOは誰ですか？", "من هو الرئيس التنفيذي لشركة Acme؟",
    "Acme के मुख्य कार्यकारी अधिकारी कौन हैं?",
]  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> EmbeddedE5:
    write_e5_file(tmp_path / "tiny.bin", pieces=PIECES)
    return EmbeddedE5(tmp_path / "tiny.bin", "digest of the tiny file")


def reference(e5: EmbeddedE5, model: BertModel, texts: list[str]) -> Vectors:
    """The mean over the tokens in torch, at unit length."""
    rows = []
    with torch.inference_mode():
        for text in texts:
            words_1LD = torch.from_numpy(e5.words.rows(e5.tokenizer.single(f"query: {text}", 256)))[None]
            mean_1D = model(inputs_embeds=words_1LD).last_hidden_state.mean(1)
            rows.append(torch.nn.functional.normalize(mean_1D, dim=1)[0].numpy())
    return np.stack(rows)


def bert(path: Path, *, layers: int | None = None) -> BertModel:
    """The weights in the file at `path` in torch; the first `layers` of them."""
    file = E5File(path)
    sizes = file.header
    model = BertModel(
        BertConfig(
            vocab_size=sizes.words, hidden_size=sizes.hidden_size, num_hidden_layers=layers or sizes.layers,
            num_attention_heads=sizes.heads, intermediate_size=sizes.inner_size,
            max_position_embeddings=sizes.positions, type_vocab_size=sizes.token_types, pad_token_id=1,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    state = {name: torch.from_numpy(values) for name, values in file.bert_weights().items()}
    missing, _ = model.load_state_dict(state, strict=False)
    assert missing == ["embeddings.word_embeddings.weight"]
    return model.eval()


def test_a_tiny_encoder_agrees_with_torch(tiny: EmbeddedE5, tmp_path: Path) -> None:
    encoder = open_e5_encoder(tiny, tmp_path / "models")
    vectors_BD = encoder.encode(LETTERS)
    assert (vectors_BD * reference(tiny, bert(tiny.path), LETTERS)).sum(axis=1).min() > 0.995


@pytest.mark.slow
def test_the_embedded_encoder_agrees_with_torch_in_every_language(tmp_path: Path) -> None:
    encoder = open_e5_encoder(embedded_e5(), tmp_path / "models")
    cosines = (encoder.encode(SENTENCES) * reference(embedded_e5(), bert(embedded_e5().path), SENTENCES)).sum(
        1
    )
    assert cosines.min() > 0.995


def test_a_question_is_nearest_to_its_translations(tmp_path: Path) -> None:
    encoder = open_embedded_encoder(tmp_path, name="e5")
    leads_D, hours_D, *translations = encoder.encode(SENTENCES)
    for vector_D in translations:
        assert vector_D @ leads_D > vector_D @ hours_D


def test_a_trained_shallower_encoder_replaces_the_packages_layers(tiny: EmbeddedE5, tmp_path: Path) -> None:
    shallow = bert(tiny.path, layers=1)
    weights = save_halved(shallow, tmp_path / "weights")
    encoder = open_e5_encoder(tiny, tmp_path / "models", weights=weights)
    assert (encoder.encode(LETTERS) * reference(tiny, shallow, LETTERS)).sum(axis=1).min() > 0.995
    assert encoder.fingerprint != open_e5_encoder(tiny, tmp_path / "models").fingerprint


def test_it_is_converted_once_with_progress(tiny: EmbeddedE5, tmp_path: Path) -> None:
    steps: list[Step] = []
    first = open_e5_encoder(tiny, tmp_path / "models", on_step=steps.append)
    assert {step.text for step in steps} == {"converting the encoder (once)"}
    assert steps[-1].done == 1.0
    count = len(steps)
    again = open_e5_encoder(tiny, tmp_path / "models", on_step=steps.append)
    assert len(steps) == count
    assert first.fingerprint == again.fingerprint
    (folder,) = (tmp_path / "models").glob("encoder-*")
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert list((tmp_path / "models").glob(".encoder-*")) == []


def test_a_damaged_conversion_is_named_with_its_remedy(tiny: EmbeddedE5, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=r"model\.onnx' cannot be read: .*delete the folder"):
        E5Encoder(tiny, tmp_path / "model.onnx", fingerprint="any")


def test_a_conversion_that_cannot_be_read_or_written_leaves_nothing(tiny: EmbeddedE5, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ConfigError, match="data-dir"):
        open_e5_encoder(tiny, blocked / "models")
    tiny.path.write_bytes(b"E5S1")
    with pytest.raises(ConfigError, match=r"tiny\.bin' is damaged"):
        open_e5_encoder(tiny, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["encoder.lock"]


def test_a_start_that_is_killed_while_converting_leaves_nothing_that_the_next_would_take(
    tmp_path: Path,
) -> None:
    begin = (
        "import sys; from pathlib import Path;"
        "from serac_gateway.models.loading import open_embedded_encoder;"
        "open_embedded_encoder(Path(sys.argv[1]), lambda step: print(step.done, flush=True), name='e5')"
    )
    models = tmp_path / "models"
    with subprocess.Popen(
        [sys.executable, "-c", begin, tmp_path], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        started.stdout.readline()
        started.stdout.readline()  # the converter is at work
        os.kill(started.pid, signal.SIGKILL)
    assert list(models.glob("encoder-*")) == []
    assert len(list(models.glob(".encoder-*"))) == 1
    time.sleep(0.5)  # the converter ends with its parent
    assert open_embedded_encoder(tmp_path, name="e5").width == 384
    assert list(models.glob(".encoder-*")) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 30_522}, "vocab_size 30522.*needs 19"),
        ({"hidden_size": 64}, "hidden_size 64.*needs 32"),
        ({"num_hidden_layers": 3}, r"'encoder\.layer\.2\..*missing"),
        ({"intermediate_size": 128}, r"of shape \(64, 32\).*must be \(128, 32\)"),
        ({"hidden_act": "relu"}, "'relu' is not supported"),
        ({"num_hidden_layers": "two"}, "are damaged"),
    ],
)
def test_trained_weights_that_do_not_fit_are_named(
    change: dict[str, object], words: str, tiny: EmbeddedE5, tmp_path: Path
) -> None:
    weights = save_halved(bert(tiny.path), tmp_path / "weights")
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=words):
        open_e5_encoder(tiny, tmp_path / "models", weights=weights)


def test_missing_and_damaged_trained_weights_are_named(tiny: EmbeddedE5, tmp_path: Path) -> None:
    weights = save_halved(bert(tiny.path), tmp_path / "weights")
    (weights / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="are damaged"):
        open_e5_encoder(tiny, tmp_path / "models", weights=weights)
    (weights / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot read the trained weights .*model\.safetensors.*put them"):
        open_e5_encoder(tiny, tmp_path / "models", weights=weights)
