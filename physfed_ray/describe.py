"""What an experiment amounts to, before it runs: clients, sizes, traffic, memory, time."""

import os
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from physfed_ray.catalogue import PROTOCOL_HEADINGS, number_table, numbers
from physfed_ray.data.plan import PreparePlan, plan
from physfed_ray.data.shards import encoder
from physfed_ray.experiment import Experiment
from physfed_ray.methods.base import Method, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import parameter_counts
from physfed_ray.progress import byte_size, duration
from physfed_ray.step_cost import StepCost, measure_step, network_sizes, steps_per_round

HOST_BYTES = 600e6
"""Resident memory of a host with a negligible network (measured, mapped files included)."""


def print_description(experiment: Experiment, console: Console | None = None) -> None:
    """Print the resolved experiment: clients, patients, sizes, traffic, memory, time.

    Raises:
        PhysFedError: The data are missing or too few.
    """
    console = console or Console()
    todo = plan(experiment)
    method = _method(experiment)
    cost = measure_step(method, experiment.training, experiment.data.image_size)
    console.print(
        f"[bold]{experiment.name}[/bold]: {method.title}, {experiment.backbone.name} with "
        f"{experiment.backbone.channels} channels, seed {experiment.seed}"
    )
    console.print(_client_table(experiment, todo))
    if experiment.unseen:
        console.print("The lower part: unseen protocols, with the test patients. Lengths in mm.")
    for line in (
        *_data_lines(experiment, todo),
        *_size_lines(experiment, method),
        *_cost_lines(experiment, todo, method, cost),
    ):
        console.print(line, markup=False, highlight=False)


def _method(experiment: Experiment) -> Method:
    """Return the method for the experiment's task, before anything is known of the pixels."""
    text_encoder = encoder(experiment.reports.encoder)
    task = Task(
        image_size=experiment.data.image_size,
        clients=len(experiment.clients),
        input_mean=0.0,
        input_std=1.0,
        tokens=text_encoder.tokens,
        dim=text_encoder.dim,
        embedding_mean=(0.0,) * text_encoder.dim,
        embedding_std=(1.0,) * text_encoder.dim,
        backbone=experiment.backbone,
    )
    return get_method(experiment.method.name)(experiment.method.settings, task)


def _client_table(experiment: Experiment, todo: PreparePlan) -> Table:
    table = number_table("client", "patients", "slices", *PROTOCOL_HEADINGS)
    groups = (("train", experiment.clients), ("unseen", experiment.unseen))
    for split, clients in groups:
        for client in clients:
            patients, slices = _counts(todo, split, client.id)
            table.add_row(client.id, str(patients), str(slices), *numbers(client.protocol))
        table.add_section()
    return table


def _counts(todo: PreparePlan, split: str, client: str) -> tuple[int, int]:
    """Return the patients and slices of a file."""
    shards = todo.files.get((split, client), ())
    limit = todo.settings.slices_per_patient
    counts = [todo.source.slice_count(shard.patient) for shard in shards]
    return len(shards), sum(min(count, limit or count) for count in counts)


def _data_lines(experiment: Experiment, todo: PreparePlan) -> Iterable[str]:
    data, first = experiment.data, experiment.clients[0].id
    low, high = data.window_hu
    yield f"images: {data.image_size} x {data.image_size}, {low:g} to {high:g} HU become 0 to 1"
    for split in ("validation", "test"):
        patients, slices = _counts(todo, split, first)
        yield f"{split}: {patients} patient(s), {slices} slices under every seen protocol"
    if todo.unused_patients:
        yield f"unused: {todo.unused_patients} patients that no client lists"
    missing, total = len(todo.missing()), len(todo.shards)
    yield f"scans: {total} (patient x protocol), {total - missing} of them in the cache"


def _size_lines(experiment: Experiment, method: Method) -> Iterable[str]:
    shared, private, codes = network_sizes(method)
    children = parameter_counts(method.build(experiment.seed))
    listed = ", ".join(f"{name} {count:,}" for name, count in children.items())
    yield f"parameters: {shared:,} shared, {private:,} private ({listed})"
    drawn = max(1, round(experiment.federation.participation * len(experiment.clients)))
    down, up = 4 * drawn * (shared + codes), 4 * drawn * shared
    yield f"traffic: {byte_size(down)} down and {byte_size(up)} up a round, {drawn} clients"


def _cost_lines(
    experiment: Experiment, todo: PreparePlan, method: Method, cost: StepCost
) -> Iterable[str]:
    training, federation = experiment.training, experiment.federation
    slots = max(1, (os.cpu_count() or 1) // training.threads)
    wanted = federation.clients_per_host
    clients = len(experiment.clients)
    hosts = min(slots, clients) if wanted == "auto" else -(-clients // wanted)
    steps = sum(
        steps_per_round(training, _counts(todo, "train", client.id)[1])
        for client in experiment.clients
    )
    shared, private, _ = network_sizes(method)
    kept = private + (shared if training.optimizer_state == "persist_all" else 0)
    host = HOST_BYTES + 16 * (shared + private) + cost.activation_bytes
    host += 12 * kept * clients / hosts
    yield f"memory: {byte_size(host)} a host, {byte_size(host * hosts)} on {hosts} host(s)"
    seconds = training.rounds * federation.participation * steps * cost.seconds / min(hosts, slots)
    yield (
        f"time: about {duration(seconds)} of training on this machine: {training.rounds} rounds, "
        f"{steps} steps of {cost.seconds:.3g} s a round on {hosts} host(s)"
    )
