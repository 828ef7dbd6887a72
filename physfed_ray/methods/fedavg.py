"""FedAvg: one network for all, the average of what the clients trained.

McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data",
AISTATS, algorithm 1. Every client k of a round's clients S begins with the server's w^t, makes E
epochs of local steps in batches of size B, and the server averages what they end with:

    w      <- w - eta grad l(w; b)                  for each batch b, from w = w^t to w_k^{t+1}
    w^{t+1} = sum_{k in S} n_k w_k^{t+1} / sum_{k in S} n_k

n_k is the number of client k's training slices with ``weights: samples``, as in the paper. With
``weights: uniform``, the default, it is 1, as in Yang et al. 2025. l is the experiment's objective,
and its optimizer takes the steps, Adam by default, where the paper has plain SGD.

The sum is not made in this file, because it is the same for every method that averages: hosts add
up their clients' vectors in a fixed tree (``federation.tree``), so that the result is the same to
the last bit wherever clients run, and the server divides by the sum of the weights. That is
``Aggregation.mean``, which ``Method.aggregate`` returns.
"""

from physfed_ray.methods.base import Method


class FedAvg(Method):
    """All parameters are shared and averaged."""

    name = "fedavg"
    title = "FedAvg"
    paper = "McMahan et al. 2017, AISTATS"
    group = "generic"
    diffusion = True
    shared = ("encoder", "decoder")
