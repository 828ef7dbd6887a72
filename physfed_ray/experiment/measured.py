"""What measured pairs of full and low dose ask of an experiment: no scan of theirs is simulated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.clients import ClientSpec
from physfed_ray.experiment.data import Data
from physfed_ray.experiment.evaluation import Evaluation
from physfed_ray.experiment.from_header import PartlyKnown
from physfed_ray.metrics.registry import metrics_of

_SIMULATED: Mapping[str, Any] = MappingProxyType(
    {
        "noise": "fixed",
        "reuse_patients": False,
        "object_scale": None,
        "kernel_pixels": None,
        "electronic_noise": ELECTRONIC_NOISE_COUNTS,
    }
)
"""Keys of ``data`` that say how a scan is simulated, and the value with which they say nothing."""


@dataclass(frozen=True)
class Scanner:
    """Clients with one protocol: one scanner, whose patients all of them may have.

    Attributes:
        protocol: Theirs, with numbers that headers may have to give.
        clients: Their ids.
    """

    protocol: Protocol
    clients: tuple[str, ...]


def scanners(clients: Sequence[ClientSpec]) -> list[Scanner]:
    """Return the scanners of some clients, in their order.

    Clients that list their patients and leave numbers to the headers have scanners of their own:
    the headers may say something else of each.
    """
    groups: dict[Any, tuple[Protocol, list[str]]] = {}
    for client in clients:
        own = isinstance(client.protocol, PartlyKnown) and client.listed_patients
        key = (client.protocol, client.id if own else "")
        groups.setdefault(key, (client.protocol, []))[1].append(client.id)
    return [Scanner(protocol, tuple(ids)) for protocol, ids in groups.values()]


def why_not_measured(
    data: Data,
    clients: Sequence[ClientSpec],
    unseen: Sequence[ClientSpec],
    evaluation: Evaluation,
) -> str | None:
    """Return why an experiment makes no sense with measured pairs, None if it does."""
    return next(_reasons(data, clients, unseen, evaluation), None)


def _reasons(
    data: Data,
    clients: Sequence[ClientSpec],
    unseen: Sequence[ClientSpec],
    evaluation: Evaluation,
) -> Iterator[str]:
    for name, silent in _SIMULATED.items():
        if getattr(data, name) != silent:
            yield (
                f"data.{name}: it says how scans are simulated, and data.source.pairs has measured "
                "ones; leave it out"
            )
    if data.server_patients:
        yield (
            "data.server_patients: they are scanned under every client's protocol, and "
            "data.source.pairs holds scans of one scanner each; leave it out"
        )
    for position, client in enumerate(unseen):
        if not client.listed_patients:
            yield (
                f"unseen.{position}.patients: an unseen protocol of measured pairs is another "
                "scanner with patients of its own, and nobody else's can be scanned there; list "
                "their ids"
            )
    lists = [bool(client.listed_patients) for client in clients]
    if len(scanners(clients)) > 1 and not all(lists):
        yield (
            f"clients.{lists.index(False)}.patients: with measured pairs of several protocols, a "
            "patient belongs to the scanner that was used; list each client's patients by their ids"
        )
    for name in evaluation.metrics:
        if any("phantom" in metric.needs for metric in metrics_of(name)):
            yield (
                f"evaluation.metrics: '{name}' scans a phantom, which measured pairs do not have; "
                "leave it out"
            )


def why_incomplete(clients: Sequence[ClientSpec]) -> str | None:
    """Return which number of a protocol is missing where no header can give it, None if none is."""
    for position, client in enumerate(clients):
        if isinstance(client.protocol, PartlyKnown):
            missing = ", ".join(client.protocol.from_header)
            return f"{position}.protocol: a protocol has seven numbers; missing: {missing}"
    return None


def known_protocol(client: ClientSpec, said: Mapping[str, float]) -> Protocol:
    """Return a client's protocol, with what headers say where the file does not.

    Args:
        client: The client.
        said: What the headers of its patients say, by name.

    Raises:
        PhysFedError: A number is said by neither, or the numbers fit no scanner.
    """
    if not isinstance(client.protocol, PartlyKnown):
        return client.protocol
    missing = [name for name in client.protocol.from_header if name not in said]
    if missing:
        raise PhysFedError(
            f"the protocol of {client.id} leaves {missing[0]} to the DICOM headers, and these do "
            "not say it; give it in the file"
        )
    try:
        return client.protocol.completed(said)
    except PhysFedError as error:
        raise PhysFedError(f"{client.id}, with numbers from its DICOM headers: {error}") from None
