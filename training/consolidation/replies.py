"""What a model says to all probes, and how well it does where no edit is concerned."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.consolidation.probes import EditProbes
from training.data.files import Row, data_folder, read_rows
from training.evaluation.answers.metrics import contains_answer
from training.progress import OnProgress

UNRELATED_FOLDER = Path(__file__).parent.parent / "data" / "unrelated_prompts"
PUBLIC_SET = "unrelated_traffic/NQ-open.dev.jsonl.gz"
_BATCH = 16


class General(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked beside the edits."""

    unrelated: tuple[str, ...]
    questions: tuple[tuple[str, tuple[str, ...]], ...]
    """Each with its right answers."""


class Replies(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model."""

    by_text: dict[str, str]
    """Greedy, one line."""
    perplexity: float
    """Of the unrelated prompts' own text, a token."""


def general_probes(*, unrelated: int, questions: int, seed: int) -> General:
    """Unrelated prompts of many languages, and questions of NQ-open where the public data are there."""
    lines = [
        line
        for path in sorted(UNRELATED_FOLDER.glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    rng, rows = random.Random(seed), _public_rows()
    return General(
        unrelated=tuple(rng.sample(lines, min(unrelated, len(lines)))),
        questions=tuple(
            (f"{row['question'].strip().rstrip('?')}?", tuple(row["answer"]))
            for row in rng.sample(rows, min(questions, len(rows)))
        ),
    )


def _public_rows() -> list[Row]:
    try:
        path = data_folder() / PUBLIC_SET
    except ConfigError:
        return []
    return read_rows(path) if path.is_file() else []


def read_replies(
    model: CausalModel,
    probes: Sequence[EditProbes],
    general: General,
    *,
    max_tokens: int,
    part: str,
    on_progress: OnProgress,
) -> Replies:
    """Ask the model everything, each text once."""
    wanted = dict.fromkeys(text for of_edit in probes for text in of_edit.texts)
    wanted |= dict.fromkeys((*general.unrelated, *(question for question, _ in general.questions)))
    texts = sorted(wanted, key=len)  # texts of like length need little padding
    said: dict[str, str] = {}
    for begin in range(0, len(texts), _BATCH):
        on_progress(part, begin, len(texts))
        some = texts[begin : begin + _BATCH]
        replies = model.greedy(
            [model.prompt_text(text) for text in some], max_tokens=max_tokens, at_once=_BATCH
        )
        said |= dict(zip(some, replies, strict=True))
    on_progress(part, len(texts), len(texts))
    return Replies(by_text=said, perplexity=_perplexity(model, general.unrelated))


@torch.no_grad()
def _perplexity(model: CausalModel, texts: Sequence[str]) -> float:
    log_probs = [log_probs_T for log_probs_T in model.target_log_probs([("", text) for text in texts])]
    tokens = sum(len(log_probs_T) for log_probs_T in log_probs)
    if not tokens:
        return math.nan
    return math.exp(min(700.0, -sum(float(log_probs_T.sum()) for log_probs_T in log_probs) / tokens))


def right_share(general: General, replies: Replies) -> float | None:
    """Share of the public questions whose reply contains a right answer; None: none was asked."""
    if not general.questions:
        return None
    right = [contains_answer(replies.by_text[question], answers) for question, answers in general.questions]
    return sum(right) / len(right)


def kept_share(general: General, before: Replies, after: Replies) -> float | None:
    """Share of the unrelated prompts that get the very text of before; None: none was asked."""
    if not general.unrelated:
        return None
    same = [before.by_text[text] == after.by_text[text] for text in general.unrelated]
    return sum(same) / len(same)
