"""What an experiment amounts to, before it runs: clients, sizes, traffic, memory, time."""

import math
from collections.abc import Iterable
from statistics import median

from rich.console import Console
from rich.table import Table

from physfed_ray.assets.store import read_asset
from physfed_ray.cost.estimate import (
    Load,
    at_work,
    checked_method,
    counts,
    host_bytes,
    hosts_here,
    is_pooled,
    load_of,
    need_of,
    seconds_here,
    server_counts,
    slots_here,
    trains_on_server,
)
from physfed_ray.cost.machines import CUDA_CONTEXT_BYTES, GIB, MACHINES, UTILISATION, Need, fit
from physfed_ray.cost.published import published_bytes
from physfed_ray.cost.stored_fields import stored_fields
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.asset_patients import refuse_known_patients
from physfed_ray.data.left_out import source_line
from physfed_ray.data.plan import PreparePlan, plan
from physfed_ray.experiment import Experiment, Federation
from physfed_ray.experiment.assets import named_assets
from physfed_ray.experiment.measured import scanners
from physfed_ray.fields import EXPECTED
from physfed_ray.methods.base import Method
from physfed_ray.screen.catalogue import FURTHER_HEADINGS, PROTOCOL_HEADINGS, number_table, numbers
from physfed_ray.screen.run import CLIENT_ROWS
from physfed_ray.words import byte_size, duration


def print_description(experiment: Experiment, console: Console | None = None) -> None:
    """Print the resolved experiment: clients, patients, sizes, traffic, memory, time.

    Raises:
        PhysFedError: The data are missing or too few.
    """
    console = console or Console()
    todo = plan(experiment)
    refuse_known_patients(experiment, todo)
    method = checked_method(experiment)
    load = load_of(experiment, todo, method)
    console.print(
        f"[bold]{experiment.name}[/bold]: {method.title}, {experiment.backbone.make().label}, "
        f"seed {experiment.seed}"
    )
    console.print(_client_table(experiment, todo))
    if experiment.unseen:
        console.print("The lower part: unseen protocols, with the test patients. Lengths in mm.")
    for line in (
        *_data_lines(experiment, todo),
        *_member_lines(experiment, todo, method),
        *_noise_lines(load),
        *_federation_lines(experiment),
        *_size_lines(experiment, todo, method, load),
        *_asset_lines(experiment),
        *_cost_lines(experiment, load),
    ):
        console.print(line, markup=False, highlight=False)
    need = need_of(experiment, load)
    console.print("\n[bold]machines[/bold] (an estimate, by the arithmetic below)")
    console.print(_machine_table(experiment, load, need))
    for line in _machine_lines(experiment, load, need):
        console.print(line, markup=False, highlight=False)


def _client_table(experiment: Experiment, todo: PreparePlan) -> Table:
    further, protocols = experiment.further, {**todo.clients, **todo.unseen}
    headings = (*PROTOCOL_HEADINGS, *(FURTHER_HEADINGS[name] for name in further))
    table = number_table("client", "patients", "slices", *headings)
    groups = (("train", experiment.clients), ("unseen", experiment.unseen))
    for split, clients in groups:
        for client in clients[:CLIENT_ROWS]:
            patients, slices = counts(todo, split, client.id)
            shown = numbers(protocols[client.id], further)
            table.add_row(client.id, str(patients), str(slices), *shown)
        if len(clients) > CLIENT_ROWS:
            table.add_row(f"and {len(clients) - CLIENT_ROWS} more")
        table.add_section()
    return table


def _data_lines(experiment: Experiment, todo: PreparePlan) -> Iterable[str]:
    data = experiment.data
    low, high = data.window_hu
    yield source_line(todo.source_summary)
    yield f"images: {data.image_size} x {data.image_size}, {low:g} to {high:g} HU become 0 to 1"
    yield from _dose_lines(experiment, todo)
    if todo.unused_patients:
        yield f"unused: {todo.unused_patients} patients that no client takes"
    yield f"scans: {todo.shard_count} (patient x protocol), {todo.cached()} of them in the cache"
    yield from _field_lines(experiment, todo)


def _field_lines(experiment: Experiment, todo: PreparePlan) -> Iterable[str]:
    """Say what makes the network's images, and what is stored of each slice beside images."""
    end = experiment.front_end.make()
    if end.prepares or end.fields:
        how = "learned by each client" if end.fields else "made once, before training"
        yield f"front end: {end.title}, {how}"
    for stored in stored_fields(todo):
        if stored.name == EXPECTED.name:
            continue  # fresh noise has a line of its own
        again = f", and {byte_size(stored.held)} in files that hosts map" if stored.held else ""
        yield f"{stored.name}: {byte_size(stored.cached)} in the cache{again}; none of it travels"


