"""Methods that change what is read: nothing, the right edit, a retrieved edit, demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from serac_gateway.testing import WordEncoder
from training.baselines.base import EditingMethod
from training.baselines.causal_model import CausalModel
from training.baselines.context import EditIndex, InContext, RetrievalSettings, RetrievedEdits, Unedited
from training.baselines.ike import Ike, IkeSettings
from training.baselines.opening import open_model
from training.benchmarks.base import Benchmark, Role, fact, probes

OLDER = EditDraft(id="a", prompt="The mayor of Oru is", target_new="Ann")
NEWER = EditDraft(id="b", prompt="The mayor of Oru is", target_new="Bea")
OTHER = EditDraft(id="c", prompt="The river through Moss is", target_new="the Ket")


def demonstrations() -> Benchmark:
    cases = tuple(
        fact(
            f"d{number}",
            prompt=f"The mayor of {place} is",
            target_new=f"New {number}",
            subject=place,
            probes=(
                *probes("rephrase", [f"{place} has a mayor named"], in_scope=True),
                *probes(
                    "neighbour", [f"The mayor near {place} is"], in_scope=False, answers=[f"Old {number}"]
                ),
            ),
        )
        for number, place in enumerate(("Lund", "Vik", "Hamar", "Oru"))
    )
    return Benchmark(name="d", role=Role.TRAIN, cases=cases)


def methods(model: CausalModel) -> list[EditingMethod]:
    encoder = WordEncoder()
    settings = IkeSettings(copies=1, updates=1, retains=1, pool=4)
    return [
        Unedited(model),
        InContext(model),
        RetrievedEdits(model, RetrievalSettings(min_similarity=0.7), encoder),
        Ike(model, settings, encoder, [demonstrations()]),
    ]


def test_without_edits_the_prompt_is_the_models_own_and_weights_never_change(model: CausalModel) -> None:
    """No edit, or none any more: the same bytes are read, by the same weights."""
    before = model.fingerprint()
    for method in methods(model):
        method.prepare()
        for query in ("Who is it?", OLDER.prompt):
            assert method.prompt_text(query) == model.prompt_text(query)
        method.edit([OLDER, OTHER])
        method.answers([OLDER.prompt], max_tokens=2)
        assert model.fingerprint() == before
        method.undo()
        assert method.prompt_text(OLDER.prompt) == model.prompt_text(OLDER.prompt)
        assert method.held_bytes == 0


def test_the_gate_decides_which_edit_is_read(model: CausalModel) -> None:
    """The nearest edit stands before the query where it is similar enough, the newest of equal prompts."""
    method = RetrievedEdits(model, RetrievalSettings(min_similarity=0.7), WordEncoder())
    method.edit([OLDER, OTHER])
    method.edit([NEWER])
    assert method.prompt_text("the mayor of Oru is") == "Fact: The mayor of Oru is Bea\nthe mayor of Oru is"
    assert method.prompt_text("Bake bread today") == "Bake bread today"


def test_the_nearest_edits_are_those_of_a_full_search() -> None:
    """By the larger cosine of prompt and statement, best first."""
    encoder = WordEncoder()
    index = EditIndex(encoder)
    edits = [
        EditDraft(id=str(number), prompt=f"word{number} of thing{number % 3}", target_new=f"x{number}")
        for number in range(9)
    ]
    index.add(edits[:4])
    index.add(edits[4:])
    (query_D,) = encoder.encode(["word5 of thing2 x8"])
    cosines = [
        max(
            float(vector_D @ query_D) for vector_D in encoder.encode([e.prompt, f"{e.prompt} {e.target_new}"])
        )
        for e in edits
    ]
    nearest = index.nearest("word5 of thing2 x8", 3)
    assert [similarity for similarity, _ in nearest] == pytest.approx(
        sorted(cosines, reverse=True)[:3], abs=1e-6
    )
    assert nearest[0][1] is edits[int(np.argmax(cosines))]


def test_demonstrations_are_the_nearest_facts_one_kind_after_the_other(model: CausalModel) -> None:
    """The nearest copies and stands last; then come one that updates and one that retains."""
    method = Ike(
        model, IkeSettings(copies=1, updates=1, retains=1, pool=4), WordEncoder(), [demonstrations()]
    )
    method.prepare()
    retain, update, copy = method.demonstrations(OLDER)
    assert copy.text == "New Fact: The mayor of Oru is New 3\nPrompt: The mayor of Oru is New 3\n\n"
    assert update.query.endswith("has a mayor named")
    assert update.answer.startswith("New")
    assert retain.query.startswith("The mayor near")
    assert retain.answer.startswith("Old")
    method.edit([OLDER])
    assert method.prompt_text("Who?").endswith("New Fact: The mayor of Oru is Ann\nPrompt: Who?")


def test_a_folder_without_a_model_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    """The message has the folder and the files that are missing."""
    with pytest.raises(ConfigError, match=r"has no config\.json; give the folder of a causal language model"):
        open_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ConfigError, match=r"cannot load the model in"):
        open_model(tmp_path)
