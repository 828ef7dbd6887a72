"""Patients on the grid, and the regions that they show."""

import numpy as np

from physfed_ray.data.anatomy import REGIONS
from physfed_ray.experiment.data import Data
from physfed_ray.surrogates.images import as_images, phantoms, read_slices, seen_region

DATA = Data.model_validate({"source": {"phantom": {"patients": 5, "slices": 2}}, "image_size": 64})


def test_slices_know_their_patient_region_and_pixel() -> None:
    source = phantoms(5, 2, 1, 64)
    found = read_slices(source, source.ids()[1:4], DATA)
    assert found.patients == (0, 0, 1, 1, 2, 2)
    names = list(REGIONS)
    assert found.regions == tuple(name for name in names[1:4] for _ in range(2))
    assert found.hu.shape == found.body.shape == (6, 64, 64)
    assert np.all((found.pixel_mm > 1) & (found.pixel_mm < 10))
    images = as_images(found.hu, (-1000.0, 2000.0))
    assert images.shape == (6, 1, 64, 64)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_the_reporter_names_a_region_where_it_is_sure() -> None:
    source = phantoms(1, 3, 1, 128)
    data = DATA.model_copy(update={"image_size": 128})
    middle = read_slices(source, source.ids(), data).hu[1]
    assert seen_region(middle) == "chest"
    assert seen_region(np.full((64, 64), -1000.0, np.float32)) == ""