def _dose_lines(experiment: Experiment, todo: PreparePlan) -> Iterable[str]:
    if experiment.data.source.pairs is None:
        yield _object_words(experiment.data.simulation)
        for split in ("validation", "test"):
            patients, slices = counts(todo, split, experiment.clients[0].id)
            yield f"{split}: {patients} patient(s), {slices} slices under every seen protocol"
        return
    yield "pairs: full and low dose as they were measured; no scan is simulated"
    groups = scanners(experiment.clients)
    for split in ("validation", "test"):
        each = [counts(todo, split, group.clients[0]) for group in groups]
        patients, slices = (sum(numbers) for numbers in zip(*each, strict=True))
        yield (
            f"{split}: {patients} patient(s), {slices} slices, each under the protocol of its own "
            f"scanner ({len(groups)} in all)"
        )


def _member_lines(experiment: Experiment, todo: PreparePlan, method: Method) -> Iterable[str]:
    """Yield who has data of another kind than a client's pairs."""
    patients, slices = server_counts(todo)
    if patients:
        does = "trains on them" if trains_on_server(experiment, method) else "does not use them"
        yield (
            f"server: {patients} patient(s), {slices} slices under all seen protocols, full dose "
            f"included; method {method.name} {does}"
        )
    bare = [client.id for client in experiment.clients if not client.labels]
    if bare:
        does = "train without it" if method.unlabelled else "never train"
        names = ", ".join(bare[:CLIENT_ROWS]) + (", ..." if len(bare) > CLIENT_ROWS else "")
        yield f"without full dose: {names}, who {does} under method {method.name}"


def _noise_lines(load: Load) -> Iterable[str]:
    fresh = load.fresh
    if fresh.stored_bytes:
        yield (
            f"noise: new in each round, which takes {duration(fresh.seconds)} a round in one "
            f"process and {byte_size(fresh.stored_bytes)} of line integrals, on the disk twice"
        )


def _object_words(simulation: Simulation) -> str:
    size = simulation.object_size
    if simulation.object_scale == 1:
        return "objects: the images themselves (data.object_scale: 1), for comparison only"
    return f"objects: {size} x {size}, scanned and then averaged over the pixels of the images"


def _federation_lines(experiment: Experiment) -> Iterable[str]:
    federation, clients = experiment.federation, len(experiment.trainable)
    if is_pooled(experiment):
        yield f"schedule: one training a round, over the data of all {clients} clients in one place"
        return
    yield f"schedule: {_schedule_words(federation, clients)}"
    speeds = [client.speed for client in experiment.clients]
    if min(speeds) < max(speeds):
        yield f"speeds: {min(speeds):g} to {max(speeds):g}, median {median(speeds):.3g}"
    trace = federation.availability
    if trace is not None and trace.csv is not None:
        yield f"availability: by {trace.csv}"
    elif trace is not None:
        yield (
            f"availability: a client can be reached for {trace.on_rounds:g} rounds and not for "
            f"{trace.off_rounds:g}, on average, in turn"
        )
    hang, kept = federation.deadline_s, max(2, federation.keep_checkpoints)
    yield (
        f"faults: a round stands with {100 * federation.quorum:g}% of its clients; checkpoint "
        f"every {federation.checkpoint_every} round(s), the last {kept} kept; hosts that hang are "
        + ("waited for" if hang is None else f"left behind after {duration(hang)}")
    )


def _schedule_words(federation: Federation, clients: int) -> str:
    count = at_work(federation, clients)
    by = "uniformly" if federation.sampling == "uniform" else "by their slices"
    some = f"{count} of {clients} clients ({by} drawn)"
    some = some if count < clients else f"all {clients} clients"
    old = f"an update s rounds old weighs (1 + s)^-{federation.staleness_exponent:g}, none above "
    old += f"{federation.max_staleness}"
    if federation.schedule == "async":
        return (
            f"asynchronous: {some} train at any time, {federation.buffer} updates make a round; "
            f"{old}"
        )
    if federation.deadline_steps is None:
        return f"rounds of {some}"
    late = f"late after {federation.deadline_steps:g} steps of a client of speed 1"
    fate = "left out" if federation.late == "drop" else f"merged when it arrives, where {old}"
    return f"rounds of {some}; who is {late} is {fate}"


