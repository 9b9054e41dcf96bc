"""Heads for the fake encoder of words: a form is asked for by its own name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.forms import heads
from serac_gateway.models.forms.heads import FormHeads
from serac_gateway.models.forms.reader import FormReader

NAMES = {
    heads.KINDS: {
        "json": "json", "xml": "xml", "upper": "capitals", "sentence": "sentence", "yesno": "yesno",
        "begin": "begin", "language": "language", "other": "table", "bare": "briefly", "none": "",
    },
    heads.WANTED: {"de": "german", "fr": "french"},
    heads.SPOKEN: {"de": "wer", "en": ""},
    heads.KEY: {"yes": "key", "no": ""},
}  # fmt: skip
"""For each head its labels with the word that each goes by; "": what is left."""
_SLOPE, _LEFT = 30.0, 12.0


def word_form_reader(encoder: Encoder, folder: Path) -> FormReader:
    """A reader whose heads, written to `folder`, go by the words above."""
    tensors: dict[str, np.ndarray] = {}
    metadata = {heads.FINGERPRINT: encoder.fingerprint}
    for head, labels in NAMES.items():
        vectors = [encoder.encode([word])[0] if word else np.zeros(encoder.width) for word in labels.values()]
        tensors[f"{head}.weight"] = (_SLOPE * np.stack(vectors)).astype(np.float32)
        tensors[f"{head}.bias"] = np.array([0 if word else _LEFT for word in labels.values()], np.float32)
        metadata[head] = ",".join(labels)
    save_file(tensors, folder / heads.HEADS_FILE, metadata=metadata)
    return FormReader(encoder, FormHeads(folder))
