"""Methods by name: the project's own, and those that other packages register.

Nothing here imports torch: a method's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from physfed_ray.methods.base import Method

METHODS: "Registry[type[Method]]" = Registry(
    "method",
    {
        "local": "physfed_ray.methods.local:Local",
        "pooled": "physfed_ray.methods.pooled:Pooled",
        "fedavg": "physfed_ray.methods.fedavg:FedAvg",
        "fedprox": "physfed_ray.methods.fedprox:FedProx",
        "fednova": "physfed_ray.methods.fednova:FedNova",
        "moon": "physfed_ray.methods.moon:Moon",
        "feddg": "physfed_ray.methods.feddg:FedDG",
        "fedkd": "physfed_ray.methods.fedkd:FedKD",
        "fedper": "physfed_ray.methods.fedper:FedPer",
        "fedbn": "physfed_ray.methods.fedbn:FedBN",
        "fedmri": "physfed_ray.methods.fedmri:FedMRI",
        "hyperfed": "physfed_ray.methods.hyperfed:HyperFed",
        "fedfdd": "physfed_ray.methods.fedfdd:FedFDD",
        "fedct": "physfed_ray.methods.fedct:FedCT",
        "fedm2ct": "physfed_ray.methods.fedm2ct:FedM2CT",
        "scan_physfed": "physfed_ray.methods.scan_physfed:ScanPhysFed",
    },
)


def get_method(name: str) -> "type[Method]":
    """Return a method's class.

    Raises:
        PhysFedError: No method of that name is registered.
    """
    return METHODS.find(name)
