"""An experiment must not test on patients whom one of its assets learned from."""

from physfed_ray.assets.store import read_asset
from physfed_ray.data.identity import identities
from physfed_ray.data.plan import PreparePlan
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.experiment.assets import named_assets

HELD = ("test", "unseen", "validation")
"""Splits whose patients an asset must not know."""


def refuse_known_patients(experiment: Experiment, todo: PreparePlan) -> None:
    """Refuse held-out patients who are among those of an asset.

    Args:
        experiment: It may name assets.
        todo: Who is scanned as whom, before anything is made.

    Raises:
        PhysFedError: One is.
    """
    for key, reference in named_assets(experiment):
        asset = read_asset(reference)
        known = {*asset.about.patients}
        for split in HELD:
            people = {
                patient.id: patient.pseudonym
                for (part, _), patients in todo.files.items()
                if part == split
                for patient in patients
            }
            both = [
                name
                for id, name in people.items()
                if known.intersection(identities(todo.source, experiment.seed, [id]))
            ]
            if both:
                what = "validation" if split == "validation" else "test"
                raise PhysFedError(
                    f"{key}: the asset {asset.name} has learned from, or was scored on, "
                    f"{len(both)} of the experiment's {len(people)} {what} patients "
                    f"({', '.join(sorted(both)[:3])}), whose scores would be worth nothing: list "
                    f"other data.{what}_patients, use another seed, or name another asset"
                )
