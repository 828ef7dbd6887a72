"""What an experiment will need: parameters, steps, memory and time, before it runs."""

import math
import os
from dataclasses import dataclass, replace

from physfed_ray.cost.fresh_noise import FIXED, FreshCost, fresh_cost
from physfed_ray.cost.machines import CUDA_CONTEXT_BYTES, Need
from physfed_ray.cost.step_cost import StepCost, measure_step, network_sizes
from physfed_ray.data.plan import SERVER, PreparePlan, plan
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, Federation
from physfed_ray.federation.routes import why_untrained
from physfed_ray.federation.traffic import expected_bytes
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import LocalOptimizer, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import parameter_counts

HOST_BYTES = 600e6
"""Resident memory of a host with a negligible network (measured, mapped files included)."""


@dataclass(frozen=True)
class Load:
    """The sizes and counts that every estimate starts from.

    Attributes:
        shared: Shared float32 numbers.
        private: Private float32 numbers of a client.
        codes: Float32 numbers of the codebook.
        children: Parameters of each child of the network.
        cost: One training step.
        drawn: Clients whose updates make a round, where none is absent or late; 1 where the method
            pools their data.
        steps: Training steps of all of them, and of the server if it trains, in a round, on
            average.
        images: Images or patches, likewise.
        traffic: Bytes that all of them together send and receive in a round that follows another;
            no more than that where the method compresses.
        fresh: Cost of new noise for the slices of all of them in a round, on average.
    """

    shared: int
    private: int
    codes: int
    children: dict[str, int]
    cost: StepCost
    drawn: int
    steps: int
    images: int
    traffic: tuple[int, int] = 0, 0
    fresh: FreshCost = FIXED

    @property
    def parameters(self) -> int:
        """Float32 numbers of a client's network."""
        return self.shared + self.private


def load_of(experiment: Experiment, todo: PreparePlan, method: Method) -> Load:
    """Return the sizes and counts of an experiment, whose data are planned."""
    training, clients, federation = experiment.training, experiment.clients, experiment.federation
    sync = federation.schedule == "sync"
    trainable = len(experiment.trainable)
    drawn = at_work(federation, trainable) if sync else min(federation.buffer, trainable)
    slices = [counts(todo, "train", client.id)[1] for client in clients]
    fresh = fresh_cost(experiment, slices, pooled=method.pooled)
    slices = [counts(todo, "train", client.id)[1] for client in experiment.trainable]
    if method.pooled:
        drawn, slices = 1, [sum(slices)]
    steps = sum(map(training.steps_per_round, slices))
    uses = training.local_epochs * training.patches_per_slice
    images = sum(slices) * uses
    own = server_counts(todo)[1] if trains_on_server(experiment, method) else 0
    sizes = network_sizes(method)
    channel = federation.channel.make()
    return Load(
        *sizes,
        children=parameter_counts(method.build(experiment.seed)),
        cost=measure_step(method, training, experiment.data.image_size),
        drawn=drawn,
        steps=round(steps * drawn / len(slices)) + (training.steps_per_round(own) if own else 0),
        images=round(images * drawn / len(slices)) + own * uses,
        traffic=expected_bytes(method, channel, sizes[0], sizes[2], drawn),
        fresh=replace(fresh, seconds=fresh.seconds * drawn / len(slices)),
    )


def trains_on_server(experiment: Experiment, method: Method) -> bool:
    """Say whether the server is a member that trains."""
    return method.trains_on_server and experiment.data.server_patients not in (0, ())


def server_counts(todo: PreparePlan) -> tuple[int, int]:
    """Return the patients of the server, and their slices under all protocols."""
    parts = [counts(todo, split, client) for split, client in todo.files if split == SERVER]
    return max((n for n, _ in parts), default=0), sum(n for _, n in parts)


def at_work(federation: Federation, clients: int) -> int:
    """Return the clients that are drawn for a round, or that train at any time."""
    return max(1, math.ceil(federation.participation * clients - 1e-9))


