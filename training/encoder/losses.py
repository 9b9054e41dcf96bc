"""The encoder's losses: like its teacher, and the request nearest its own edit.

Shape suffixes: B examples of a batch, N negatives, T texts, D embedding width. Vectors have unit length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_OUT = -1e4
"""For a logit that does not take part."""


def centred(vectors_TD: torch.Tensor, mean_D: torch.Tensor) -> torch.Tensor:
    """The teacher's vectors without what all of them have in common, at unit length.

    The cosines of multilingual-e5-small lie between .7 and 1 because its vectors share a large mean; without
    it unrelated texts are near 0, and the order of neighbours is hardly another.
    """
    return F.normalize(vectors_TD - mean_D, dim=-1)


def distillation_loss(vectors_TD: torch.Tensor, taught_TD: torch.Tensor) -> torch.Tensor:
    """1 - the mean cosine of each text's vector with its teacher's."""
    return 1 - (vectors_TD * taught_TD).sum(-1).mean()


def contrastive_loss(
    forms_BD: torch.Tensor,
    requests_BD: torch.Tensor,
    negatives_ND: torch.Tensor,
    owners_N: torch.Tensor,
    alike_BB: torch.Tensor,
    *,
    temperature: float,
    negative_weight: float,
) -> torch.Tensor:
    """InfoNCE (van den Oord et al., arXiv 1807.03748) both ways: edit of a request, request of an edit.

    Edits that ask nearly the same, `alike_BB`, are not each other's negatives. A near request out of an
    edit's scope, `owners_N` saying whose, counts `negative_weight` of one: among eight candidates there is
    room for it, and the classifier tells it apart. To all other edits it is a negative like any other.
    """
    logits_BB = requests_BD @ forms_BD.T / temperature
    own_BB = torch.eye(len(forms_BD), dtype=torch.bool)
    logits_BB = logits_BB.masked_fill(alike_BB & ~own_BB, _OUT)
    labels_B = torch.arange(len(forms_BD))
    to_negatives_BN = forms_BD @ negatives_ND.T / temperature
    is_own_BN = labels_B[:, None] == owners_N[None]
    is_alike_BN = alike_BB[:, owners_N] & ~is_own_BN
    weight = torch.tensor(negative_weight).log()
    to_negatives_BN = (to_negatives_BN + is_own_BN * weight).masked_fill(is_alike_BN, _OUT)
    of_edit = F.cross_entropy(torch.cat([logits_BB.T, to_negatives_BN], dim=1), labels_B)
    return (F.cross_entropy(logits_BB, labels_B) + of_edit) / 2
