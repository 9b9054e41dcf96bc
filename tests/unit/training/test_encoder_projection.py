"""The projection of the encoder's vectors, and how retrieval is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.encoders.e5 import open_e5_encoder
from tests.e5_files import write_e5_file
from training.benchmarks.base import Case
from training.data.pairs import Pair
from training.encoder.projection import (
    ProjectionSettings,
    projection_examples,
    save_projection,
    train_projection,
)
from training.encoder.recall import HeldOutQuery, Limits, Retrieval, chosen_limits, report, retrieved
from training.runs import TrainingError

CITIES = ("rome", "paris", "madrid", "vienna", "oslo", "berlin", "lisbon", "warsaw")
ATTRIBUTES = ("mayor", "capital", "river", "weather")
PAIRS = [
    Pair(
        prompt=f"{attribute} of {city}",
        target="oslo",
        text=f"{city} {attribute}",
        in_scope=True,
        kind="paraphrase",
    )
    for attribute in ATTRIBUTES
    for city in CITIES
]
SETTINGS = ProjectionSettings(
    examples=96, steps=60, batch_size=32, learning_rate=0.02, identity_weight=0.01, threads=1
)


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedE5:
    path = tmp_path_factory.mktemp("e5") / "tiny.bin"
    words = (*CITIES, *ATTRIBUTES, "of", "query:")
    write_e5_file(path, pieces=[(f"▁{word}", -3.0 - place / 10) for place, word in enumerate(words)])
    return EmbeddedE5(path, "digest of the tiny file")


def test_the_projection_brings_requests_to_their_edits(e5: EmbeddedE5, tmp_path: Path) -> None:
    before = open_e5_encoder(e5, tmp_path / "models")
    save_projection(train_projection(PAIRS, before, SETTINGS), tmp_path / "p")
    after = open_e5_encoder(e5, tmp_path / "models", projection=tmp_path / "p")
    prompts, requests = [p.prompt for p in PAIRS], [p.text for p in PAIRS]

    def spread(encoder: Encoder) -> tuple[float, float]:
        cosines_NN = encoder.encode(requests) @ encoder.encode(prompts).T
        own_N = np.diag(cosines_NN)
        others = cosines_NN[~np.eye(len(PAIRS), dtype=bool)].reshape(len(PAIRS), -1).max(1)
        return float((own_N > others).mean()), float((own_N - others).mean())

    assert spread(after)[0] >= spread(before)[0]
    assert spread(after)[1] > spread(before)[1] + 0.05


def test_a_strongly_held_projection_stays_the_identity(e5: EmbeddedE5, tmp_path: Path) -> None:
    encoder = open_e5_encoder(e5, tmp_path / "models")
    held = msgspec.structs.replace(SETTINGS, identity_weight=1e4, learning_rate=1e-4)
    made = train_projection(PAIRS, encoder, held)
    assert np.allclose(made.matrix_DD, np.eye(32), atol=0.01)


def test_requests_of_several_texts_are_not_learned_from(e5: EmbeddedE5) -> None:
    several = msgspec.structs.replace(
        PAIRS[0], prompt="p", text="I was there. Who is its mayor? Thank you so."
    )
    long = msgspec.structs.replace(PAIRS[0], prompt="q", text="mayor " * 100)
    examples = projection_examples([*PAIRS, several, long], SETTINGS)
    assert {example.prompt for example in examples} == {pair.prompt for pair in PAIRS}
    with pytest.raises(TrainingError, match="two edits with a request of one sentence"):
        projection_examples([several, long], SETTINGS)


class Directions(Encoder):
    """Angles by text."""

    def __init__(self, degrees: dict[str, float]) -> None:
        self._degrees = degrees

    @property
    def width(self) -> int:
        return 2

    @property
    def fingerprint(self) -> str:
        return "directions"

    def encode(self, texts: Sequence[str]) -> Vectors:
        angles = np.radians([self._degrees[text] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def case(number: int, prompt: str) -> Case:
    return Case(edit=EditDraft(id=f"edit-{number}", prompt=prompt, target_new="t"), probes=())


def test_an_edit_is_as_near_as_the_nearest_of_its_forms_and_edits_of_one_prompt_are_one() -> None:
    encoder = Directions({"a": 0, "a t": 40, "b": 90, "b t": 100, "c": 20, "c t": 20, "q": 38, "far": 270})
    cases = [case(1, "a"), case(2, "b"), case(3, "c"), case(4, "a")]
    own, other, unrelated = retrieved(
        encoder,
        cases,
        [
            HeldOutQuery(group="g", query=Query(text="q"), own="a"),
            HeldOutQuery(group="g", query=Query(text="q"), own="b"),
            HeldOutQuery(group="unrelated", query=Query(text="far")),
        ],
    )
    assert (own.rank, other.rank, unrelated.rank) == (1, 3, None)
    assert own.own == pytest.approx(np.cos(np.radians(2)), abs=1e-5)
    assert len(own.nearest) == 3


def test_the_report_counts_what_is_found_and_what_is_read() -> None:
    results = [
        Retrieval(group="g", rank=1, own=0.9, nearest=(0.9, 0.85, 0.3)),
        Retrieval(group="g", rank=2, own=0.5, nearest=(0.9, 0.5, 0.3)),
        Retrieval(group="g", rank=9, own=0.1, nearest=(0.9, 0.8, 0.7)),
        Retrieval(group="unrelated", rank=None, own=None, nearest=(0.3, 0.2, 0.1)),
        Retrieval(group="unrelated", rank=None, own=None, nearest=(0.5, 0.45, 0.1)),
    ]
    group, unrelated = report(results, Limits(floor=0.4, margin=0.2))
    assert group.count == 3
    assert group.among_candidates == pytest.approx(
        1 / 3
    )  # the second is too far behind, the third no candidate
    assert group.first == pytest.approx(1 / 3)
    assert group.read == pytest.approx((2 + 1 + 3) / 3)
    assert (unrelated.read, unrelated.unread) == (1.0, 0.5)


def test_limits_are_quantiles_of_the_right_edits_that_are_candidates() -> None:
    results = [
        Retrieval(group="g", rank=1, own=0.6 + place / 1_000, nearest=(0.7 + place / 1_000,))
        for place in range(100)
    ] + [Retrieval(group="g", rank=20, own=-1.0, nearest=(0.9,))]
    limits = chosen_limits(results)
    assert limits.floor == pytest.approx(0.58, abs=0.002)
    assert limits.margin == pytest.approx(0.11, abs=0.002)
