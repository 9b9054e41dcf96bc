"""Rows of tokens that are run again and again from their subject's last token on, and from a layer on.

Whoever searches a value for the subject's last token runs the same rows some twenty times, and changes what
one layer writes at that token. Tokens before it never change (attention looks back only), and neither do the
layers below: both are computed once. Of "The mother tongue of Danielle Darrieux is French" three tokens in
twelve layers are left instead of nine in eighteen.

Legend of shapes: R rows, S tokens of a suffix, D width, I inner width of the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import msgspec
import torch
from torch import Tensor

from training.baselines.causal_model import CausalModel
from training.baselines.hooks import ending_at, recorded, replayed


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One text, and where its last `scored` tokens are to be predicted."""

    ids: list[int]
    subject_end: int
    """Index of the subject's last token in `ids`."""
    scored: int
    """Tokens at the end whose predictions matter; 0: the next token's, after the last."""


class Suffixes:
    """The rows, each from its subject's last token on: column 0 of all that is computed here."""

    def __init__(self, model: CausalModel, rows: Sequence[Row], *, first_layer: int) -> None:
        """`first_layer` is the lowest layer that later runs compute; what is below is run here, once."""
        self._model = model
        self._below = model.layers[:first_layer]
        self.rows = rows
        self._ids_RS, self._positions_RS = _suffix_columns(model, rows)
        self._mask = torch.ones_like(self._ids_RS)
        self._cache: Any = None
        self._states_RSD: Tensor | None = None
        with torch.no_grad():
            if any(row.subject_end for row in rows):
                self._read_prefixes()
            if self._below:
                with recorded({0: self._below[-1]}) as seen, ending_at(self._below[-1]):
                    self._run()
                self._states_RSD = seen[0]

    def states(self) -> Tensor:
        """The last layer's states after the final norm, (R, S, D); with gradients where they are on."""
        if self._states_RSD is None:
            return self._run()
        with replayed(self._below, self._states_RSD):
            return self._run()

    def predicting(self, states_RSD: Tensor) -> list[Tensor]:
        """Of each row the states that predict its scored tokens, (scored, D), or the token after its last."""
        picked = []
        for states_SD, row in zip(states_RSD, self.rows, strict=True):
            end = len(row.ids) - row.subject_end
            first = end - row.scored - 1 if row.scored else end - 1
            picked.append(states_SD[first : first + max(row.scored, 1)])
        return picked

    def _read_prefixes(self) -> None:
        batch = self._model.batch([row.ids[: row.subject_end] for row in self.rows])
        out = self._model.network.base_model(
            input_ids=batch.ids_BL, attention_mask=batch.mask_BL, position_ids=batch.positions_BL,
            use_cache=True,
        )  # fmt: skip
        self._cache = out.past_key_values
        self._mask = torch.cat([batch.mask_BL, self._mask], 1)

    def _run(self) -> Tensor:
        out = self._model.network.base_model(
            input_ids=self._ids_RS, attention_mask=self._mask, position_ids=self._positions_RS,
            past_key_values=deepcopy(self._cache), use_cache=self._cache is not None,
        )  # fmt: skip
        return cast(Tensor, out.last_hidden_state)


def _suffix_columns(model: CausalModel, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Ids and positions of the suffixes, padded on the right, where nothing looks back at padding."""
    suffixes = [row.ids[row.subject_end :] for row in rows]
    width = max(map(len, suffixes))
    ids_RS = torch.tensor([ids + [model.pad_id] * (width - len(ids)) for ids in suffixes])
    begins_R1 = torch.tensor([[row.subject_end] for row in rows])
    return ids_RS, begins_R1 + torch.arange(width)


@torch.no_grad()
def at_subject(
    model: CausalModel, rows: Sequence[Row], layers: Sequence[int], *, at_once: int = 64
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """By layer, at the subject's last token: the value matrix's inputs, (R, I), the layer's outputs, (R, D).

    An output of a layer is the residual stream after it.
    """
    keys: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    matrices = {layer: model.value_matrix(layer) for layer in layers}
    outputs = {layer: model.layers[layer] for layer in layers}
    for begin in range(0, len(rows), at_once):
        batch = model.batch([row.ids[: row.subject_end + 1] for row in rows[begin : begin + at_once]])
        with (
            recorded(matrices, inputs=True) as keys_seen,
            recorded(outputs) as states_seen,
            ending_at(outputs[max(layers)]),
        ):
            model.hidden(batch)
        for layer in layers:
            keys[layer].append(keys_seen[layer][:, -1])
            states[layer].append(states_seen[layer][:, -1])
    return ({at: torch.cat(part) for at, part in keys.items()},
            {at: torch.cat(part) for at, part in states.items()})  # fmt: skip
