"""Backbones by name: the project's own, and those that other packages register.

Nothing here imports torch: a network's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from physfed_ray.models.base import Backbone

BACKBONES: "Registry[type[Backbone]]" = Registry(
    "backbone",
    {
        "red_cnn": "physfed_ray.models.red_cnn:RedCNN",
        "scan_aware": "physfed_ray.models.scan_aware:ScanAware",
        "uformer": "physfed_ray.models.uformer:Uformer",
        "core_diff": "physfed_ray.models.core_diff:CoreDiff",
        "da_diff": "physfed_ray.models.da_diff.backbone:DADiff",
    },
)


def make_backbone(name: str = "red_cnn", **settings: object) -> "Backbone":
    """Return a backbone by its name and its own settings.

    Raises:
        PhysFedError: No backbone of that name is registered.
        ValueError: A setting does not fit.
    """
    kind = BACKBONES.find(name)
    return kind(kind.Settings(**settings))


def parameter_counts(network: "nn.Module") -> dict[str, int]:
    """Return the number of parameters of every child of a network."""
    return {
        name: sum(parameter.numel() for parameter in child.parameters())
        for name, child in network.named_children()
    }
