"""From which probability on an edit fires: one threshold for facts and instructions, one for suppressions.

A wrong answer and a wrong pass cost about the same; of a suppression the leak costs more than the refusal.
"""

from __future__ import annotations

import msgspec

from serac_gateway.config.model import RoutingConfig
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.models.classifiers.base import ScopeClassifier


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """A query is in scope of an edit iff its scope_probability is at least the edit's threshold, 0..1."""

    scope: float
    """Of facts and instructions."""
    suppression: float

    def of(self, edit: Edit) -> float:
        """The threshold of `edit`."""
        return self.suppression if edit.kind is EditKind.SUPPRESSION else self.scope


def thresholds_in_force(config: RoutingConfig, classifier: ScopeClassifier) -> Thresholds:
    """What is configured, else what was calibrated.

    A classifier that was calibrated with no threshold for suppressions has them fire like other edits.
    """
    scope, suppression = config.scope_threshold, config.suppression_threshold
    scope = classifier.scope_threshold if scope is None else scope
    suppression = classifier.suppression_threshold if suppression is None else suppression
    return Thresholds(scope=scope, suppression=scope if suppression is None else suppression)
