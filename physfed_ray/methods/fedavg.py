"""FedAvg: one network for all, the average of what the clients trained.

McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data",
AISTATS. With the parameters w_k that client k trained from w^t, and its weight n_k:

    w^{t+1} = sum_k n_k w_k / sum_k n_k                   algorithm 1, over the participants

That is ``Aggregation.mean``, which ``Method.aggregate`` returns. The sum itself runs over the tree
of ``federation.tree``. The weights are the paper's with ``weights: samples``, its number of slices.
"""

from physfed_ray.methods.base import Method


class FedAvg(Method):
    """All parameters are shared and averaged."""

    name = "fedavg"
    title = "FedAvg"
    paper = "McMahan et al. 2017, AISTATS"
    group = "generic"
    shared = ("encoder", "decoder")