def _size_lines(
    experiment: Experiment, todo: PreparePlan, method: Method, load: Load
) -> Iterable[str]:
    listed = ", ".join(f"{name} {count:,}" for name, count in load.children.items())
    yield f"parameters: {load.shared:,} shared, {load.private:,} private ({listed})"
    if is_pooled(experiment):
        yield "traffic: none in rounds, but all clients give their images away"
        return
    up, down = load.traffic
    most = "at most " if method.compresses else ""
    yield (
        f"traffic: {most}{byte_size(down)} down and {byte_size(up)} up a round, "
        f"{load.drawn} clients"
    )
    if any(published := published_bytes(experiment, todo, method)):
        up, down = published
        yield f"published: {byte_size(up)} up and {byte_size(down)} down, before the first round"


def _asset_lines(experiment: Experiment) -> Iterable[str]:
    """Say of every frozen network whose it is, how large it is, and where it goes."""
    for key, reference in named_assets(experiment):
        asset = read_asset(reference)
        size = byte_size(asset.path.stat().st_size)
        yield (
            f"asset: {asset.name} of {key}, {size}, not shared by the method; a copy goes into the "
            "run directory, and on Ray one to each machine that lacks it"
        )
        if leak := asset.about.data.get("leak"):
            yield f"asset: {leak}"


def _cost_lines(experiment: Experiment, load: Load) -> Iterable[str]:
    hosts = hosts_here(experiment)
    host = host_bytes(experiment, load, len(experiment.clients) / hosts)
    yield f"memory: {byte_size(host)} a host, {byte_size(host * hosts)} on {hosts} host(s)"
    yield (
        f"time: about {duration(seconds_here(experiment, load))} of training on this machine: "
        f"{experiment.training.rounds} rounds, {load.steps} steps of {load.cost.seconds:.3g} s a "
        f"round on {hosts} host(s)"
    )
    if load.cost.denoise_flops:
        yield (
            f"denoising: {load.cost.denoise_flops / 1e9:.4g} GFLOP an image, by all steps of the "
            f"diffusion network; training takes {load.cost.image_flops / 1e9:.4g} GFLOP an image "
            "or patch"
        )


def _machine_table(experiment: Experiment, load: Load, need: Need) -> Table:
    table = number_table("machine", "GPUs", "hosts a GPU", "clients at once", "hours", "GPU hours")
    for machine in MACHINES:
        found = fit(machine, need)
        gpu_hours = found.gpu_hours if found.hosts else math.nan
        table.add_row(
            f"{machine.cloud} {machine.name}",
            f"{machine.gpus} x {machine.gpu}",
            str(found.per_gpu),
            f"{found.hosts} ({found.limit})",
            _hours(gpu_hours / max(1, min(machine.gpus, found.hosts))),
            _hours(gpu_hours),
        )
    at_once = min(hosts_here(experiment), slots_here(experiment))
    hours = seconds_here(experiment, load) / 3600
    table.add_row("this machine", "", "", f"{at_once} (CPUs)", _hours(hours), "")
    return table


def _hours(hours: float) -> str:
    if math.isnan(hours):
        return "does not fit"
    return "below 0.01" if hours < 0.01 else f"{hours:.3g}"


def _machine_lines(experiment: Experiment, load: Load, need: Need) -> Iterable[str]:
    training, cost = experiment.training, load.cost
    kind = "bfloat16 (float32 on a T4)" if need.bf16 else "float32 (TF32 but on a T4)"
    yield (
        f"hosts a GPU: its memory / {byte_size(need.gpu_bytes)} = weights, gradients and Adam's "
        f"moments {byte_size(16 * load.parameters)} + activations of a batch of "
        f"{training.batch_size} in float32 {byte_size(cost.activation_bytes)} + CUDA context "
        f"{byte_size(CUDA_CONTEXT_BYTES)}"
    )
    yield (
        "clients at once: hosts on the machine, and what limits them: GPU memory, "
        f"CPUs ({need.threads} a host) or memory ({need.host_bytes / GIB:.3g} GiB a host)"
    )
    yield (
        f"GPU hours: {training.rounds} rounds x {load.images} images x "
        f"{cost.image_flops / 1e9:.4g} GFLOP = {need.flops / 1e15:.3g} PFLOP, at {UTILISATION:g} "
        f"(assumed) of the peak in {kind}; hours: on one machine, its GPUs busy all the time; "
        "this machine: from the time of a step"
    )
    yield (
        "not in it: preparation, evaluation, network bandwidth, start-up, kernel launches (which "
        "bound small steps), prices, and clients that are absent or late"
    )
