"""What fine-tuning has to leave as it is: other subjects' answers and plain text, held by a divergence.

    L = L_edit + λ · mean_t KL(p₀(· | x, y_<t) ‖ p_θ(· | x, y_<t)),   (x, y) drawn from what is preserved

p₀ is the model as it stands when `edit` is called. The pairs (x, y) are the edits' prompts about other
subjects with p₀'s own greedy continuation, and plain text. After Gangadhar and Stratos 2024 (arXiv
2402.11078), by whom plain fine-tuning competes with editors if it is also trained on unedited facts. The
divergence is MEND's locality loss (arXiv 2110.11309), here over the K likeliest tokens of p₀ and one class
for the rest: a lower bound.
*Shapes:* T tokens of a continuation, K kept, V in the vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import plain_texts
from training.progress import OnProgress

Pair = tuple[str, str]
_AT_ONCE = 16
_LEAST = 1e-6
"""The rest's probability is not taken for less, so that its logarithm is finite."""


class PreserveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is held, and how firmly; as under [preserve] of a method's TOML file."""

    weight: float
    """λ, of nats a token."""
    other_subjects: tuple[str, ...]
    """Put in place of an edit's subject; names that no edit is about."""
    others_per_edit: int = 2
    continuation_tokens: int = 4
    texts: str | None = None
    """A file with lines of plain text; None: the public data."""
    most_texts: int = 400
    text_words: int = 16
    """A text is read up to one of its first words, drawn by the seed."""
    held_words: int = 3
    """Of a text, behind that word. Few: logits are most of the cost."""
    batch_size: int = 8
    likeliest: int = 64
    """K."""
    seed: int = 13


class _Held(msgspec.Struct, frozen=True):
    """A continuation as the model gave it before."""

    pair: Pair
    ids_TK: Tensor
    log_probs_TK: Tensor
    rest_T: Tensor


class Preserved:
    """Pairs and how the model reads them, recorded when this is made."""

    def __init__(
        self, model: CausalModel, edits: Sequence[EditDraft], settings: PreserveSettings, *,
        on_progress: OnProgress = silent,
    ) -> None:  # fmt: skip
        """Raises ConfigError where there is no plain text."""
        self._model, self._settings = model, settings
        rng = random.Random(settings.seed)
        prompts = list(dict.fromkeys(model.prompt_text(text) for text in about_others(edits, settings, rng)))
        texts = plain_texts(None if settings.texts is None else Path(settings.texts))
        texts = rng.sample(texts, min(settings.most_texts, len(texts)))
        continued = model.greedy(prompts, max_tokens=settings.continuation_tokens, at_once=_AT_ONCE)
        pairs = [(prompt, reply) for prompt, reply in zip(prompts, continued, strict=True) if reply]
        pairs += [pair for text in texts if (pair := _cut(text, settings, rng))]
        self._held = list(self._recorded(pairs, on_progress))
        self._order = self._endless(rng)

    def divergence(self) -> Tensor:
        """Mean KL of the next batch of pairs, a scalar in nats a token; differentiable."""
        batch = [next(self._order) for _ in range(min(self._settings.batch_size, len(self._held)))]
        if not batch:
            return torch.zeros(())
        read = self._model.target_logits([held.pair for held in batch], at_once=len(batch))
        return torch.cat(
            [_divergence_T(held, logits) for held, logits in zip(batch, read, strict=True)]
        ).mean()

    def loss(self) -> Tensor:
        """λ times the divergence."""
        return self._settings.weight * self.divergence()

    @torch.no_grad()
    def _recorded(self, pairs: Sequence[Pair], on_progress: OnProgress) -> Iterator[_Held]:
        for done, (pair, logits_TV) in enumerate(
            zip(pairs, self._model.target_logits(pairs, at_once=_AT_ONCE), strict=True)
        ):
            on_progress("what is preserved", done, len(pairs))
            log_probs_TK, ids_TK = torch.log_softmax(logits_TV, -1).topk(self._settings.likeliest)
            yield _Held(pair, ids_TK, log_probs_TK, _rest(log_probs_TK))

    def _endless(self, rng: random.Random) -> Iterator[_Held]:
        while self._held:
            rng.shuffle(self._held)
            yield from tuple(self._held)


def preserving(
    model: CausalModel, edits: Sequence[EditDraft], settings: PreserveSettings | None, *,
    on_progress: OnProgress = silent,
) -> Callable[[], Tensor] | None:  # fmt: skip
    """The loss to descend beside that of the edits; None: the settings have none.

    Raises:
        ConfigError: There is no plain text.
    """
    return None if settings is None else Preserved(model, edits, settings, on_progress=on_progress).loss


def about_others(edits: Sequence[EditDraft], settings: PreserveSettings, rng: random.Random) -> list[str]:
    """The edits' prompts about other subjects; of an edit whose subject does not stand in its prompt none."""
    taken = {edit.prompt for edit in edits}
    texts = [
        edit.prompt.replace(edit.subject, other)
        for edit in edits
        if edit.subject and edit.subject in edit.prompt
        for other in rng.sample(
            settings.other_subjects, min(settings.others_per_edit, len(settings.other_subjects))
        )
    ]
    return [text for text in texts if text not in taken]


def _cut(text: str, settings: PreserveSettings, rng: random.Random) -> Pair | None:
    """What is read of a text and the words that follow; None for a text of a single word."""
    words = text.split()
    if len(words) < 2:
        return None
    at = rng.randint(1, min(len(words) - 1, settings.text_words))
    return " ".join(words[:at]), " ".join(words[at : at + settings.held_words])


def _divergence_T(held: _Held, logits_TV: Tensor) -> Tensor:
    now_TK = torch.log_softmax(logits_TV, -1).gather(1, held.ids_TK)
    of_kept_T = (held.log_probs_TK.exp() * (held.log_probs_TK - now_TK)).sum(-1)
    return of_kept_T + held.rest_T.exp() * (held.rest_T - _rest(now_TK))


def _rest(log_probs_TK: Tensor) -> Tensor:
    """Log-probability of all other tokens together, (T,)."""
    return (1 - log_probs_TK.exp().sum(-1)).clamp(min=_LEAST).log()
