"""Training the cross-encoder: it learns, goes on where it stopped, and refuses what cannot be trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from serac_gateway.models.e5.embedded import embedded_e5
from tests.tiny_cross_encoders import easy_pairs, tiny_bert
from training.data.pairs import Pair, depends_on_edit
from training.runs import TrainingError
from training.scope.export import export
from training.scope.losses import scope_loss, two_question_loss
from training.scope.train import TrainingSettings, train_scope
from training.scope.weights import load_cross_encoder, save_cross_encoder

SETTINGS = TrainingSettings(
    epochs=6, batch_size=16, learning_rate=5e-3, head_learning_rate=5e-3, dropout=0.0, max_tokens=32,
    threads=1, checkpoint_every_steps=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("start"))


def test_it_learns_what_the_pairs_teach(start: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    trained = train_scope(
        easy_pairs(), start_from=start, run=tmp_path, settings=SETTINGS,
        progress=lambda step, steps, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == trained.steps == 36
    assert losses[-1] < 0.75 * losses[0], "the mean over all steps; the last ones are far lower"


def test_a_stopped_run_goes_on_where_it_was(start: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 12:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_scope(
            easy_pairs(), start_from=start, run=tmp_path / "stopped", settings=SETTINGS, progress=stop
        )
    seen: list[int] = []
    train_scope(
        easy_pairs(), start_from=start, run=tmp_path / "stopped", settings=SETTINGS,
        progress=lambda step, steps, loss: seen.append(step),
    )  # fmt: skip
    assert seen[0] == 11, "the checkpoint of step 10 is the last one"
    train_scope(easy_pairs(), start_from=start, run=tmp_path / "whole", settings=SETTINGS)
    ends = [
        load_cross_encoder(tmp_path / name / "checkpoint", embedded_e5()).classifier.weight
        for name in ("stopped", "whole")
    ]
    assert torch.allclose(ends[0], ends[1], atol=1e-5), "going on gives what one run gives"


def test_a_run_of_other_settings_is_not_continued(start: Path, tmp_path: Path) -> None:
    short = msgspec.structs.replace(SETTINGS, epochs=1)
    train_scope(easy_pairs(), start_from=start, run=tmp_path, settings=short)
    with pytest.raises(TrainingError, match="another run"):
        train_scope(easy_pairs(), start_from=start, run=tmp_path, settings=SETTINGS)


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_checkpoint(
    tmp_path: Path, start: Path
) -> None:
    train_scope(
        easy_pairs(),
        start_from=start,
        run=tmp_path / "run",
        settings=msgspec.structs.replace(SETTINGS, epochs=1),
    )
    state = tmp_path / "run" / "checkpoint" / "state.json"
    halfway = json.loads(state.read_text()) | {"steps": 36, "settings": msgspec.to_builtins(SETTINGS)}
    state.write_text(json.dumps(halfway))
    broken = tiny_bert(tmp_path / "broken", labels=2, broken=True)
    (broken / "model.safetensors").replace(tmp_path / "run" / "checkpoint" / "model.safetensors")
    before = (tmp_path / "run" / "checkpoint" / "state.json").read_bytes()
    with pytest.raises(TrainingError, match=r"loss became nan at step 6.*checkpoint is kept"):
        train_scope(easy_pairs(), start_from=start, run=tmp_path / "run", settings=SETTINGS)
    assert (tmp_path / "run" / "checkpoint" / "state.json").read_bytes() == before


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "no training pairs"),
        ([p for p in easy_pairs() if p.in_scope], "all 48 training pairs are in scope"),
    ],
)
def test_data_that_cannot_teach_is_refused(start: Path, tmp_path: Path, pairs: list[Pair], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        train_scope(pairs, start_from=start, run=tmp_path, settings=SETTINGS)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    three = tiny_bert(tmp_path / "three", labels=3)
    with pytest.raises(TrainingError, match="3 outputs"):
        train_scope(easy_pairs(), start_from=three, run=tmp_path / "run", settings=SETTINGS)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(TrainingError, match="'gpt2'"):
        load_cross_encoder(other, embedded_e5())
    with pytest.raises(TrainingError, match=r"no readable config\.json"):
        load_cross_encoder(tmp_path, embedded_e5())


def test_a_checkpoint_of_one_output_gets_a_second_like_it(tmp_path: Path) -> None:
    widened = load_cross_encoder(tiny_bert(tmp_path / "one", labels=1), embedded_e5())
    assert widened.classifier.weight.shape[0] == widened.config.num_labels == 2
    assert torch.equal(widened.classifier.weight[0], widened.classifier.weight[1])
    save_cross_encoder(widened, tmp_path / "two", embedded_e5())
    again = load_cross_encoder(tmp_path / "two", embedded_e5())
    assert torch.equal(again.classifier.weight, widened.classifier.weight)


def test_no_file_of_weights_holds_words_and_those_that_ship_are_half_as_large(
    start: Path, tmp_path: Path
) -> None:
    export(start, tmp_path)
    whole, half = (load_file(folder / "model.safetensors") for folder in (start, tmp_path))
    assert {name: weights.shape for name, weights in half.items()}.keys() == {
        *whole.keys() - {"classifier.weight", "classifier.bias"}, "classifier.weight", "classifier.bias"
    }  # fmt: skip
    assert not [name for name in whole if "word_embeddings" in name]
    assert {weights.dtype for weights in half.values()} == {torch.float16}
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_weights_that_ship_may_be_a_mean_with_those_that_the_run_began_with(tmp_path: Path) -> None:
    """Each by its share, all of them; a share of 1 leaves what was trained as it is."""
    trained, began = (tiny_bert(tmp_path / str(seed), labels=2, seed=seed) for seed in (1, 2))
    export(trained, tmp_path / "whole", start=began)
    export(trained, tmp_path / "mean", start=began, trained_share=0.75)
    folders = (trained, began, tmp_path / "whole", tmp_path / "mean")
    of_trained, of_began, whole, mean = (load_file(folder / "model.safetensors") for folder in folders)
    for name, weights in of_trained.items():
        assert torch.equal(whole[name], weights.half())
        expected = 0.75 * weights + 0.25 * of_began[name]
        assert torch.allclose(mean[name].float(), expected, atol=1e-3), name


def test_weights_over_other_words_are_refused(start: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(start, other)
    config = json.loads((other / "config.json").read_text()) | {"vocab_size": 30_522}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match="are not those of multilingual-e5-small"):
        load_cross_encoder(other, embedded_e5())


def test_it_begins_from_the_encoder_itself_with_as_many_layers_as_are_wanted() -> None:
    model = load_cross_encoder(None, embedded_e5(), layers=2)
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 2
    types_TD = model.bert.embeddings.token_type_embeddings.weight
    assert torch.equal(types_TD[0], types_TD[1])


def test_an_unclear_second_label_counts_for_nothing() -> None:
    logits_B2 = torch.tensor([[2.0, 5.0], [-1.0, 5.0], [-2.0, -5.0]])
    nan = float("nan")
    labels_B2 = torch.tensor([[1.0, nan], [0.0, nan], [0.0, nan]])
    only_first = two_question_loss(logits_B2, labels_B2)
    assert only_first == pytest.approx(scope_loss(logits_B2[:, 0], labels_B2[:, 0]))
    known = two_question_loss(logits_B2, torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, nan]]))
    assert known > only_first


@pytest.mark.parametrize(
    ("kind", "in_scope", "depends"),
    [
        ("paraphrase", True, True),
        ("multi-hop", False, True),
        ("contrast, multi-hop", False, True),
        ("same subject", False, False),
        ("contrast, task", False, None),
        ("qqp", False, None),
    ],
)
def test_a_further_step_depends_on_the_edit(kind: str, in_scope: bool, depends: bool | None) -> None:
    assert depends_on_edit(in_scope=in_scope, kind=kind) is depends


def test_both_labels_weigh_half_however_many_there_are() -> None:
    logits_B = torch.tensor([2.0, -1.0, -1.0, -1.0])
    one_each = scope_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    assert scope_loss(logits_B, torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(one_each)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        scope_loss(torch.zeros(2), torch.zeros(3))
