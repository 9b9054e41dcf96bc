"""A causal language model of transformers as every editing method sees it: ids, log-probabilities, text.

Legend of shapes: B texts, L tokens, V vocabulary. Token ids are joined, never texts: a prompt and its target
are tokenised apart, so that no token reaches across the border (EasyEdit#303 shows what happens otherwise).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from serac_gateway.errors import ConfigError
from training.runs import TrainingError


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Texts padded on the left, so that the last token of each stands in the last column."""

    ids_BL: Tensor
    mask_BL: Tensor
    """1 at tokens, 0 at padding."""
    positions_BL: Tensor
    """0 at each text's first token; 0 at padding too."""
    prompt_end_B: Tensor
    """The column of each prompt's last token: the last one, unless a target follows."""


class Forced(msgspec.Struct, frozen=True, kw_only=True):
    """A target read teacher-forced, token by token: T tokens."""

    log_probs_T: Tensor
    is_top_T: Tensor
    """Whether the token is the most probable of all at its place."""


class CausalModel:
    """A network with its tokenizer; in float32, in evaluation mode, without gradients on its parameters."""

    def __init__(self, network: nn.Module, tokenizer: PreTrainedTokenizerBase, *, name: str) -> None:
        """`name` goes into reports, as "gemma-3-270m"."""
        self.network: Any = network.eval().requires_grad_(False)
        """Its methods of transformers are not typed."""
        self.tokenizer: Any = tokenizer
        self.name = name
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self.prompt_end_B: Tensor | None = None
        """While prompts are read, the column of each one's last token; None at generated tokens.

        Methods that route decide there, row by row, and keep the decision for the tokens that follow.
        """

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder's layers, first to last.

        Raises:
            ConfigError: The network has no `model.layers`.
        """
        return list(self.module("model.layers").children())

    def value_matrix(self, layer: int) -> nn.Linear:
        """What ROME edits: the second matrix of a layer's MLP, weight of shape (width, inner width).

        Raises:
            ConfigError: No such layer, or its MLP is of another make.
        """
        matrix = self.module(f"model.layers.{layer}.mlp.down_proj")
        if not isinstance(matrix, nn.Linear):
            raise ConfigError(
                f"model.layers.{layer}.mlp.down_proj of {self.name!r} is a {type(matrix).__name__}; "
                "the editing methods need a torch.nn.Linear there (Gemma, Llama, Qwen, Mistral have it)"
            )
        return matrix

    def module(self, path: str) -> nn.Module:
        """The module at a dotted path.

        Raises:
            ConfigError: There is none; the message has the first part that is missing.
        """
        at: nn.Module = self.network
        for position, part in enumerate(names := path.split(".")):
            children = dict(at.named_children())
            if part not in children:
                raise ConfigError(
                    f"the model {self.name!r} has no module {'.'.join(names[: position + 1])!r} (needed: "
                    f"{path!r}); there are {', '.join(map(repr, [*children][:12])) or 'none'}"
                )
            at = children[part]
        return at

    def prompt_text(self, query: str) -> str:
        """What the model reads for a query: a question as question and answer, anything else as it stands.

        A base model continues text; asked "Who wrote it?" alone it asks on. Never a chat template.
        """
        text = query.strip()
        return f"Question: {text}\nAnswer:" if text.endswith(("?", "？", "؟")) else text

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of a text that begins a sequence, with the beginning-of-sequence token where there is one."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        bos = self.tokenizer.bos_token_id
        return ids if bos is None else [int(bos), *ids]

    def target_ids(self, target: str) -> list[int]:
        """Ids of an answer that follows a prompt, as a word of its own: with a space before it."""
        return list(self.tokenizer(" " + target.strip(), add_special_tokens=False)["input_ids"])

    def subject_end(self, text: str, subject: str) -> int:
        """Index, in `prompt_ids(text)`, of the last token of the subject's last occurrence.

        Raises:
            TrainingError: The text does not contain the subject.
        """
        return self.subject_tokens(text, subject)[-1]

    def subject_tokens(self, text: str, subject: str) -> list[int]:
        """Indices, in `prompt_ids(text)`, of the tokens that have a part in the subject's last occurrence.

        Raises:
            TrainingError: The text does not contain the subject.
        """
        at = text.casefold().rfind(subject.casefold())
        if at < 0 or not subject:
            raise TrainingError(f"the prompt {text!r} does not contain its subject {subject!r}")
        end = at + len(subject)
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        first = int(self.tokenizer.bos_token_id is not None)
        return [i for i, (begin, stop) in enumerate(offsets, first) if begin < end and stop > at]

    def batch(self, rows: Sequence[Sequence[int]], *, target_tokens: Sequence[int] | None = None) -> Batch:
        """Pad rows of ids on the left; of each, the last `target_tokens` (default 0) are a target's."""
        width = max(len(row) for row in rows)
        ids_BL = torch.full((len(rows), width), self.pad_id)
        mask_BL = torch.zeros((len(rows), width), dtype=torch.long)
        for index, row in enumerate(rows):
            ids_BL[index, width - len(row) :] = torch.tensor(row)
            mask_BL[index, width - len(row) :] = 1
        ends_B = width - 1 - torch.tensor(target_tokens or [0] * len(rows))
        positions_BL = (mask_BL.cumsum(1) - 1).clamp(min=0)
        return Batch(ids_BL=ids_BL, mask_BL=mask_BL, positions_BL=positions_BL, prompt_end_B=ends_B)

    def hidden(self, batch: Batch) -> Tensor:
        """The last layer's states after the final norm, (B, L, width); no logits are computed."""
        with self.reading(batch):
            out = self.network.base_model(
                input_ids=batch.ids_BL, attention_mask=batch.mask_BL, position_ids=batch.positions_BL,
                use_cache=False,
            )  # fmt: skip
        return cast(Tensor, out.last_hidden_state)

    def logits(self, states: Tensor) -> Tensor:
        """Logits of states, (…, width) to (…, V): of few positions, since the head is most of the cost."""
        return cast(Tensor, self.network.get_output_embeddings()(states))

    def target_log_probs(self, pairs: Sequence[tuple[str, str]], *, at_once: int = 8) -> list[Tensor]:
        """Of each (text, target) the log-probability of every token of the target, teacher-forced, (tokens,).

        Differentiable where gradients are on. `text` is what the model reads, see `prompt_text`.
        """
        return [forced.log_probs_T for forced in self.forced(pairs, at_once=at_once)]

    def forced(self, pairs: Sequence[tuple[str, str]], *, at_once: int = 8) -> list[Forced]:
        """Of each (text, target) how the target's tokens are read, each after the right ones before it."""
        read: list[Forced] = []
        targets = [torch.tensor(self.target_ids(target)) for _, target in pairs]
        for target_T, logits_TV in zip(targets, self.target_logits(pairs, at_once=at_once), strict=True):
            log_probs_T = torch.log_softmax(logits_TV, -1).gather(1, target_T[:, None])[:, 0]
            read.append(Forced(log_probs_T=log_probs_T, is_top_T=logits_TV.argmax(-1) == target_T))
        return read

    def target_logits(self, pairs: Sequence[tuple[str, str]], *, at_once: int = 8) -> Iterator[Tensor]:
        """Of each (text, target) the logits from which every token of the target is chosen, (tokens, V)."""
        for begin in range(0, len(pairs), at_once):
            part = [
                (self.prompt_ids(text), self.target_ids(target))
                for text, target in pairs[begin : begin + at_once]
            ]
            batch = self.batch(
                [prompt + target for prompt, target in part],
                target_tokens=[len(target) for _, target in part],
            )
            states_BLD = self.hidden(batch)
            counts = [len(target) for _, target in part]
            # In one product: reading the head costs more than multiplying by it.
            yield from torch.split(
                self.logits(
                    torch.cat([states_BLD[index, -count - 1 : -1] for index, count in enumerate(counts)])
                ),
                counts,
            )

    @torch.no_grad()
    def next_log_probs(self, texts: Sequence[str], *, at_once: int = 8) -> Iterator[Tensor]:
        """Of each text the log-probabilities of the token after it, (V,)."""
        for begin in range(0, len(texts), at_once):
            batch = self.batch([self.prompt_ids(text) for text in texts[begin : begin + at_once]])
            yield from torch.log_softmax(self.logits(self.hidden(batch)[:, -1]), -1)

    def fingerprint(self) -> str:
        """A digest of names and bytes of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in (*self.network.named_parameters(), *self.network.named_buffers()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:24]

    def hook_count(self) -> int:
        """Forward hooks on all modules."""
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in self.network.modules()
        )

    @torch.no_grad()
    def greedy(
        self, texts: Sequence[str], *, max_tokens: int = 24, at_once: int = 8, several_lines: bool = False
    ) -> list[str]:
        """Continue each text greedily until end of sequence, a line break, or `max_tokens`.

        With `several_lines` a line break ends nothing.

        The limit never depends on the wanted answer (Yang et al., arXiv 2502.11177). A forward pass over more
        than one column is the prompt, over one column a generated token: hooks tell them apart by that.
        """
        said: list[str] = []
        for begin in range(0, len(texts), at_once):
            said += self._continued(
                self.batch([self.prompt_ids(text) for text in texts[begin : begin + at_once]]),
                max_tokens,
                several_lines,
            )
        return said

    def _continued(self, batch: Batch, max_tokens: int, several_lines: bool) -> list[str]:
        ids_BL, mask_BL, positions_BL = batch.ids_BL, batch.mask_BL, batch.positions_BL
        ends = {int(end) for end in _listed(self.network.generation_config.eos_token_id)}
        ends |= {int(end) for end in _listed(self.tokenizer.eos_token_id)}
        rows: list[list[int]] = [[] for _ in ids_BL]
        texts = [""] * len(rows)
        is_open = [True] * len(rows)
        cache = None
        for _ in range(max_tokens):
            with self.reading(batch if cache is None else None):
                out = self.network.base_model(
                    input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions_BL,
                    past_key_values=cache, use_cache=True,
                )  # fmt: skip
            cache = out.past_key_values
            next_B = self.logits(out.last_hidden_state[:, -1]).argmax(-1)
            for index, token in enumerate(next_B.tolist()):
                if is_open[index]:
                    rows[index].append(token)
                    texts[index] = self.tokenizer.decode(rows[index], skip_special_tokens=True)
                    is_line = several_lines or "\n" not in texts[index].lstrip()
                    is_open[index] = token not in ends and is_line
            if not any(is_open):
                break
            ids_BL = next_B[:, None]
            mask_BL = torch.cat([mask_BL, torch.ones_like(ids_BL)], 1)
            positions_BL = positions_BL[:, -1:] + 1
        return [text.strip() if several_lines else text.strip().split("\n")[0].strip() for text in texts]

    @contextmanager
    def reading(self, batch: Batch | None) -> Iterator[None]:
        """Inside, layers can see where the prompts of the batch end; None: only generated tokens are read."""
        self.prompt_end_B = None if batch is None else batch.prompt_end_B
        try:
            yield
        finally:
            self.prompt_end_B = None

    @contextmanager
    def restored(self, *matrices: nn.Parameter) -> Iterator[None]:
        """What is done to these parameters inside is undone bit by bit at the end."""
        kept = [matrix.detach().clone() for matrix in matrices]
        try:
            yield
        finally:
            for matrix, before in zip(matrices, kept, strict=True):
                matrix.data.copy_(before)


def _listed(ids: int | Sequence[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
