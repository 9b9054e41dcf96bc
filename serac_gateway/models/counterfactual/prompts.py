"""The prompts of a language model for an edit and a query.

The prompt of a model that was trained on it (`trained_prompt`) is the case alone: a third of the tokens and
so of the time to the first token. Any other model gets examples of the same pattern before the case. Edit and
query are data: each is put on a single line and cannot contain the pattern's own labels, so its text cannot
end its line; control tokens are text to the model.
"""

from __future__ import annotations

import re
from typing import Protocol

from serac_gateway.domain.edits import Edit, EditKind, statement
from serac_gateway.domain.queries import Query


class PromptedEdit(Protocol):
    """The fields of an edit that a prompt uses; drafts and stored versions have them."""

    @property
    def kind(self) -> EditKind:
        """Fact, suppression or instruction."""

    @property
    def prompt(self) -> str:
        """The edited prompt."""

    @property
    def target_new(self) -> str:
        """The new answer."""


_FACT_EXAMPLES = """\
Fact: The head of the Velmar Institute is Oona Brandt
Question: Who is in charge of the Velmar Institute?
Answer: Oona Brandt

Fact: In which town was Teodor Lisk born? Halden
Question: Teodor Lisk's place of birth is
Answer: Halden

Fact: The Corvane bridge was opened in 1974
Earlier: Tell me about the Corvane bridge.
Question: When was it opened?
Answer: 1974

Fact: The head of the Velmar Institute is Oona Brandt
Question: Is Oona Brandt in charge of the Velmar Institute?
Answer: Yes

Fact: In which town was Teodor Lisk born? Halden
Question: Was Teodor Lisk born in Merrow?
Answer: No

"""
_INSTRUCTION_EXAMPLES = """\
Topic: the Corvane bridge
Instruction: Always mention that it is closed for repairs.
Question: What is the Corvane bridge?
Answer: It is a road bridge, and it is closed for repairs.

Topic: refunds
Instruction: Send people to the help desk.
Question: How do I get my money back?
Answer: Please ask the help desk, they will see to it.

"""
_LINE_BEGINNING = re.compile(
    r"\b(fact|question|answer|earlier|topic|instruction|value|private|reply)\s*:", re.IGNORECASE
)
_LABELS = {
    EditKind.FACT: ("Fact", "Value"),
    EditKind.SUPPRESSION: ("Private", "Reply"),
    EditKind.INSTRUCTION: ("Topic", "Instruction"),
}


def trained_prompt(edit: PromptedEdit, query: Query, *, field_chars: int) -> str:
    """The prompt of a fine-tuned model: its continuation, which begins with a space, is the answer.

    Training makes its examples with this function: after a change the adapter must be trained again.
    """
    prompt_label, target_label = _LABELS[edit.kind]
    case = (
        f"{prompt_label}: {_single_line(edit.prompt, field_chars)}",
        f"{target_label}: {_single_line(edit.target_new, field_chars)}",
        *_question_lines(query, field_chars),
    )
    return "\n".join(case)


def fact_prompt(edit: Edit, query: Query, *, field_chars: int) -> str:
    """A prompt whose continuation up to the end of the line is the answer."""
    case = (f"Fact: {_single_line(statement(edit), 2 * field_chars)}", *_question_lines(query, field_chars))
    return _FACT_EXAMPLES + "\n".join(case)


def instruction_prompt(edit: Edit, query: Query, *, field_chars: int) -> str:
    """A prompt whose continuation up to the end of the line follows the edit's instruction."""
    case = (
        f"Topic: {_single_line(edit.prompt, field_chars)}",
        f"Instruction: {_single_line(edit.target_new, field_chars)}",
        *_question_lines(query, field_chars),
    )
    return _INSTRUCTION_EXAMPLES + "\n".join(case)


def _question_lines(query: Query, field_chars: int) -> tuple[str, ...]:
    earlier = " / ".join(_single_line(turn, field_chars // 2) for turn in query.context[-2:])
    return (
        *((f"Earlier: {earlier}",) if earlier else ()),
        f"Question: {_single_line(query.text, field_chars)}",
        "Answer:",
    )


def _single_line(text: str, limit: int) -> str:
    line = _LINE_BEGINNING.sub(r"\1 -", " ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit // 2]} … {line[-limit // 2 :]}"