def method_of(experiment: Experiment) -> Method:
    """Return the method for the experiment's task, before anything is known of the pixels."""
    text_encoder = experiment.reports.make().encoder
    task = Task(
        image_size=experiment.data.image_size,
        clients=len(experiment.clients),
        input_mean=0.0,
        input_std=1.0,
        tokens=text_encoder.tokens,
        dim=text_encoder.dim,
        embedding_mean=(0.0,) * text_encoder.dim,
        embedding_std=(1.0,) * text_encoder.dim,
        backbone=experiment.backbone.make(),
        optimizer=LocalOptimizer(experiment.training.optimizer, experiment.training.momentum),
        rounds=experiment.training.rounds,
        objective=experiment.training.objective.make(),
        further=experiment.further,
        front_end=experiment.front_end.make(),
        scanners=experiment.scanners,
    )
    return get_method(experiment.method.name)(experiment.method.settings, task)


def checked_method(experiment: Experiment) -> Method:
    """Return the method for an experiment, before its data are prepared.

    Raises:
        PhysFedError: It cannot serve clients that it cannot train.
    """
    method = method_of(experiment)
    unlabelled = [client.id for client in experiment.clients if not client.labels]
    if (reason := why_untrained(method, unlabelled)) is not None:
        raise PhysFedError(reason)
    return method


def is_pooled(experiment: Experiment) -> bool:
    """Say whether the method trains on the data of all clients in one place."""
    return get_method(experiment.method.name).pooled


def counts(todo: PreparePlan, split: str, client: str) -> tuple[int, int]:
    """Return the patients and slices of a file."""
    patients = todo.files.get((split, client), ())
    return len(patients), sum(patient.slices for patient in patients)


def _private_bytes(experiment: Experiment, load: Load, clients: float) -> float:
    """Return a host's memory for the private states of its clients."""
    everything = experiment.training.optimizer_state == "persist_all"
    kept = load.private + (load.shared if everything else 0)
    return min(12 * kept * clients, 1e6 * experiment.federation.private_memory_mb)


def host_bytes(experiment: Experiment, load: Load, clients: float) -> float:
    """Return the memory of a host with so many clients, on a CPU."""
    cost = load.cost
    own = HOST_BYTES + 16 * load.parameters + cost.frozen_bytes + cost.activation_bytes
    own += load.fresh.host_bytes
    return own + _private_bytes(experiment, load, clients)


def run_bytes(experiment: Experiment) -> float:
    """Return the memory of a run in one process on the CPU: an estimate that needs no data."""
    method = method_of(experiment)
    cost = measure_step(method, experiment.training, experiment.data.image_size)
    load = Load(*network_sizes(method), children={}, cost=cost, drawn=0, steps=0, images=0)
    return host_bytes(experiment, load, len(experiment.clients))


def run_seconds(experiment: Experiment) -> float:
    """Return how long a run trains on this machine with nothing beside it: an estimate."""
    todo = plan(experiment)
    return seconds_here(experiment, load_of(experiment, todo, method_of(experiment)))


def slots_here(experiment: Experiment) -> int:
    """Return how many clients this machine trains at once."""
    return max(1, (os.cpu_count() or 1) // experiment.training.threads)


def hosts_here(experiment: Experiment) -> int:
    """Return how many hosts a run has on this machine."""
    if is_pooled(experiment):
        return 1
    wanted, clients = experiment.federation.clients_per_host, len(experiment.clients)
    return min(slots_here(experiment), clients) if wanted == "auto" else -(-clients // wanted)


def seconds_here(experiment: Experiment, load: Load) -> float:
    """Return how long a run trains on this machine."""
    round_seconds = load.steps * load.cost.seconds + load.fresh.seconds
    work = experiment.training.rounds * round_seconds
    return work / min(hosts_here(experiment), slots_here(experiment))


def need_of(experiment: Experiment, load: Load) -> Need:
    """Return what a host needs, to be fitted on machine types."""
    training, wanted = experiment.training, experiment.federation.clients_per_host
    clients = len(experiment.clients) if wanted == "auto" else wanted
    return Need(
        gpu_bytes=CUDA_CONTEXT_BYTES
        + 16 * load.parameters
        + load.cost.frozen_bytes
        + load.cost.activation_bytes,
        host_bytes=HOST_BYTES + load.fresh.host_bytes + _private_bytes(experiment, load, clients),
        threads=training.threads,
        flops=training.rounds * load.images * load.cost.image_flops,
        bf16=training.precision != "fp32",
    )
