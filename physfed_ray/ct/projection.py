"""Fan-beam line integrals of images, and the adjoint of that operator, by ASTRA.

Geometry: the source stands at ``(source sin b, -source cos b)``, the flat detector's axis is
``(cos b, sin b)``, the angles ``b`` are the protocol's. ASTRA has no curved detector for fan beams:
``ct.operator.FanBeam`` has one. Row 0 of an image is its top
(largest y). Lengths are mm, so the integral of an attenuation per mm has no unit.
"""

import weakref
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.protocol import Protocol


def project(
    mu: NDArray[np.float32], protocol: Protocol, *, cuda: bool | None = None
) -> NDArray[np.float32]:
    """Return the noiseless line integrals of a batch of images.

    ASTRA's ``line_fanflat`` on the CPU, on one core; its ``cuda`` projector on a GPU.

    Args:
        mu: (B, n, n) float32, attenuation per mm on a grid over the protocol's field of view.
        protocol: The scanner.
        cuda: Whether to project on the GPU; by default wherever ASTRA can use one.

    Returns:
        (B, views, bins) float32, dimensionless.

    Raises:
        ValueError: The detector is curved.
    """
    import astra  # not for every process that knows protocols

    mu = np.ascontiguousarray(mu, dtype=np.float32)
    on_gpu = bool(astra.use_cuda()) if cuda is None else cuda
    projector = _projector(protocol, mu.shape[-1], on_gpu)
    sinogram = np.zeros((len(mu), protocol.views, protocol.bins), dtype=np.float32)
    for image, views in zip(mu, sinogram, strict=True):
        projector.run("FP", image, views)
    return sinogram


def back_project(
    sinogram: NDArray[np.float32], protocol: Protocol, image_size: int
) -> NDArray[np.float32]:
    """Return the exact adjoint of the CPU's ``project`` applied to a batch of sinograms.

    Args:
        sinogram: (B, views, bins) float32.
        protocol: The scanner.
        image_size: n of the images.

    Returns:
        (B, n, n) float32, the sinogram's unit times mm.

    Raises:
        ValueError: The detector is curved.
    """
    sinogram = np.ascontiguousarray(sinogram, dtype=np.float32)
    projector = _projector(protocol, image_size, False)
    images = np.zeros((len(sinogram), image_size, image_size), dtype=np.float32)
    for views, image in zip(sinogram, images, strict=True):
        projector.run("BP", image, views)
    return images


class _Projector:
    """An ASTRA projector that is built once per geometry and freed with this object."""

    def __init__(self, protocol: Protocol, image_size: int, on_gpu: bool) -> None:
        if protocol.detector != "flat":
            raise ValueError(
                f"ASTRA projects onto flat detectors, not onto detector={protocol.detector}; use "
                "physfed_ray.ct.operator.FanBeam"
            )
        import astra

        self.astra, radius = astra, protocol.field_radius_mm
        self.volume = astra.create_vol_geom(
            image_size, image_size, -radius, radius, -radius, radius
        )
        self.scan = astra.create_proj_geom(
            "fanflat",
            protocol.bin_mm,
            protocol.bins,
            protocol.view_angles,
            protocol.source_mm,
            protocol.detector_mm,
        )
        self.suffix = "_CUDA" if on_gpu else ""
        kind = "cuda" if on_gpu else "line_fanflat"
        self.id = astra.create_projector(kind, self.scan, self.volume)
        weakref.finalize(self, astra.projector.delete, self.id)

    def run(self, algorithm: str, image: NDArray[np.float32], views: NDArray[np.float32]) -> None:
        """Run ``FP`` or ``BP`` between the memory of one image and one sinogram, without copies."""
        image_id = self.astra.data2d.link("-vol", self.volume, image)
        views_id = self.astra.data2d.link("-sino", self.scan, views)
        settings = self.astra.astra_dict(algorithm + self.suffix)
        settings["ProjectorId"] = self.id
        settings["ProjectionDataId"] = views_id
        settings["VolumeDataId" if algorithm == "FP" else "ReconstructionDataId"] = image_id
        algorithm_id = self.astra.algorithm.create(settings)
        try:
            self.astra.algorithm.run(algorithm_id)
        finally:
            self.astra.algorithm.delete(algorithm_id)
            self.astra.data2d.delete([image_id, views_id])


@lru_cache(maxsize=16)
def _projector(protocol: Protocol, image_size: int, on_gpu: bool) -> _Projector:
    return _Projector(protocol, image_size, on_gpu)
