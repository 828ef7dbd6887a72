"""What DA-CLIP's heads learn by: ranks of doses, classes of anatomy, two opposite sentences."""

import torch
from torch import Tensor
from torch.nn import functional


def rank_n_contrast(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the Rank-N-Contrast loss: who is closer in label shall be closer in the embedding.

    Zha et al. 2023, NeurIPS, eq. 1: the mean over ordered pairs (i, j) of

        -log( exp(s_ij) / sum over k != i with |y_i - y_k| >= |y_i - y_j| of exp(s_ik) )

    with s_ij = -|v_i - v_j| / temperature.

    Args:
        embeddings: v, (B, d).
        labels: y, (B,).
        temperature: 2 in its code.
    """
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    apart = (embeddings[:, None] - embeddings[None]).square().sum(2)
    # The root of 0 has no gradient; that of an image to itself is not used.
    similar = -(apart + 1e-12).sqrt() / temperature
    gaps = (labels[:, None] - labels[None]).abs()
    counted = (gaps[:, None, :] >= gaps[:, :, None]) & others[:, None, :]
    sums = similar[:, None, :].masked_fill(~counted, -torch.inf).logsumexp(2)
    return (sums - similar)[others].mean()


def supervised_contrast(embeddings: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss, zero where no two images are of one class.

    Khosla et al. 2020, NeurIPS, L_out: the mean over images that have others of their class, of the
    mean over those, of -log( exp(v_i v_p / temperature) / sum over k != i of exp(v_i v_k / ..) ).

    Args:
        embeddings: v, (B, d), of unit length.
        classes: (B,) int64.
        temperature: 0.1 in the paper.
    """
    others = ~torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    logits = (embeddings @ embeddings.T / temperature).masked_fill(~others, -torch.inf)
    surprise = logits.logsumexp(1, keepdim=True) - logits
    same = (classes[:, None] == classes[None]) & others
    count = same.sum(1)
    means = surprise.masked_fill(~same, 0).sum(1) / count.clamp(min=1)
    return means.sum() / (count > 0).sum().clamp(min=1)


def preference_ranking(preference: Tensor, labels: Tensor) -> Tensor:
    """Return how often the wrong image of two is called the cleaner one, as a logistic loss.

    Burges et al. 2005, RankNet: the mean over pairs with y_i < y_j of softplus(p_j - p_i); zero
    where all labels are equal.

    Args:
        preference: p, (B,): the sentence "clean" less the sentence "noisy".
        labels: y, (B,): the logarithm of the reciprocal dose.
    """
    higher = labels[:, None] < labels[None]
    losses = functional.softplus(preference[None] - preference[:, None])
    return losses.masked_fill(~higher, 0).sum() / higher.sum().clamp(min=1)
