"""Whether the assets that an experiment names are there, and fit its images."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from physfed_ray.errors import PhysFedError

if TYPE_CHECKING:
    from physfed_ray.experiment import Experiment


def named_assets(experiment: "Experiment") -> Iterator[tuple[str, str]]:
    """Yield the key whose settings name an asset, and the asset's name or path."""
    for reference in experiment.backbone.make().assets():
        yield "backbone", reference
    for reference in experiment.training.objective.make().assets():
        yield "training.objective", reference


def why_unfit(experiment: "Experiment") -> str | None:
    """Return why an asset cannot serve an experiment, None where all can."""
    from physfed_ray.assets.store import read_asset  # torch

    data, patch = experiment.data, experiment.training.patch
    for key, reference in named_assets(experiment):
        try:
            asset = read_asset(reference)
            fixed = asset.recipe().fixed_size
        except PhysFedError as error:
            return f"{key}: {error}"
        about = asset.about
        if about.window_hu != data.window_hu:
            return (
                f"{key}: the asset {asset.name} learned from images with window_hu "
                f"{list(about.window_hu)}, and data.window_hu is {list(data.window_hu)}: give both "
                "the same window"
            )
        sides = {data.image_size, patch or data.image_size}
        if key == "training.objective":
            sides = {patch or data.image_size}
        if fixed and sides != {about.image_size}:
            return (
                f"{key}: the asset {asset.name} fits images of {about.image_size} pixels alone, "
                f"and here they have {' and '.join(map(str, sorted(sides)))}: change "
                "data.image_size or training.patch, or name another asset"
            )
    return None
