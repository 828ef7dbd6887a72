"""FedAvg: one network for all, the average of what the clients trained.

McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data",
AISTATS. The weights are the paper's with ``weights: samples``.
"""

from physfed_ray.methods.base import Method


class FedAvg(Method):
    """All parameters are shared and averaged."""

    name = "fedavg"
    title = "FedAvg"
    paper = "McMahan et al. 2017, AISTATS"
    group = "generic"
    shared = ("encoder", "decoder")
