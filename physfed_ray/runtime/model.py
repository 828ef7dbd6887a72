"""The card of a run's model: made from the experiment, or taken up by a run that is resumed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from physfed_ray.assets.store import name_of
from physfed_ray.data.prepare import Prepared
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment
from physfed_ray.experiment.assets import named_assets
from physfed_ray.rundir.model import (
    MODEL_FILE,
    LocalTraining,
    ModelCard,
    NamedProtocol,
    read_card,
)
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.results import provenance


def model_card(
    experiment: Experiment, prepared: Prepared, precision: Literal["fp32", "bf16"]
) -> ModelCard:
    """Return what of an experiment and its prepared data its model needs, wherever it is used."""
    content = experiment.model_dump(mode="json")
    training = experiment.training
    clients, unseen = (
        tuple(NamedProtocol(id=part.id, protocol=part.protocol) for part in parts)
        for parts in (prepared.clients, prepared.unseen)
    )
    return ModelCard(
        method=content["method"],
        backbone=content["backbone"],
        front_end=content["front_end"],
        kernel_pixels=experiment.data.kernel_pixels,
        reports=content["reports"],
        statistics=prepared.statistics,
        image_size=prepared.image_size,
        window_hu=experiment.data.window_hu,
        clients=clients,
        unseen=unseen,
        seed=experiment.seed,
        precision=precision,
        training=LocalTraining(
            optimizer=training.optimizer,
            momentum=training.momentum,
            rounds=training.rounds,
            threads=training.threads,
        ),
        assets=tuple(dict.fromkeys(name_of(named) for _, named in named_assets(experiment))),
        **provenance(),
    )


def begun_model(directory: RunDirectory, resume: bool) -> ModelCard | None:
    """Return the card of the model that a resumed run began with, None for a new run."""
    return read_card(directory) if resume and directory.has(MODEL_FILE) else None


def with_statistics(
    prepared: Prepared, begun: ModelCard, on_event: Callable[[Event], None]
) -> Prepared:
    """Return the data with the statistics of the model that a run began with.

    They are part of the model, and the same data prepared elsewhere, or by another version, may
    have others.
    """
    if begun.statistics != prepared.statistics:
        text = (
            f"the prepared data have other statistics than {MODEL_FILE}; the run continues with "
            f"those in {MODEL_FILE}, with which it began"
        )
        on_event({"event": "message", "text": text})
    return replace(prepared, statistics=begun.statistics)
