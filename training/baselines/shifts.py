"""The search of ROME, MEMIT and AlphaEdit: which shift δ at the subject's last token gives the target.

δ minimises, by Adam over some steps, for each edit (ROME, arXiv 2202.05262, equation 4)

    mean over contexts of −log p(target | context + prompt, site + δ)
    + essence · KL(p(· | "{subject} is a", site) ‖ p(· | "{subject} is a", site + δ)) + decay · (‖δ‖ / ‖v‖)²

where v is what the site writes there. The papers' numbers are absolute and belong to GPT-2. Gemma's states
are up to 1e4 times as large and differ by layer, so here everything is relative to ‖v‖: a step moves δ by
some step · ‖v‖ (the rate of Adam is step · ‖v‖ / √D), and δ is cut to limit · ‖v‖.

Several edits are searched side by side: their rows are one batch, and Adam works by coordinate, so that each
comes out as it would alone.

Legend of shapes: E edits, R rows (of each edit its contexts, then its essence), S tokens of a suffix, D
width, V vocabulary, T scored tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec
import torch
from torch import Tensor, nn

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.baselines.hooks import changed, recorded
from training.baselines.suffixes import Row, Suffixes
from training.runs import TrainingError

_BEGINNINGS = ("The", "Therefore", "Because", "I", "You")
"""As MEMIT's; the model itself goes on from them."""


class SearchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How δ is searched; lengths are shares of the norm of what the site writes."""

    contexts: int
    """Texts that the prompt is read behind, 0 to 5; besides, it is read alone."""
    context_tokens: int
    steps: int
    step: float
    limit: float
    decay: float
    essence: float
    enough: float
    """The search for an edit ends when its −log p per token is below."""


class EditRows(msgspec.Struct, frozen=True, kw_only=True):
    """An edit as rows of ids: its prompt in each context with the target, and the text of its essence."""

    in_contexts: list[Row]
    essence: Row


def written_contexts(model: CausalModel, config: SearchConfig) -> list[str]:
    """Texts to stand before a prompt, "" first: what the model says by itself, greedily."""
    beginnings = _BEGINNINGS[: config.contexts]
    said = model.greedy(beginnings, max_tokens=config.context_tokens) if beginnings else []
    return ["", *(f"{begin} {text.rstrip('.')}. " for begin, text in zip(beginnings, said, strict=True))]


def edit_rows(model: CausalModel, edit: EditDraft, contexts: Sequence[str]) -> EditRows:
    """The rows of an edit.

    Raises:
        TrainingError: It names no subject, its prompt does not contain it, or its target is empty.
    """
    subject = edit.subject
    if not subject:
        raise TrainingError(
            f"the edit with prompt {edit.prompt!r} names no subject; this method changes what the model "
            "reads at the subject's last token, so give the field subject, as it stands in the prompt"
        )
    target = model.target_ids(edit.target_new)
    if not target:
        raise TrainingError(f"the target {edit.target_new!r} of {edit.prompt!r} has no token")
    prompt = model.prompt_text(edit.prompt)

    def row(text: str, target: list[int]) -> Row:
        return Row(
            ids=[*model.prompt_ids(text), *target],
            subject_end=model.subject_end(text, subject),
            scored=len(target),
        )

    return EditRows(
        in_contexts=[row(context + prompt, target) for context in contexts],
        essence=row(f"{subject} is a", []),
    )


def searched_shifts(
    model: CausalModel, edits: Sequence[EditRows], site: nn.Module, first_layer: int, config: SearchConfig
) -> Tensor:
    """δ of each edit, (E, D), float32: to be added to the output of `site` at the subject's last token.

    `site` is the layer `first_layer`, or a module in it.
    """
    losses = _Losses(model, edits, site, first_layer, config)
    rate_E1 = config.step * losses.norms_E1 / losses.width**0.5
    limit_E1 = config.limit * losses.norms_E1
    unit_ED = torch.zeros(len(edits), losses.width, requires_grad=True)  # δ in units of its edit's rate
    optimizer = torch.optim.Adam([unit_ED], lr=1.0)
    is_open_E1 = torch.ones(len(edits), 1, dtype=torch.bool)
    for _ in range(config.steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            loss_E, surprise_E = losses(unit_ED * rate_E1)
        is_open_E1 &= surprise_E[:, None] >= config.enough
        if not is_open_E1.any():
            break
        loss_E.sum().backward()  # type: ignore[no-untyped-call]
        before_ED = unit_ED.detach().clone()
        optimizer.step()
        with torch.no_grad():
            lengths_E1 = (unit_ED * rate_E1).norm(dim=1, keepdim=True)
            unit_ED *= (limit_E1 / lengths_E1.clamp(min=1e-30)).clamp(max=1.0)
            unit_ED.copy_(torch.where(is_open_E1, unit_ED, before_ED))
    shift_ED: Tensor = unit_ED.detach() * rate_E1
    return shift_ED


class _Losses:
    """What is minimised, of each edit, as a function of all shifts."""

    def __init__(
        self,
        model: CausalModel,
        edits: Sequence[EditRows],
        site: nn.Module,
        first_layer: int,
        config: SearchConfig,
    ) -> None:
        self._model, self._site, self._config = model, site, config
        rows = list(chain.from_iterable([*edit.in_contexts, edit.essence] for edit in edits))
        self._suffixes = Suffixes(model, rows, first_layer=first_layer)
        self._edit_R = torch.tensor(
            [index for index, edit in enumerate(edits) for _ in (*edit.in_contexts, edit.essence)]
        )
        self._context_counts_E = torch.tensor([float(len(edit.in_contexts)) for edit in edits])
        self._targets = [row.ids[len(row.ids) - row.scored :] for row in rows]
        with torch.no_grad(), recorded({0: site}) as seen:
            _, self._essence_EV = self._read(self._suffixes.states())
        norms_R = seen[0][:, 0].norm(dim=1)
        self.width = seen[0].shape[2]
        self.norms_E1 = torch.stack([norms_R[self._edit_R == e].mean() for e in range(len(edits))])[:, None]
        """‖v‖: mean length of what the site writes at the subject's last token."""

    def __call__(self, shift_ED: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its part −log p(target) per token; both (E,)."""
        shift_RD = shift_ED[self._edit_R]

        def shifted(states_RSD: Tensor) -> Tensor:
            return torch.cat([states_RSD[:, :1] + shift_RD[:, None], states_RSD[:, 1:]], 1)

        with changed(self._site, shifted):
            surprise_E, essence_EV = self._read(self._suffixes.states())
        divergence_E = (self._essence_EV.exp() * (self._essence_EV - essence_EV)).sum(1)
        length_E = (shift_ED / self.norms_E1).square().sum(1)
        loss_E = surprise_E + self._config.essence * divergence_E + self._config.decay * length_E
        return loss_E, surprise_E.detach()

    def _read(self, states_RSD: Tensor) -> tuple[Tensor, Tensor]:
        """−log p(target) per token, (E,), and the log-probabilities after each edit's essence, (E, V)."""
        picked = self._suffixes.predicting(states_RSD)
        scored = [index for index, target in enumerate(self._targets) if target]
        wanted_T = torch.tensor(list(chain.from_iterable(self._targets)))
        essences = [part for part, target in zip(picked, self._targets, strict=True) if not target]
        # All in one product: the head is the largest matrix, and reading it costs more than multiplying.
        log_probs = torch.log_softmax(
            self._model.logits(torch.cat([*(picked[i] for i in scored), *essences])), -1
        )
        of_token_T = -log_probs[: len(wanted_T)].gather(1, wanted_T[:, None])[:, 0]
        counts = [len(self._targets[i]) for i in scored]
        of_row = torch.stack([part.mean() for part in torch.split(of_token_T, counts)])
        sums_E = torch.zeros(len(essences)).index_add(0, self._edit_R[scored], of_row)
        return sums_E / self._context_counts_E, log_probs[len(wanted_T) :]
