"""The card that a run writes: what the experiment and its data say, and nobody's patients."""

from dataclasses import replace
from pathlib import Path

import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.prepare import Prepared, PreparedClient, Statistics
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment
from physfed_ray.rundir.model import write_card
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.model import begun_model, model_card, with_statistics


@pytest.fixture
def experiment() -> Experiment:
    """Return an experiment that names a patient."""
    return Experiment.model_validate(
        {
            "name": "named",
            "seed": 7,
            "data": {
                "source": {"phantom": {"patients": 4}},
                "image_size": 64,
                "window_hu": [-500, 500],
                "test_patients": ["DOE^JANE 19500101"],
            },
            "clients": [{"id": "c1", "protocol": "paper-2"}],
            "unseen": [{"id": "u1", "protocol": "unseen-1"}],
            "backbone": {"channels": 5},
            "method": {"name": "fedprox", "mu": 0.25},
            "training": {"rounds": 9, "optimizer": "sgd", "momentum": 0.5, "threads": 3},
        }
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Return the description of its data."""
    made = {name: PreparedClient(name, PRESETS[preset], None, None, None, 2, 1)
            for name, preset in (("c1", "paper-2"), ("u1", "unseen-1"))}  # fmt: skip
    statistics = Statistics(0.5, 0.25, [0.0], [1.0], 1, 1)
    window = (-500.0, 500.0)
    return Prepared(tmp_path, 64, window, (made["c1"],), (made["u1"],), statistics, {})


def test_the_card_says_what_the_model_needs(experiment: Experiment, prepared: Prepared) -> None:
    card = model_card(experiment, prepared, "bf16")
    assert card.method == {"name": "fedprox", "mu": 0.25, "weights": "uniform"}
    assert (card.backbone["name"], card.backbone["channels"]) == ("red_cnn", 5)
    assert card.reports["encoder"]["name"] == "minilm"
    assert (card.image_size, card.window_hu, card.seed) == (64, (-500.0, 500.0), 7)
    assert [(c.id, c.protocol) for c in card.clients] == [("c1", PRESETS["paper-2"])]
    assert [(u.id, u.protocol) for u in card.unseen] == [("u1", PRESETS["unseen-1"])]
    assert (card.precision, card.statistics) == ("bf16", prepared.statistics)
    training = card.training
    assert (training.optimizer, training.momentum, training.rounds) == ("sgd", 0.5, 9)
    assert training.threads == 3
    assert card.versions["torch"]
    assert "DOE" not in card.model_dump_json()


def test_a_run_that_is_resumed_takes_up_what_it_began_with(
    experiment: Experiment, prepared: Prepared, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    assert begun_model(directory, resume=True) is None  # made by an earlier version
    card = model_card(experiment, prepared, "fp32")
    write_card(directory, card)
    assert begun_model(directory, resume=False) is None
    begun = begun_model(directory, resume=True)
    assert begun == card
    events: list[Event] = []
    assert with_statistics(prepared, begun, events.append) == prepared
    assert events == []
    anew = replace(prepared, statistics=replace(prepared.statistics, input_mean=0.75))
    assert with_statistics(anew, begun, events.append) == prepared
    (event,) = events
    assert "other statistics than model.json" in event["text"]
