"""From prepared slices to what is trained, and what the asset's file will say of it."""

from physfed_ray.assets.store import About
from physfed_ray.data.identity import identities
from physfed_ray.data.plan import plan
from physfed_ray.data.prepared import Prepared
from physfed_ray.device import resolve_precision
from physfed_ray.experiment.pretrain import Pretrain
from physfed_ray.pretraining.slices import Slices, read_slices
from physfed_ray.pretraining.training import Job
from physfed_ray.pretraining.wanted import Wanted

NOT_DECIDING = {"evaluate_every", "checkpoint_every"}
"""Keys under ``training`` that change nothing of the network."""


def make_job(
    pretrain: Pretrain, data: Wanted, prepared: Prepared, device: str
) -> tuple[Job, About]:
    """Return what is trained, with the recipe's constants, and what is known before it is.

    Args:
        pretrain: The file.
        data: What it asks for.
        prepared: What became of it.
        device: ``cpu`` or ``cuda``.
    """
    todo = plan(data.experiment, data.source)
    recipe, training = pretrain.asset.make(), pretrain.training
    slices = read_slices(todo, prepared, "train", recipe.scanned)
    held_out = read_slices(todo, prepared, "test", recipe.scanned)
    constants = {
        name: value.detach().cpu()
        for name, value in recipe.constants(slices.all(), pretrain.seed).items()
    }
    precision = resolve_precision(training.precision, device)
    job = Job(recipe, constants, slices, held_out, pretrain.seed, training, precision, device)
    images = data.experiment.data
    protocols = {client.id: client.protocol.values() for client in prepared.clients}
    people = {patient.id for patients in todo.files.values() for patient in patients}
    about = About(
        recipe=recipe.name,
        settings=recipe.settings.model_dump(mode="json"),
        image_size=images.image_size,
        window_hu=images.window_hu,
        data={
            "whose": data.whose,
            "leak": data.leak,
            "scans": "" if prepared.record is None else prepared.record.scans,
            "trained": _counts(slices),
            "held_out": _counts(held_out),
            "protocols": protocols if recipe.scanned else {},
        },
        patients=identities(todo.source, data.experiment.seed, people),
        training=training.model_dump(mode="json", exclude=NOT_DECIDING)
        | {"seed": pretrain.seed, "precision": precision},
    )
    return job, about


def _counts(slices: Slices) -> dict[str, int]:
    """Return how many patients and slices there are; a slice under several protocols is one."""
    first = slices.parts[0].data
    return {"patients": len(set(first.patient)), "slices": len(first)}
