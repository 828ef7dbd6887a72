"""From what a run directory holds to a method and its networks."""

from collections.abc import Mapping

from pydantic import ValidationError
from torch import Tensor

from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.backbone import BackboneSpec
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.front_end import FrontEndSpec
from physfed_ray.experiment.method import MethodSpec
from physfed_ray.federation.flat import FlatState
from physfed_ray.front_ends.base import Scanners
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import LocalOptimizer, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.objectives.base import Objective
from physfed_ray.objectives.registry import make_objective
from physfed_ray.rundir.model import ModelCard
from physfed_ray.rundir.run_directory import Manifest, RunDirectory


def rebuild(card: ModelCard, objective: Objective | None = None) -> Method:
    """Return the method that a card describes; a run builds its own by this, too.

    Args:
        card: The run's.
        objective: What training minimises; it is not looked at where nothing trains.

    Raises:
        PhysFedError: Its method or backbone is not installed, or has no such settings here.
    """
    try:
        spec = MethodSpec.model_validate(card.method)
        backbone = BackboneSpec.model_validate(card.backbone)
        front_end = FrontEndSpec.model_validate(card.front_end)
    except ValidationError as error:
        raise PhysFedError(f"model.json: {explain(error, BackboneSpec)}") from None
    statistics, training = card.statistics, card.training
    task = Task(
        image_size=card.image_size,
        clients=len(card.clients),
        input_mean=statistics.input_mean,
        input_std=statistics.input_std,
        tokens=statistics.tokens,
        dim=statistics.dim,
        embedding_mean=tuple(statistics.embedding_mean),
        embedding_std=tuple(statistics.embedding_std),
        backbone=backbone.make(),
        optimizer=LocalOptimizer(training.optimizer, training.momentum),
        rounds=training.rounds,
        objective=objective or make_objective(),
        further=card.further,
        front_end=front_end.make(),
        scanners=Scanners(
            tuple(client.protocol for client in card.clients),
            Simulation(card.image_size, kernel_pixels=card.kernel_pixels),
            card.window_hu,
        ),
    )
    return get_method(spec.name)(spec.settings, task)


def read_weights(directory: RunDirectory, manifest: Manifest, name: str) -> dict[str, Tensor]:
    """Read a file of a checkpoint.

    Raises:
        PhysFedError: It is not there, or damaged.
    """
    if not directory.exists(name):
        raise PhysFedError(
            f"{directory.root}/{name} is not there: copy the run directory whole; if the run goes "
            "on, a newer checkpoint has replaced this one, so load it again"
        )
    return directory.read_tensors(name, manifest.parts.get(name))


def fill(state: FlatState, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a part of a network its trained values; what else is in the file is not looked at.

    Args:
        state: The shared or the private part.
        tensors: By the names of the network's own.
        where: The file, for messages.

    Raises:
        PhysFedError: The file is that of another network.
    """
    for entry in state.entries:
        if entry.name not in tensors or tuple(tensors[entry.name].shape) != entry.shape:
            raise PhysFedError(
                f"{where} does not fit the network that model.json describes (at {entry.name}); "
                "use the version of physfed_ray, and of the method, that trained it"
            )
    state.vector.copy_(state.pack(tensors))
