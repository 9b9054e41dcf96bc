"""Cross-encoders trained from multilingual-e5-small: converted once, near to torch, a pair at a time."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from serac_gateway.config.model import Device, ModelsConfig, Precision
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.e5_pairs import (
    OnnxE5PairModel,
    TorchE5PairModel,
    holds_e5_weights,
    open_onnx_e5_pairs,
)
from serac_gateway.models.classifiers.runtimes import open_pair_model
from serac_gateway.models.devices import ON_CPU, Placement
from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5_path
from serac_gateway.models.e5.file import E5File
from serac_gateway.models.e5.torch_bert import COUNTS
from serac_gateway.models.loading import SHIPPED_CLASSIFIER, open_classifier
from serac_gateway.models.progress import Step
from tests.e5_files import save_halved, write_e5_file
from training.runs import TrainingError
from training.scope.export import export

MAX_TOKENS = 40
FP32 = Placement(device=Device.CPU, precision=Precision.FP32)
BF16 = Placement(device=Device.CPU, precision=Precision.BF16)
PIECES = [
    ("▁", -4.0),
    *((letter, -5.0 - place / 10) for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")),
]
PAIRS = [
    ("acme is ada", "who runs acme"),
    ("the hours are nine to five", "when are you open"),
    ("谁", "кто runs it"),
    ("a", ""),
    ("", "🙂"),
    ("long " * 300, "text " * 300),
]


def classifier(path: Path, *, layers: int | None = None, seed: int = 0) -> BertForSequenceClassification:
    """The first layers of the file at `path` under a head of random weights."""
    file = E5File(path)
    sizes = file.header
    torch.manual_seed(seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=sizes.words, hidden_size=sizes.hidden_size, num_hidden_layers=layers or sizes.layers,
            num_attention_heads=sizes.heads, intermediate_size=sizes.inner_size,
            max_position_embeddings=sizes.positions, type_vocab_size=sizes.token_types, pad_token_id=1,
            num_labels=2,
        )
    )  # fmt: skip
    state = {f"bert.{name}": torch.from_numpy(values) for name, values in file.bert_weights().items()}
    rows_VD = file.words.rows(range(sizes.words))
    state["bert.embeddings.word_embeddings.weight"] = torch.from_numpy(rows_VD)
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        model.bert.pooler.dense.weight.normal_(std=0.2)
        model.classifier.weight.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedE5:
    path = tmp_path_factory.mktemp("package") / "tiny.bin"
    write_e5_file(path, pieces=PIECES)
    return EmbeddedE5(path, "digest of the tiny file")


@pytest.fixture(scope="module")
def weights(tiny: EmbeddedE5, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_halved(classifier(tiny.path), tmp_path_factory.mktemp("trained") / "weights")


@pytest.fixture(scope="module")
def model(tiny: EmbeddedE5, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxE5PairModel:
    return opened(tiny, weights, tmp_path_factory.mktemp("data"))


def opened(
    tiny: EmbeddedE5, folder: Path, data_path: Path, steps: list[Step] | None = None
) -> OnnxE5PairModel:
    on_step = (lambda step: None) if steps is None else steps.append
    return open_onnx_e5_pairs(
        tiny, folder, data_path / "models", max_tokens=MAX_TOKENS, threads=1, on_step=on_step
    )


def test_logits_are_near_to_those_of_torch(model: OnnxE5PairModel, tiny: EmbeddedE5, weights: Path) -> None:
    """int8 changes the logits of a random head by less than a tenth of what they differ by."""
    here = model.logits(PAIRS)
    there = TorchE5PairModel(tiny, weights, max_tokens=MAX_TOKENS, placement=FP32).logits(PAIRS)
    assert here.shape == there.shape == (len(PAIRS), 2)
    assert here.dtype == np.float32
    assert (np.abs(here - there).max(axis=0) < 0.1 * np.ptp(there, axis=0)).all()


def test_torch_reads_what_transformers_would(tiny: EmbeddedE5, weights: Path) -> None:
    """The looked-up words, the order of the texts and the token types are those of the checkpoint."""
    whole = classifier(tiny.path)
    logits = TorchE5PairModel(tiny, weights, max_tokens=MAX_TOKENS, placement=FP32).logits(PAIRS)
    for row_O, (edit, query) in zip(logits, PAIRS, strict=True):
        ids, types = tiny.tokenizer.pair(edit, query, MAX_TOKENS)
        with torch.inference_mode():
            expected_O = whole(torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[0].numpy()
        assert np.abs(row_O - expected_O).max() < 0.02  # of float16


@pytest.mark.parametrize("placement", [FP32, BF16], ids=["fp32", "bf16"])
def test_torch_fills_batches_up_to_few_shapes_and_gives_the_same(
    tiny: EmbeddedE5, weights: Path, placement: Placement
) -> None:
    """As on a GPU: 8, 16, 32 or 64 rows, of 16, 32 or 48 tokens here; rows beyond 64 are a batch more."""
    shapes: list[tuple[int, ...]] = []
    padded = TorchE5PairModel(tiny, weights, max_tokens=MAX_TOKENS, placement=placement, counts=COUNTS)
    padded._bert._model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    plain = TorchE5PairModel(tiny, weights, max_tokens=MAX_TOKENS, placement=placement)
    expected = np.concatenate([plain.logits([pair]) for pair in PAIRS])
    many = PAIRS * 20
    spread = np.ptp(expected, axis=0)
    assert (np.abs(padded.logits(PAIRS) - expected) < 0.05 * spread).all()
    assert (np.abs(padded.logits(many) - np.tile(expected, (20, 1))) < 0.05 * spread).all()
    assert {shape[0] for shape in shapes} <= {8, 16, 32, 64}
    assert {shape[1] for shape in shapes} <= {16, 32, 48}
    assert padded.logits([]).shape == (0, 0)


def test_bf16_differs_from_fp32_by_little(tiny: EmbeddedE5, weights: Path) -> None:
    exact = TorchE5PairModel(tiny, weights, max_tokens=MAX_TOKENS, placement=FP32).logits(PAIRS)
    rough = TorchE5PairModel(tiny, weights, max_tokens=MAX_TOKENS, placement=BF16).logits(PAIRS)
    difference = np.abs(rough - exact).max(axis=0)
    assert (difference > 0).all()
    assert (difference < 0.1 * np.ptp(exact, axis=0)).all()


def test_a_pairs_logits_do_not_depend_on_its_company(model: OnnxE5PairModel) -> None:
    together = model.logits(PAIRS)
    for row_O, pair in zip(together, PAIRS, strict=True):
        assert np.array_equal(model.logits([pair])[0], row_O)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(rows, together) for rows in pool.map(model.logits, [PAIRS] * 8))
    assert model.logits([]).size == 0


def test_the_order_within_a_pair_counts(model: OnnxE5PairModel) -> None:
    (forward_O,), (backward_O,) = model.logits([PAIRS[0]]), model.logits([PAIRS[0][::-1]])
    assert not np.allclose(forward_O, backward_O)


def test_they_are_converted_once_and_a_few_earlier_ones_stay(
    tiny: EmbeddedE5, weights: Path, tmp_path: Path
) -> None:
    steps: list[Step] = []
    for seed in range(6):
        folder = shutil.copytree(weights, tmp_path / f"weights-{seed}")
        state = load_file(folder / "model.safetensors")
        state["classifier.bias"] += seed
        save_file(state, folder / "model.safetensors")
        for _ in range(2):
            opened(tiny, folder, tmp_path, steps)
    assert {step.text for step in steps} == {"converting the scope classifier (once)"}
    assert len([step for step in steps if step.done == 1.0]) == 6
    assert len(list((tmp_path / "models").glob("scope-classifier-*"))) == 4


def test_a_folder_needs_a_data_folder_or_a_gpu(weights: Path) -> None:
    assert holds_e5_weights(weights)
    with pytest.raises(ConfigError, match="converted into a data folder"):
        open_pair_model(weights, None, max_tokens=MAX_TOKENS, placement=ON_CPU)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_weights_are_named_on_either_runtime(
    name: str, tiny: EmbeddedE5, weights: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(weights, tmp_path / "weights")
    (folder / name).write_bytes(b"{")
    with pytest.raises(ConfigError, match=str(folder)):
        opened(tiny, folder, tmp_path)
    with pytest.raises(ConfigError, match=str(folder)):
        TorchE5PairModel(tiny, folder, max_tokens=MAX_TOKENS, placement=FP32)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["scope-classifier.lock"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("classifier.weight", None, r"'classifier\.weight' .* is missing"),
        ("classifier.bias", None, r"'classifier\..*' .* is"),
        ("bert.pooler.dense.bias", float("nan"), r"'pooler\.dense\.bias' .*not finite"),
    ],
)
def test_weights_without_a_head_or_that_are_not_numbers_are_refused(
    name: str, value: float | None, words: str, tiny: EmbeddedE5, weights: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(weights, tmp_path / "weights")
    state = load_file(folder / "model.safetensors")
    if value is None:
        del state[name]
    else:
        state[name] = torch.full_like(state[name], value)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=words):
        opened(tiny, folder, tmp_path)


@pytest.mark.slow
def test_an_exported_checkpoint_is_a_classifier_of_the_gateway(tmp_path: Path) -> None:
    whole = classifier(embedded_e5_path(), layers=2)
    whole.save_pretrained(tmp_path / "checkpoint")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.onnx").touch()
    export(tmp_path / "checkpoint", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    state = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert not [name for name in state if "word_embeddings" in name]
    calibration = json.loads((SHIPPED_CLASSIFIER / "calibration.json").read_bytes())
    (folder / "calibration.json").write_text(json.dumps(calibration))
    named = ModelsConfig(scope_classifier=str(folder))
    with pytest.raises(ConfigError, match="was made for the encoder"):
        open_classifier(named, tmp_path / "data", encoder_fingerprint="another")
    assert not (tmp_path / "data").exists(), "nothing is converted that could not be used"
    steps: list[Step] = []
    made = open_classifier(
        named,
        tmp_path / "data",
        encoder_fingerprint=calibration["encoder_fingerprint"],
        on_step=steps.append,
    )
    assert made.scope_threshold == calibration["scope_threshold"]
    assert steps[-1] == Step("converting the scope classifier (once)", 1.0)
    with torch.no_grad():
        whole.bert.embeddings.word_embeddings.weight[7] += 1
    whole.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(TrainingError, match="are not those of multilingual-e5-small"):
        export(tmp_path / "checkpoint", folder)


def test_weights_of_an_earlier_version_are_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "calibration.json").write_text("{}")
    named = ModelsConfig(scope_classifier=str(tmp_path))
    with pytest.raises(ConfigError, match=r"weights of an earlier version.*serac-train scope"):
        open_classifier(named, tmp_path / "data", encoder_fingerprint="any")
