"""C = E[k kᵀ]: how the inputs of an MLP's second matrix, the keys, are spread over plain text.

ROME (Meng et al., NeurIPS 2022, arXiv 2202.05262) took 100,000 articles of Wikipedia. A small share of that
serves as well (arXiv 2506.04226): 130,000 tokens are 63 for each of Gemma's 2,048 inner dimensions. The
beginning-of-sequence token is left out: it stands in every text and its key is like no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from serac_gateway.config.loading import load_config
from serac_gateway.errors import ConfigError
from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.hooks import ending_at, recorded
from training.data.files import data_folder, read_rows
from training.progress import OnProgress

_TEXT_FILES = (("squad_sentence_groups/questions.jsonl.gz", "text"), ("tatoeba/pairs.jsonl.gz", "en"))
"""Files of the public data with English lines, and their column: questions and everyday sentences."""
_ROW_TOKENS = 64
_ROWS_AT_ONCE = 16


class StatisticsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which text C is computed."""

    tokens: int
    """So many are read at most."""
    texts: str | None = None
    """A file with a line of plain text each; None: questions and sentences of the public data."""


def open_statistics(model: CausalModel, config: StatisticsConfig) -> KeyStatistics:
    """Statistics kept in the data folder, by model, texts and layer.

    Raises:
        ConfigError: There is no text.
    """
    texts = plain_texts(None if config.texts is None else Path(config.texts))
    return KeyStatistics(
        model, texts, tokens=config.tokens, folder=load_config().data_path / "key_statistics"
    )


def plain_texts(path: Path | None) -> list[str]:
    """The lines of a text file; without one, lines of the public data, drawn from its files in turn.

    Raises:
        ConfigError: There is no text, or no such file.
    """
    if path is None:
        try:
            columns = [
                list(dict.fromkeys(str(row[column]) for row in read_rows(data_folder() / file)))
                for file, column in _TEXT_FILES
            ]
        except ConfigError as exc:
            raise ConfigError(
                f"key statistics need plain text: {exc}; or name a file with lines of text as texts under"
                " [statistics] in the method's configuration"
            ) from exc
        return [text for text in chain.from_iterable(zip_longest(*columns)) if text]
    try:
        texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the texts {str(path)!r}: {exc}") from exc
    if not texts:
        raise ConfigError(f"{str(path)!r} holds no text; key statistics need lines of plain text")
    return texts


class KeyStatistics:
    """The matrices C of a model's layers over given texts: computed once, then read from a folder."""

    def __init__(self, model: CausalModel, texts: Sequence[str], *, tokens: int, folder: Path | None) -> None:
        """`tokens` are taken at most; None as folder keeps nothing on disk."""
        self._model = model
        self._texts = texts
        self._tokens = tokens
        self._folder = folder

    def moments(self, layers: Sequence[int], *, on_progress: OnProgress = silent) -> dict[int, Tensor]:
        """C of each layer, (inner width, inner width), float64, symmetric; of the model as it is now.

        Raises:
            ConfigError: No text has a token; or the model has no such layer.
        """
        files = self._files(layers)
        moments = {
            layer: load_file(file)["moment"].double() for layer, file in files.items() if file.is_file()
        }
        missing = [layer for layer in layers if layer not in moments]
        if missing:
            moments |= self._computed(missing, on_progress)
        for layer in missing if self._folder else ():
            files[layer].parent.mkdir(parents=True, exist_ok=True)
            save_file({"moment": moments[layer].float().contiguous()}, files[layer])
        return moments

    def _files(self, layers: Sequence[int]) -> dict[int, Path]:
        if self._folder is None:
            return {}
        digest = hashlib.sha256(self._model.fingerprint().encode())
        for text in self._texts:
            digest.update(text.encode() + b"\n")
        folder = self._folder / f"{self._model.name}-{self._tokens}-{digest.hexdigest()[:16]}"
        return {layer: folder / f"layer_{layer:02}.safetensors" for layer in layers}

    @torch.no_grad()
    def _computed(self, layers: Sequence[int], on_progress: OnProgress) -> dict[int, Tensor]:
        matrices = {layer: self._model.value_matrix(layer) for layer in layers}
        sums = {
            layer: torch.zeros(matrix.in_features, matrix.in_features, dtype=torch.float64)
            for layer, matrix in matrices.items()
        }
        done = 0
        on_progress("key statistics", 0, self._tokens)
        for rows in _batches(self._rows()):
            batch = self._model.batch(rows)
            with recorded(matrices, inputs=True) as keys, ending_at(matrices[max(layers)]):
                self._model.hidden(batch)
            counted_BL = batch.mask_BL.bool()
            if self._model.tokenizer.bos_token_id is not None:
                counted_BL &= batch.positions_BL > 0
            for layer, keys_BLI in keys.items():
                keys_NI = keys_BLI[counted_BL]
                sums[layer] += (keys_NI.T @ keys_NI).double()
            done += int(counted_BL.sum())
            on_progress("key statistics", min(done, self._tokens), self._tokens)
        if not done:
            raise ConfigError("the texts for key statistics have no token; give lines of plain text")
        return {layer: total / done for layer, total in sums.items()}

    def _rows(self) -> Iterator[list[int]]:
        """Lines joined to rows of some 64 tokens, until there are tokens enough."""
        row: list[int] = []
        left = self._tokens
        for text in self._texts:
            line = self._model.prompt_ids(text if not row else " " + text)
            row += line[1:] if row and self._model.tokenizer.bos_token_id is not None else line
            if len(row) >= _ROW_TOKENS:
                yield row[:_ROW_TOKENS]
                left -= _ROW_TOKENS
                row = []
            if left <= 0:
                return
        if row:
            yield row


def _batches(rows: Iterator[list[int]]) -> Iterator[list[list[int]]]:
    batch: list[list[int]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
