"""What every language model must do, whatever it runs on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError, InvalidRequestError
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.ctranslate2 import CTranslate2LanguageModel
from serac_gateway.models.language_models.transformers import TransformersLanguageModel
from serac_gateway.testing import ScriptedLanguageModel
from tests.tiny_gguf import converted_tiny_gemma
from tests.tiny_language_models import CONTEXT_TOKENS, SLIDING_WINDOW, saved_tiny_gemma

PROMPT = "The capital"


@pytest.fixture(scope="module", params=["scripted", "transformers", "ctranslate2"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LanguageModel]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "scripted":
        yield ScriptedLanguageModel(
            " of the country is a large city by the river, and the river is long, so they say." * 4,
            context_tokens=CONTEXT_TOKENS,
        )
    elif request.param == "transformers":
        yield TransformersLanguageModel(str(saved_tiny_gemma(folder)))
    else:
        yield CTranslate2LanguageModel(
            converted_tiny_gemma(folder / "tiny"),
            context_tokens=CONTEXT_TOKENS,
            sliding_window=SLIDING_WINDOW,
            parallel=2,
        )


def generated(model: LanguageModel, prompt: str = PROMPT, **sampling: object) -> list[Piece]:
    return list(model.generate(prompt, Sampling(**{"max_tokens": 20} | sampling)))


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_only_the_last_piece_has_a_finish_reason_and_the_tokens_add_up(model: LanguageModel) -> None:
    pieces = generated(model, max_tokens=7)
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == "length"
    assert sum(piece.tokens for piece in pieces) == 7


def test_a_greedy_answer_is_the_same_every_time(model: LanguageModel) -> None:
    assert text_of(generated(model)) == text_of(generated(model)) != ""


def test_a_shorter_limit_gives_the_beginning_of_the_longer_answer(model: LanguageModel) -> None:
    assert text_of(generated(model, max_tokens=20)).startswith(text_of(generated(model, max_tokens=5)))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_answer_ends_before_the_stop_text_and_shows_no_part_of_it(
    model: LanguageModel, length: int
) -> None:
    whole = text_of(generated(model))
    stop = whole[6 : 6 + length]
    pieces = generated(model, stop=(stop, "never to be seen"))
    assert text_of(pieces) == whole[: whole.index(stop)]
    assert pieces[-1].stop_text == stop
    assert pieces[-1].finish_reason == "stop"


def test_a_stop_text_that_only_begins_is_shown_after_all(model: LanguageModel) -> None:
    whole = text_of(generated(model))
    assert text_of(generated(model, stop=(whole[-1] + "\0never",))) == whole


def test_every_piece_is_made_of_whole_characters(model: LanguageModel) -> None:
    pieces = generated(model, "Москва 東京 🗼", max_tokens=20, temperature=1.0, seed=3)
    text_of(pieces).encode("utf-8")
    assert sum(piece.tokens for piece in pieces) <= 20


def test_cancelling_ends_the_answer_without_a_last_piece(model: LanguageModel) -> None:
    seen: list[Piece] = []
    for piece in model.generate(PROMPT, Sampling(max_tokens=40), cancelled=lambda: len(seen) >= 2):
        seen.append(piece)
    assert 2 <= len(seen) <= 4
    assert seen[-1].finish_reason is None


def test_leaving_an_answer_early_leaves_the_model_usable(model: LanguageModel) -> None:
    whole = text_of(generated(model))
    left = model.generate(PROMPT, Sampling(max_tokens=40))
    next(left)
    del left
    assert text_of(generated(model)) == whole


def test_the_same_seed_gives_the_same_sample(model: LanguageModel) -> None:
    first = text_of(generated(model, temperature=1.5, seed=11))
    assert text_of(generated(model, temperature=1.5, seed=11)) == first


def test_samples_differ_where_no_seed_is_given(model: LanguageModel) -> None:
    if isinstance(model, ScriptedLanguageModel):
        pytest.skip("a script does not sample")
    generated(model, temperature=1.5, seed=11)  # a seed is no other request's
    assert len({text_of(generated(model, temperature=1.5)) for _ in range(4)}) > 1


def test_a_frequency_penalty_leaves_no_loop(model: LanguageModel) -> None:
    if isinstance(model, ScriptedLanguageModel):
        pytest.skip("a script does not sample")
    logprobs = [
        noted
        for piece in generated(model, max_tokens=12, frequency_penalty=2.0, presence_penalty=2.0, logprobs=0)
        for noted in piece.logprobs
    ]
    repeated = [
        noted
        for piece in generated(model, max_tokens=12, frequency_penalty=-2.0, logprobs=0)
        for noted in piece.logprobs
    ]
    assert len({noted.text for noted in logprobs}) > len({noted.text for noted in repeated})


def test_log_probabilities_are_of_the_text_shown_and_change_no_text(model: LanguageModel) -> None:
    if isinstance(model, ScriptedLanguageModel):
        pytest.skip("a script has no probabilities")
    assert not any(piece.logprobs for piece in generated(model))
    pieces = generated(model, logprobs=2)
    whole = text_of(pieces)
    assert sum(len(piece.logprobs) for piece in pieces) == 20
    for noted in (noted for piece in pieces for noted in piece.logprobs):
        assert noted.logprob == pytest.approx(noted.likeliest[0].logprob)  # greedy takes the most probable
        assert noted.text == noted.likeliest[0].text
        assert noted.likeliest[1].logprob <= noted.likeliest[0].logprob <= 0
    cut = [piece.logprobs for piece in generated(model, logprobs=2, stop=(whole[6:9],))]
    assert sum(len(logprobs) for logprobs in cut) < 20


def test_a_tiny_top_p_is_greedy(model: LanguageModel) -> None:
    assert text_of(generated(model, temperature=1.0, top_p=1e-6)) == text_of(generated(model))


def test_a_prompt_that_fills_the_window_is_refused_with_the_limit(model: LanguageModel) -> None:
    with pytest.raises(InvalidRequestError, match=str(CONTEXT_TOKENS)):
        generated(model, "word " * (2 * CONTEXT_TOKENS))


def test_the_window_ends_an_answer_with_length(model: LanguageModel) -> None:
    prompt = "a"
    while model.count_tokens(f"{prompt} a") < CONTEXT_TOKENS - 8:
        prompt += " a"
    pieces = generated(model, prompt, max_tokens=1_000)
    assert pieces[-1].finish_reason == "length"
    assert sum(piece.tokens for piece in pieces) <= 9


def test_control_tokens_in_a_text_are_read_as_text(model: LanguageModel) -> None:
    if isinstance(model, ScriptedLanguageModel):
        pytest.skip("a script has no control tokens")
    assert model.count_tokens("<eos>") > 1
    assert model.count_tokens("<start_of_turn>") > 1


def test_answers_on_several_threads_do_not_disturb_each_other(model: LanguageModel) -> None:
    prompts = [PROMPT, "A river", "The Seine", "Paris is"] * 2
    alone = [text_of(generated(model, prompt)) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: text_of(generated(model, prompt)), prompts))
    assert together == alone


class Together:
    """Answers that are all begun before one goes beyond its first tokens."""

    def __init__(self, model: LanguageModel, count: int) -> None:
        self._model = model
        self._begun: set[int] = set()
        self._all_begun = threading.Event()
        self._count = count
        self.tokens = [0] * count
        self.at_first_end: list[int] = []
        """The tokens of each answer when the first one had ended."""

    def run(self, *, leaver: int | None = None) -> list[str]:
        """The texts; the answer of the number `leaver` is left after its first piece."""
        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(lambda number: self._answer(number, leaver == number), range(self._count)))

    def _answer(self, number: int, leaves: bool) -> str:
        text = ""
        pieces = self._model.generate(
            PROMPT, Sampling(max_tokens=30), cancelled=lambda: self._wait_for_all(number)
        )
        for piece in pieces:
            self.tokens[number] += piece.tokens
            text += piece.text
            if leaves:
                break
        pieces.close()  # type: ignore[attr-defined]
        self.at_first_end = self.at_first_end or list(self.tokens)
        return text

    def _wait_for_all(self, number: int) -> bool:
        self._begun.add(number)
        if len(self._begun) == self._count:
            self._all_begun.set()
        self._all_begun.wait(20)
        return False


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("shared")
    return CTranslate2LanguageModel(
        converted_tiny_gemma(folder / "tiny"),
        context_tokens=CONTEXT_TOKENS,
        sliding_window=SLIDING_WINDOW,
        parallel=4,
    )


def test_answers_at_once_progress_together(shared: LanguageModel) -> None:
    together = Together(shared, 4)
    assert len(set(together.run())) == 1
    # One after the other, the last would have its first token or two; on a busy machine threads read late.
    assert min(together.at_first_end) >= 5


def test_an_answer_that_is_left_takes_no_turn_of_the_others(shared: LanguageModel) -> None:
    whole = text_of(generated(shared, max_tokens=30))
    together = Together(shared, 4)
    *others, left = together.run(leaver=3)
    assert others == [whole] * 3
    assert len(left) < len(whole)
    assert text_of(generated(shared, max_tokens=30)) == whole


async def test_the_event_loop_stays_responsive_while_an_answer_is_generated(model: LanguageModel) -> None:
    answer = asyncio.create_task(asyncio.to_thread(generated, model, max_tokens=40))
    longest_s = 0.0
    while not answer.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest_s = max(longest_s, time.perf_counter() - before)
    assert await answer
    assert longest_s < 0.5


@pytest.mark.parametrize("open_model", [
    lambda path: TransformersLanguageModel(str(path)),
    lambda path: CTranslate2LanguageModel(path, context_tokens=CONTEXT_TOKENS),
])  # fmt: skip
def test_a_folder_without_a_model_is_refused_by_name(open_model: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing-here"):
        open_model(tmp_path / "nothing-here")  # type: ignore[operator]
