"""FedPer: shared base layers, private last layers.

Arivazhagan et al. 2019, "Federated learning with personalization layers", arXiv:1912.00818.
For denoising, the base layers are the encoder and the personalisation layers the decoder, as in
Yang et al. 2025.
"""

from physfed_ray.methods.base import Method


class FedPer(Method):
    """The encoder is shared and averaged, the decoder stays with its client."""

    name = "fedper"
    title = "FedPer"
    paper = "Arivazhagan et al. 2019, arXiv:1912.00818"
    group = "personalised"
    shared = ("encoder",)
