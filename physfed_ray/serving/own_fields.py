"""What a network reads beside the image, made for slices of any matrix."""

from dataclasses import replace

import numpy as np

from physfed_ray.ct.protocol import REFERENCE_SIZE, Protocol
from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import (
    BASE,
    SIGMA,
    SMOOTH,
    STREAKS,
    Acquisition,
    extra_fields,
    field_of,
)
from physfed_ray.methods.base import Method
from physfed_ray.serving.own_grid import NetworkGrid
from physfed_ray.window import Window, denormalise

OF_IMAGES = tuple(field.name for field in (SIGMA, STREAKS, BASE, SMOOTH))
OF_REPORT = ("embedding", "embedding_mask")


def report_images(hu: np.ndarray, spacing_mm: tuple[float, float], image_size: int) -> np.ndarray:
    """Return what reporters see of slices (N, h, w): (N, n, n) HU, the body centred and fitted."""
    from physfed_ray.data.grid import to_grid  # with SciPy

    return np.stack([to_grid(one, spacing_mm, image_size, "body").image for one in hu])


def made_for(
    method: Method, seen: np.ndarray, grid: NetworkGrid, protocol: Protocol, window_hu: Window
) -> dict[str, np.ndarray]:
    """Return the fields that a method and its backbone read, made of the images themselves.

    Args:
        method: The run's method.
        seen: What the network sees, (N, s, s) float32 in [0, 1] of the window.
        grid: Where that lies.
        protocol: How the images were scanned.
        window_hu: The run's window.

    Raises:
        PhysFedError: A field does not follow from images, or not from these.
    """
    front_end = method.task.front_end
    if front_end.fields or not front_end.of_images:
        raise PhysFedError(
            f"the run's network reads what its front end, {front_end.title}, makes from sinograms, "
            "and a series holds images: denoise with a run of front_end fbp"
        )
    names = extra_fields((*method.task.backbone.fields, *method.reads()))
    for name in names:
        if name not in OF_IMAGES:
            raise PhysFedError(
                f"{method.title} reads the field '{name}' of each image, which cannot be made of a "
                "series: denoise with a run whose method and backbone read images and reports"
            )
    if not names:
        return {}
    scan = _scan(seen, grid, protocol, window_hu)
    return {name: field_of(name).made_of(scan) for name in names}


def _scan(
    seen: np.ndarray, grid: NetworkGrid, protocol: Protocol, window_hu: Window
) -> Acquisition:
    """Return what is known of images that a scanner has reconstructed on their own grid."""
    try:
        scanner = replace(protocol, pixel_mm=grid.pixel_mm * grid.side / REFERENCE_SIZE)
    except PhysFedError as error:
        raise PhysFedError(
            f"the noise of a series whose frame is {grid.side * grid.pixel_mm:.0f} mm wide cannot "
            f"be computed under this protocol ({error}): give the protocol of its scanner"
        ) from None
    hu, nothing = denormalise(seen, window_hu), np.empty((len(seen), 0, 0), np.float32)
    return Acquisition(
        protocol=scanner,
        full_hu=hu,  # what is not there; nothing looks at it
        low_hu=hu,
        body=np.zeros(hu.shape, np.uint8),
        line_integrals=nothing,
        expected=nothing,
        simulation=Simulation(grid.side),
        window_hu=window_hu,
    )
