"""Methods by name: the project's own, and those that other packages register."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from physfed_ray.errors import PhysFedError
from physfed_ray.methods.base import Method

GROUP = "physfed_ray.methods"

_OWN = {
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
    "scan_physfed": "physfed_ray.methods.scan_physfed:ScanPhysFed",
}


class _Methods(Mapping[str, type[Method]]):
    """Name -> class, imported when first asked for. Own names cannot be overridden."""

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        own = {name: EntryPoint(name, value, GROUP) for name, value in _OWN.items()}
        return own | {e.name: e for e in entry_points(group=GROUP) if e.name not in own}

    def __getitem__(self, name: str) -> type[Method]:
        loaded: type[Method] = self._entries[name].load()
        return loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


METHODS: Mapping[str, type[Method]] = _Methods()


def get_method(name: str) -> type[Method]:
    """Return a method's class.

    Raises:
        PhysFedError: No method of that name is registered.
    """
    if name not in METHODS:
        close = get_close_matches(name, METHODS, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise PhysFedError(f"unknown method '{name}'{hint}; there are: {', '.join(METHODS)}")
    return METHODS[name]
