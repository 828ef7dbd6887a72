"""FedBN: all is shared but batch normalisation.

Li et al. 2021, "FedBN: federated learning on non-IID features via local batch normalization",
ICLR. Each client keeps the statistics and the affine parameters of its normalisations, algorithm 1;
all other parameters are averaged. A client's model is the averaged part with its own
normalisations.

RED-CNN has no normalisation, so that one is put behind each of its layers but the last, which ends
at the image; a layer's bias goes, for the normalisation's shift has its effect. Statistics, shifts
and scales are thus all that differs between clients. A backbone says where its places for
normalisations are (``Backbone.norms``); one without any is refused.
"""

from collections.abc import Callable, Mapping

import torch
from pydantic import BaseModel
from torch import nn

from physfed_ray.methods.base import Method
from physfed_ray.methods.given import Task
from physfed_ray.models.base import Backbone


class FedBN(Method):
    """Layers are shared and averaged; normalisations stay with their client."""

    name = "fedbn"
    title = "FedBN"
    paper = "Li et al. 2021, ICLR"
    group = "personalised"

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        with torch.device("meta"):
            halves = {half: make() for half, make in self.children().items()}
        self.shared = tuple(
            f"{half}.{child}"
            for half, module in halves.items()
            for child, _ in module.named_children()
            if child not in task.backbone.norms
        )

    @classmethod
    def refuses(cls, backbone: Backbone) -> str | None:
        """Say so of a backbone without a place for batch normalisation."""
        if backbone.norms:
            return super().refuses(backbone)
        return (
            f"FedBN keeps batch normalisations private, and the backbone '{backbone.name}' has "
            "none: choose backbone.name = red_cnn, or another method"
        )

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the backbone's two halves with batch normalisations in them."""
        add = self.task.backbone.add_norms
        encoder, decoder = (super(FedBN, self).children()[name] for name in ("encoder", "decoder"))
        return {"encoder": lambda: add(encoder()), "decoder": lambda: add(decoder())}
