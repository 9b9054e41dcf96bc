"""An example for the counterfactual model: an edit, a query with its context, and the right answer."""

from __future__ import annotations

import msgspec

from serac_gateway.domain.edits import EditKind
from serac_gateway.domain.queries import Query


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One example. Its `kind`, `prompt` and `target_new` are an edit's: prompts are made of it as of one."""

    prompt: str
    target_new: str
    text: str
    """The query."""
    answer: str
    form: str
    """How the query asks, for reports: "question", "cloze", "yes-no", …"""
    kind: EditKind = EditKind.FACT
    context: tuple[str, ...] = ()
    source: str = "own"
    """The set it comes from."""

    @property
    def query(self) -> Query:
        """What serving would show of the query."""
        return Query(text=self.text, context=self.context)

    @property
    def is_agreement(self) -> bool | None:
        """Whether the answer agrees (yes) or not (no); None: it is neither."""
        if self.form == "suppression":
            return None
        first = self.answer.split(",")[0].split(".")[0].split(":")[0]
        return {"Yes": True, "No": False}.get(first)
